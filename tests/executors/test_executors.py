"""Every executor does the same pieces with the same outcomes, keeps what is finished when a worker
dies, and stops when it is told.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lockforge.data.roles import read_set
from lockforge.errors import IntegrityError, OutcomeError, RecipeError, ResourceError
from lockforge.executors import Kind, make_executor
from lockforge.executors import _ray as ray_room
from lockforge.executors._here import Here
from lockforge.executors._messages import ask, asked
from lockforge.executors._processes import Processes
from lockforge.executors._share import pull, push
from lockforge.executors.threads import Threads
from lockforge.files import Files
from lockforge.jobs import Executor, InTurn, Job, Task, TaskResult
from lockforge.recipe import DataRecipe, FitRecipe, NetworkRecipe
from lockforge.records import Cell, FileRef, ImageSet, Op
from lockforge.runs import Work, file_refs
from lockforge.search._short_training import Measured, measure_cell, set_course
from lockforge.search.meta_bench import CellAccuracies, measure_cells
from tests.executors.workers import kill_workers, workers_of

NETWORK = NetworkRecipe(space="nasbench201", stem_channels=2, cells_per_stage=1)
QUICK = FitRecipe(steps=2, batch_size=16)
CELLS = [
    Cell(ops=(one, Op.none, Op.skip, other, Op.none, Op.skip))
    for one in (Op.conv1x1, Op.skip)
    for other in (Op.conv1x1, Op.skip)
]
KINDS: tuple[Kind, ...] = ("threads", "processes", "ray")

Make = Callable[[Kind], Executor]


@pytest.fixture(scope="module")
def made() -> dict[Kind, Executor]:
    """Executors are kept, as starting them takes seconds."""
    return {}


@pytest.fixture
def make(made: dict[Kind, Executor], request: pytest.FixtureRequest) -> Make:
    """An executor with two workers."""

    def one(kind: Kind) -> Executor:
        if kind == "ray":
            request.getfixturevalue("ray_cluster")
        if kind not in made:
            made[kind] = make_executor(kind, workers=2)
        return made[kind]

    return one


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A stage's work."""
    return Work(files=Files(tmp_path / "files"), folder=tmp_path / "stage", seed=3)


@pytest.fixture
def digits(work: Work) -> ImageSet:
    """The built-in digits."""
    return read_set("digits", DataRecipe(), work.files)


def trainings(images: ImageSet, fit: FitRecipe = QUICK) -> Job[Measured]:
    """Short trainings on these images."""
    return Job(measure_cell, set_course, (images, NETWORK, fit))


def carried_out(
    executor: Executor, spread: Job[Measured], cells: Sequence[Cell], work: Work
) -> list[TaskResult[Measured]]:
    """What came, by place."""
    came: list[TaskResult[Measured]] = []
    executor.run(spread, [Task((cell,), work) for cell in cells], came.append)
    return sorted(came, key=lambda done: done.place)


@pytest.mark.parametrize("kind", KINDS)
def test_an_executor_decides_nothing(make: Make, kind: Kind, digits: ImageSet, work: Work) -> None:
    """The same answers to the last bit as in turn on one thread, each told of once, in the caller's
    thread.
    """
    threads: set[threading.Thread] = set()
    found: dict[int, Measured] = {}

    def came(done: TaskResult[Measured]) -> None:
        threads.add(threading.current_thread())
        assert done.place not in found
        assert done.seconds > 0
        found[done.place] = done.result

    make(kind).run(trainings(digits), [Task((cell,), work) for cell in CELLS], came)
    assert [found[place] for place in range(4)] == [
        done.result for done in carried_out(InTurn(), trainings(digits), CELLS, work)
    ]
    assert threads == {threading.current_thread()}
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_piece_raises_on_purpose_is_raised_here(
    make: Make, kind: Kind, digits: ImageSet, work: Work
) -> None:
    """With its kind, message and hint; the executor works afterwards."""
    lost = digits.model_copy(update={"pixels": FileRef(sha256="ab" * 32, size=5)})
    with pytest.raises(IntegrityError, match="is missing") as raised:
        carried_out(make(kind), trainings(lost), CELLS, work)
    assert "lockforge runs clean" in raised.value.hint
    assert len(carried_out(make(kind), trainings(digits), CELLS[:1], work)) == 1


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_want_of_memory_is_no_bug(make: Make, kind: Kind, digits: ImageSet, work: Work) -> None:
    """A network that no machine holds; the worker says what to do, and works afterwards."""
    vast = Job(
        measure_cell,
        set_course,
        (digits, NETWORK.model_copy(update={"stem_channels": 2**24}), QUICK),
    )
    with pytest.raises(ResourceError, match="memory ran out"):
        carried_out(make(kind), vast, CELLS[:1], work)
    assert len(carried_out(make(kind), trainings(digits), CELLS[:1], work)) == 1


def whole_stages(images: ImageSet, lengths: Sequence[int], work: Work, tag: str = "") -> list[Task]:
    """Stages to be asked at once, each a short training of so many steps."""
    works = [replace(work, folder=work.folder / f"{tag}{at}") for at in range(len(lengths))]
    for one in works:
        one.folder.mkdir(parents=True, exist_ok=True)
    fits = [FitRecipe(steps=steps, batch_size=16) for steps in lengths]
    return [
        Task((images, NETWORK, (cell,), fit), work)
        for cell, fit, work in zip(CELLS, fits, works, strict=False)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_goes_on_after_an_interruption(
    make: Make, kind: Kind, digits: ImageSet, work: Work
) -> None:
    """Pieces that would take an hour end when the caller is stopped at the first that is done, and
    the executor works afterwards.
    """

    def stop(_done: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(kind).run(Job(measure_cells), whole_stages(digits, [2, 10**6, 10**6], work), stop)
    came: list[object] = []
    make(kind).run(Job(measure_cells), whole_stages(digits, [2], work), came.append)
    assert len(came) == 1


@pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="workers are found through /proc"
)
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_worker_that_dies_loses_only_what_it_was_doing(
    make: Make, kind: Kind, digits: ImageSet, work: Work
) -> None:
    """All pieces are told of once, with the same answers as in turn, though every worker is killed
    after the first piece.
    """
    lengths = [2, 150, 150, 150]
    expected: dict[int, str] = {}
    InTurn().run(
        Job(measure_cells),
        whole_stages(digits, lengths, work, "turn"),
        lambda done: expected.update({done.place: done.result.digest}),
    )
    found: dict[int, str] = {}
    killed: list[int] = []

    def came(done: TaskResult[CellAccuracies]) -> None:
        assert done.place not in found
        found[done.place] = done.result.digest
        if len(found) == 1:
            time.sleep(0.3)
            killed.extend(kill_workers(kind))

    make(kind).run(Job(measure_cells), whole_stages(digits, lengths, work, "apart"), came)
    assert killed
    assert found == expected


@pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="workers are found through /proc"
)
def test_a_piece_whose_workers_always_die_is_given_up(digits: ImageSet, work: Work) -> None:
    """After three of them, with a hint about memory."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            kill_workers("processes")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(ResourceError, match=r"3 workers died at the same piece .*exit code -9"):
            Processes(1).run(
                Job(measure_cells), whole_stages(digits, [2], work), lambda _done: None
            )
    finally:
        over.set()
        killer.join()


def test_a_bug_in_a_worker_is_no_answer(
    work: Work, digits: ImageSet, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is not tried again, and its traceback is there."""
    with pytest.raises(RuntimeError, match="a worker failed"):
        Processes(1).run(
            Job(measure_cell, set_course, (digits, NETWORK, QUICK)),
            [Task(("no cell",), work)],
            lambda _done: None,
        )
    assert "ValidationError" in capfd.readouterr().err


def test_workers_end_with_their_executor(digits: ImageSet, work: Work) -> None:
    """None is left behind when nobody has the executor any more."""
    before = set(workers_of("processes"))
    executor = Processes(1)
    carried_out(executor, trainings(digits), CELLS[:1], work)
    mine = set(workers_of("processes")) - before
    assert len(mine) == 1
    del executor
    assert not mine & set(workers_of("processes"))


def test_files_travel_where_workers_do_not_see_the_folder(
    make: Make, digits: ImageSet, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece finds its images, and the caller the arrays of its answer, by way of the shared
    place alone.
    """
    make("ray")
    monkeypatch.setattr(
        ray_room, "ask", lambda *given, **more: hidden(ask(*given, **more), tmp_path / "elsewhere")
    )
    executor = make_executor("ray", workers=2, share=(tmp_path / "bucket").as_uri())
    came: list[TaskResult[CellAccuracies]] = []
    executor.run(Job(measure_cells), whole_stages(digits, [2], work), came.append)
    (ref,) = file_refs(came[0].result)
    assert (tmp_path / "bucket" / f"sha256-{digits.pixels.sha256}").exists()
    assert work.files.get_arrays(ref)["accuracy"].shape == (1,)


def hidden(request: str, folder: Path) -> str:
    """A request that names a folder which is not there."""
    return json.dumps(
        json.loads(request) | {"files": str(folder / "files"), "folder": str(folder / "stage")}
    )


def test_what_was_changed_at_the_shared_place_is_refused(tmp_path: Path) -> None:
    """Bytes are held against their name before they are taken."""
    ref = Files(tmp_path / "here").put(b"weights")
    push(str(tmp_path / "bucket"), Files(tmp_path / "here"), [ref])
    (tmp_path / "bucket" / f"sha256-{ref.sha256}").write_bytes(b"poisons")
    with pytest.raises(IntegrityError, match="holds other bytes"):
        pull(str(tmp_path / "bucket"), Files(tmp_path / "there"), [ref])
    assert not Files(tmp_path / "there").has(ref)
    with pytest.raises(ResourceError, match="refuses"):
        pull(str(tmp_path / "empty"), Files(tmp_path / "there"), [ref])


def test_a_message_names_our_functions_and_records_only(work: Work, digits: ImageSet) -> None:
    """A request is read as it was written; another module's function, no record and another version
    are refused.
    """
    text = ask(trainings(digits), Task((CELLS[0], ("a", (1, None, 2.5)), True), work), 2)
    request = asked(text)
    assert (request.spread.each, request.spread.prepare, request.spread.shared) == (
        measure_cell,
        set_course,
        (digits, NETWORK, QUICK),
    )
    assert (request.inputs, request.threads, request.work.seed) == (
        (CELLS[0], ("a", (1, None, 2.5)), True),
        2,
        3,
    )
    tree = json.loads(text)
    for changed, error in (
        ({"each": "os:system"}, ValueError),
        ({"each": "lockforge.runs:Files.put"}, ValueError),
        ({"inputs": [{"record": "lockforge.runs:Files", "json": "{}"}]}, TypeError),
        ({"version": "0"}, ResourceError),
    ):
        with pytest.raises(error):
            asked(json.dumps(tree | changed))
    with pytest.raises(TypeError, match="not list"):
        # which is the point
        ask(trainings(digits), Task(([1],), work), 1)  # type: ignore[arg-type]


def test_this_machine_starts_processes_where_many_pieces_wait_on_a_cpu(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four for each worker; fewer, one worker, and CUDA stay in this process."""
    chosen: list[str] = []
    for kind in (Threads, Processes):
        monkeypatch.setattr(
            kind,
            "run",
            lambda self, *_given, threads: chosen.append(f"{type(self).__name__} {threads}"),
        )
    for pieces, workers, device in (
        (8, 2, "cpu"),
        (7, 2, "cpu"),
        (8, 3, "cpu"),
        (8, 1, "cpu"),
        (8, 2, "cuda"),
        (8, None, "cpu"),
    ):
        on = replace(work, device=device)
        make_executor("here", workers=workers).run(
            Job(measure_cell), [Task((), on)] * pieces, lambda _done: None, threads=1
        )
    assert chosen == ["Processes 1", *["Threads 1"] * 5]


def test_this_machine_uses_workers_that_are_there(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two pieces of a stage already; not for one, nor for whole stages, which tell of their
    progress.
    """
    chosen: list[str] = []
    for kind in (Threads, Processes):
        monkeypatch.setattr(
            kind, "run", lambda self, *_given, **_named: chosen.append(type(self).__name__)
        )
    here = Here(2)
    monkeypatch.setattr(here.processes, "idle", ["one"])
    for spread, pieces in (
        (Job(measure_cell, set_course), 2),
        (Job(measure_cell, set_course), 1),
        (Job(measure_cells), 2),
    ):
        here.run(spread, [Task((), work)] * pieces, lambda _done: None)
    assert chosen == ["Processes", "Threads", "Threads"]


def test_threads_take_short_turns_while_they_work(work: Work) -> None:
    """Python's own turn is back afterwards, also after a fault."""
    usual, seen = sys.getswitchinterval(), []

    def each(*, work: Work) -> CellAccuracies:
        seen.append(sys.getswitchinterval())
        raise OutcomeError(f"in {work.folder}")

    with pytest.raises(OutcomeError):
        Threads(2).run(Job(each), [Task((), work)] * 3, lambda _done: None)
    assert max(seen) < usual == sys.getswitchinterval()


def test_threads_share_what_the_recipe_gives(work: Work) -> None:
    """Two threads, two for a piece: one piece at a time, each on two."""
    torch.set_num_threads(2)
    seen: list[int] = []
    at_once: list[int] = []

    def each(*, work: Work) -> Measured:
        work.pulse()
        at_once.append(1)
        seen.append(torch.get_num_threads())
        assert sum(at_once) == 1
        time.sleep(0.02)
        at_once.remove(1)
        return Measured(accuracy=None)

    Threads().run(Job(each), [Task((), work)] * 3, lambda _done: None, threads=2)
    assert seen == [2, 2, 2]
    assert torch.get_num_threads() == 2


def test_options_that_do_not_belong_together_are_told_at_once() -> None:
    """An address without a cluster, no workers, and a share of nothing."""
    with pytest.raises(RecipeError) as raised:
        make_executor("threads", workers=0, address="somewhere:1", gpus=-1, share="s3://bucket")
    assert len(raised.value.faults) == 5


def test_a_cluster_that_is_not_there_is_named(work: Work) -> None:
    """With what to do next."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with pytest.raises(ResourceError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        make_executor("ray", address="127.0.0.1:1").run(
            Job(measure_cell), [Task((), work)], lambda _done: None
        )


@pytest.mark.parametrize("path", [None, "{root}:", ":{root}", "{root}:.", "."])
def test_a_worker_imports_nothing_from_the_current_folder(
    digits: ImageSet, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """Who stands in a stranger's release and verifies it runs none of the files there, whatever
    empty or relative entries PYTHONPATH has.
    """
    witness = tmp_path / "witness"
    for module in ("torch", "numpy", "lockforge"):
        (tmp_path / f"{module}.py").write_text(f"open({str(witness)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path.format(root=Path(__file__).parents[2]))
    results = carried_out(Processes(workers=1), trainings(digits), CELLS[:1], work)
    assert len(results) == 1
    assert not witness.exists()
