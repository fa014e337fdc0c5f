"""Finished stages on disk: asked once, found again, never half."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lockforge.cli._run_store import clean_runs, list_runs
from lockforge.errors import DataError, IntegrityError, ResourceError
from lockforge.executors.threads import Threads
from lockforge.files import Files, held, write_whole
from lockforge.records import FileRef, Record
from lockforge.runs import FORMAT, Runs, Silent, Work, stage

CALLS: list[int] = []


class Doubled(Record):
    """The answer of the stage below."""

    value: int
    array: FileRef


@stage(version=1)
def double(value: int, *, work: Work) -> Doubled:
    """Twice the value, and an array of it; stops at 13 after leaving something to resume from."""
    CALLS.append(value)
    left = work.folder / "left"
    if value == 13 and not left.exists():
        left.write_text("half")
        raise KeyboardInterrupt
    work.report(1, 2, f"{value} in two")
    return Doubled(value=2 * value, array=work.files.put_arrays({"x": np.full(3, value)}))


class Named(Record):
    """An answer with names in an order of its own."""

    counts: dict[str, int]


@stage(version=1)
def name(*, work: Work) -> Named:  # noqa: ARG001
    """Names that are not in the order of the alphabet."""
    return Named(counts={"z": 1, "a": 2})


@pytest.fixture
def do(tmp_path: Path) -> Runs:
    """A fresh runs folder."""
    CALLS.clear()
    return Runs(tmp_path / "runs", seed=0)


def test_a_question_is_asked_once(do: Runs) -> None:
    """The second time the answer is read, also by another Runs on the same folder."""
    first = do(double, 4)
    assert do(double, 4) == first == Runs(do.folder, seed=0)(double, 4)
    assert CALLS == [4]
    assert do.files.get_arrays(first.array)["x"].tolist() == [4, 4, 4]


def test_several_questions_are_answered_in_order_and_only_the_missing_are_worked_out(
    do: Runs,
) -> None:
    """Whichever comes first; the same question twice is worked out once, and each is found alone
    afterwards.
    """
    do.executor = Threads(2)
    assert do(double, 2).value == 4
    assert [answer.value for answer in do.all(double, [(1,), (2,), (3,), (1,)])] == [2, 4, 6, 2]
    assert sorted(CALLS) == [1, 2, 3]
    assert do(double, 3).value == 6
    assert len(CALLS) == 3
    assert len(do.keys["double"]) == 6
    assert not list(do.folder.glob("*/*.partial"))
    assert do.all(double, []) == ()
    assert do.seconds["double"] == pytest.approx(
        sum(do.spent["double", key] for key in set(do.keys["double"])), abs=0.001
    )


def test_one_of_several_that_stops_leaves_the_others_answers(do: Runs) -> None:
    """What was finished is found, what stopped resumes; its time is kept."""
    with pytest.raises(KeyboardInterrupt):
        do.all(double, [(4,), (13,), (5,)])
    assert [entry.finished for entry in list_runs(do.folder)].count(True) == 1
    assert len(list(do.folder.glob("double/*.partial/seconds"))) == 2
    assert [answer.value for answer in do.all(double, [(4,), (13,), (5,)])] == [8, 26, 10]
    assert CALLS == [4, 13, 13, 5]


def test_progress_of_several_is_told_as_one(do: Runs) -> None:
    """A beginning, shares of all that rise, an end each with what was said of it; an answer is new
    once.
    """
    told: list[object] = []

    class Teller(Silent):
        def begin(self, stage: str) -> None:
            told.append(stage)

        def step(self, done: float, total: float, _note: str) -> None:
            told.append((done, total))

        def end(self, _stage: str, _seconds: float, *, cached: bool, note: str) -> None:
            told.append((cached, note))

    do.reporter = Teller()
    do(double, 7)
    told.clear()
    do.all(double, [(7,), (8,), (9,), (8,)])
    assert told == [
        "double",
        (0.5, 2),
        (1, 2),
        (1.5, 2),
        (2, 2),
        (True, ""),
        (False, "8 in two"),
        (False, "9 in two"),
        (True, ""),
    ]


def test_a_fresh_answer_and_a_found_one_are_the_same_to_the_order_of_their_keys(do: Runs) -> None:
    """A page that lists them must come out the same after an interruption."""
    assert list(do(name).counts) == list(do(name).counts)


def test_seed_version_and_inputs_are_in_the_key(do: Runs) -> None:
    """Any of them changes the question."""
    keys = {
        do.key(double, (1,)),
        do.key(double, (2,)),
        do.key(double, ("1",)),
        do.key(double, ((1,),)),
        Runs(do.folder, seed=1).key(double, (1,)),
    }
    double.version = 2  # type: ignore[attr-defined]
    try:
        keys.add(do.key(double, (1,)))
    finally:
        double.version = 1  # type: ignore[attr-defined]
    assert len(keys) == 6


def test_what_was_interrupted_is_resumed_in_its_own_folder(do: Runs) -> None:
    """Until it is finished only a .partial folder is there; what the stage left is found again and
    then cleaned away.
    """
    with pytest.raises(KeyboardInterrupt):
        do(double, 13)
    assert [entry.finished for entry in list_runs(do.folder)] == [False]
    assert do(double, 13).value == 26
    assert [entry.finished for entry in list_runs(do.folder)] == [True]
    assert not list(do.folder.rglob("left"))


def test_a_changed_answer_is_an_integrity_error(do: Runs) -> None:
    """Edited results, missing files and changed files are all noticed."""
    found = do(double, 5)
    result = next(do.folder.glob("double/*/result.json"))
    stored = result.read_text()
    result.write_text(stored.replace("10", '"ten"'))
    with pytest.raises(IntegrityError):
        do(double, 5)
    result.write_text(stored)
    path = do.files.path(found.array)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IntegrityError, match="other bytes"):
        Files(do.files.root).get(found.array)
    path.unlink()
    with pytest.raises(IntegrityError, match="files that are gone"):
        do(double, 5)


def test_two_processes_cannot_work_on_one_question(do: Runs) -> None:
    """The second is told, not made to wait or to overwrite."""
    partial = do.folder / "double" / f"{do.key(double, (6,))}.partial"
    with held(partial / "lock"), pytest.raises(ResourceError, match="in use"):
        do(double, 6)
    assert do(double, 6).value == 12


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program does not guess at a newer layout."""
    (tmp_path / "format.json").write_text(json.dumps({"version": FORMAT + 1}))
    with pytest.raises(DataError, match="newer"):
        Runs(tmp_path, seed=0)
    (tmp_path / "format.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        Runs(tmp_path, seed=0)


def test_pieces_that_break_off_leave_nothing_that_looks_finished(tmp_path: Path) -> None:
    """What is written in pieces is there with all of them, or not at all."""
    write_whole(tmp_path / "whole", iter([b"a", b"bc"]))
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "part", (bytes([1 // (1 - at)]) for at in range(2)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"whole": b"abc"}


def test_a_full_disk_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there whole or not at all, and the error names the place."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_whole(tmp_path / "a", b"x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        Runs(tmp_path / "file" / "runs", seed=0)


def test_clean_removes_what_was_interrupted_and_all_only_when_asked(do: Runs) -> None:
    """Finished answers survive the ordinary clean."""
    do(double, 1)
    with pytest.raises(KeyboardInterrupt):
        do(double, 13)
    assert clean_runs(do.folder, everything=False)[0] == 1
    assert [entry.finished for entry in list_runs(do.folder)] == [True]
    clean_runs(do.folder, everything=True)
    assert list_runs(do.folder) == ()


def test_the_lock_file_names_every_question(do: Runs) -> None:
    """A report can be traced to its runs."""
    do(double, 1)
    assert json.loads(do.write_lock("digits").read_text()) == {"double": [do.key(double, (1,))]}


def test_only_values_can_be_asked_about(do: Runs) -> None:
    """A list or an object has no digest and is refused."""
    with pytest.raises(TypeError, match="records, tuples and plain values"):
        do(double, [1])  # type: ignore[arg-type]


def test_clean_removes_nothing_from_a_folder_that_is_no_runs_folder(tmp_path: Path) -> None:
    """A home folder given by mistake keeps all that is in it, and the message says why."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    for mark in (None, "{}", '{"version": "1"}', '{"version": 1, "name": "an app"}', "not json"):
        if mark is not None:
            (tmp_path / "format.json").write_text(mark)
        with pytest.raises(DataError, match="no runs folder"):
            clean_runs(tmp_path, everything=True)
    assert (tmp_path / "letters" / "dear.txt").is_file()


def test_clean_removes_only_names_of_its_own_making(do: Runs, tmp_path: Path) -> None:
    """What somebody else laid into a runs folder stays, behind a link too."""
    do(name)
    outside = tmp_path / "outside"
    (outside / "0123456789abcdef").mkdir(parents=True)
    (do.folder / "linked").symlink_to(outside)
    mine = do.folder / "notes" / "important"
    mine.mkdir(parents=True)
    (do.folder / "files" / "thesis.txt").parent.mkdir(exist_ok=True)
    (do.folder / "files" / "thesis.txt").write_text("mine")
    assert clean_runs(do.folder, everything=True)[0] == 1
    assert mine.is_dir()
    assert (do.folder / "files" / "thesis.txt").is_file()
    assert (outside / "0123456789abcdef").is_dir()
