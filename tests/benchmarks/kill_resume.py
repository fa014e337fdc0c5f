"""Kill `protect` with SIGKILL again and again, start it again each time, and compare what comes out
with a run that nobody disturbed.

The moments are drawn from all moments of a run: every step that a stage reports, and before and
after every fsync and every rename. After each kill nothing that looks finished may be unfinished.
When a run has come through, its report, weights, ONNX and page must be the same bytes as the
undisturbed run's; then the next one starts from nothing. Each child is a fork, so torch is imported
once.

    python -m tests.benchmarks.kill_resume [--kills 100] [--seed 0] [--save]
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lockforge.data.builtin import DEFAULT
from lockforge.evidence.signing import load_private, new_key, sign_folder
from lockforge.export.stage import lay_out
from lockforge.pipeline import Places, gather, open_runs, protect, provenance
from lockforge.randomness import numpy_generator
from lockforge.recipe import Recipe, read_recipe
from lockforge.verify import verify_release
from tests.benchmarks.line import FOLDER

TINY = """
threads: 1
data: {limit_per_class: 12}
network: {stem_channels: 4, cells_per_stage: 1}
embed: {samples: 16, head_steps: 3}
search: {measurements: 4, steps: 4, simulated: 2, shortlist: {cells: 2, fit: {epochs: 1,
  batch_size: 16}}}
train: {epochs: 2, batch_size: 16, learning_rate: 0.05}
audit: {images_per_class: [1, 0], seeds: 2, steps: 3, probe_steps: 3, fine_tune_rates: [0.01],
  probe_rates: [0.1]}
export: {parity_samples: 2}
"""
COMPARED = (
    "report.json",
    "report.html",
    "model.safetensors",
    "model.onnx",
    "recipe.yaml",
    "preprocessing.json",
    "labels.json",
)
IMPORTED_ONCE = (
    "sklearn.datasets",
    "jinja2",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
)
STAGES = (
    "reading",
    "embed_task",
    "search_cell",
    "train_cell",
    "audit_transfer",
    "export_artifact",
    "laying out",
)


class Moments:
    """Counts the moments of a run and ends the process at one of them; keeps the stage of each."""

    def __init__(self, fatal: int | None, obituary: Path) -> None:
        self.fatal = fatal
        self.obituary = obituary
        self.stage = "reading"
        self.passed: list[str] = []

    def pass_one(self) -> None:
        """A moment goes by, or is the last."""
        self.passed.append(self.stage)
        if len(self.passed) == self.fatal:
            self.obituary.write_text(self.stage)
            os.kill(os.getpid(), signal.SIGKILL)

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self.stage = stage
        self.pass_one()

    def step(self, _done: float, _total: float, _note: str) -> None:
        """It has come some way."""
        self.pass_one()

    def end(self, stage: str, _seconds: float, *, cached: bool, **_said: str) -> None:
        """It is done; what follows the last is laying out."""
        self.pass_one()
        if stage == "export_artifact":
            self.stage = "laying out"
        elif cached:
            self.stage = stage

    def watch(self, owner: Any, name: str) -> None:
        """Make a moment before and after every call of a function."""
        inner: Callable[..., Any] = getattr(owner, name)

        def outer(*given: Any, **named: Any) -> Any:
            self.pass_one()
            answer = inner(*given, **named)
            self.pass_one()
            return answer

        setattr(owner, name, outer)


def run_once(folder: Path, recipe: Recipe, moments: Moments) -> None:
    """The whole sentence, in this process."""
    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace")):
        moments.watch(owner, name)
    do = open_runs(recipe, folder / "runs", device="cpu", reporter=moments)
    source, auxiliary, targets = DEFAULT
    artifact = protect(recipe, gather(Places(source, auxiliary, targets), recipe, do.files), do)
    private = load_private(folder.parent / "key.pem")
    lay_out(
        artifact,
        do.files,
        folder / "release",
        provenance(do),
        lambda place: sign_folder(place, private),
    )


def in_a_child(folder: Path, recipe: Recipe, fatal: int | None) -> tuple[str, list[str]]:
    """Run in a fork. Returns: the stage in which it was killed, or "" and the stage of every moment
    it had.

    Raises: RuntimeError: it ended in another way.
    """
    said = folder.parent / "said"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            moments = Moments(fatal, said)
            run_once(folder, recipe, moments)
            said.write_text(json.dumps(moments.passed))
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and fatal:
        return said.read_text(), []
    if status:
        raise RuntimeError(f"a run in {folder} ended with status {status}")
    return "", json.loads(said.read_text())


def faults_after_a_kill(folder: Path) -> list[str]:
    """What looks finished and is not."""
    faults = []
    for done in (folder / "runs").glob("*/*"):
        if not done.is_dir() or done.name.endswith(".partial"):
            continue
        try:
            json.loads((done / "result.json").read_text())
            json.loads((done / "provenance.json").read_text())
        except (OSError, ValueError) as error:
            faults.append(f"{done}: {error}")
    release = folder / "release"
    if release.exists():
        faults += [
            f"{release}: {check.name}: {check.value}"
            for check in verify_release(release, None, parity=False).checks
            if not check.passed
        ]
    return faults


def kill_and_resume(root: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill so often, spread over all stages. Returns: kills by stage, runs, differences (there must
    be none).
    """
    recipe_file = root / "tiny.yaml"
    recipe_file.write_text(TINY)
    recipe = read_recipe(str(recipe_file))
    new_key(root / "key.pem")
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    calm = root / "calm"
    calm.mkdir()
    _, moments = in_a_child(calm, recipe, None)
    wanted = {name: (calm / "release" / name).read_bytes() for name in COMPARED}

    generator = numpy_generator(seed, "kill and resume")
    killed: Counter[str] = Counter()
    differences: list[str] = []
    runs = 0
    while killed.total() < kills or len(killed) < len(STAGES):
        folder = root / f"run-{runs}"
        folder.mkdir()
        rarest = min(STAGES, key=lambda stage: (killed[stage], STAGES.index(stage)))
        fatal = int(
            generator.choice([at for at, stage in enumerate(moments, 1) if stage == rarest])
        )
        while died := in_a_child(folder, recipe, fatal)[0]:
            killed[died] += 1
            differences += faults_after_a_kill(folder)
            fatal = int(generator.integers(1, len(moments) // 2))
        differences += [
            f"{folder.name}: {name}"
            for name in COMPARED
            if (folder / "release" / name).read_bytes() != wanted[name]
        ]
        shutil.rmtree(folder)
        runs += 1
    return {
        "kills": killed.total(),
        "by_stage": dict(killed),
        "runs": runs,
        "moments": len(moments),
        "differences": differences,
    }


def main() -> None:
    """Kill, compare, print one line; exit 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="at least so many")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/kill_resume.jsonl"
    )
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_resume(Path(folder), given.kills, given.seed)
    line = json.dumps(
        {
            "bench": "kill_resume",
            "date": datetime.now(UTC).date().isoformat(),
            "seed": given.seed,
            **found,
        }
        | {
            "differences": len(found["differences"]),
            "seconds": round(time.perf_counter() - started),
        }
    )
    print(line)
    print(*found["differences"], sep="\n", file=sys.stderr)
    if given.save:
        with (FOLDER / "kill_resume.jsonl").open("a") as out:
            out.write(line + "\n")
    sys.exit(1 if found["differences"] else 0)


if __name__ == "__main__":
    main()
