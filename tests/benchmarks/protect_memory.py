"""How much memory `protect` takes for a colour set as large as CIFAR-10: 50,000 images to train
on, 10,000 to test; a target of 10,000.

Made-up images of 32 x 32 pixels, the recipe `cifar10-cpu` with a training budget of a few steps:
every stage holds what it holds in a long run. With a weight lock on auxiliary images made of the
source, unless `--without lock`. Counted every 50 ms over all processes of the command: `resident`
is all of their pages, those that several share divided among them; `own` those that no file backs
(pages of mapped files are the system's to drop). `peak_bytes` is the highest resident size that the
system noted of any of them, or the highest sum.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.line import arguments, write_line

SIDE, CLASSES = 32, 10
SETS = {"source": (50_000, 10_000), "target": (8_000, 2_000)}  # images to train on and to test
SHORT = (
    "search.steps=2",
    "search.shortlist.cells=1",
    "search.shortlist.fit.epochs=null",
    "search.shortlist.fit.steps=5",
    "train.epochs=null",
    "train.steps=5",
    "audit.steps=5",
    "audit.probe_steps=5",
    ("audit.images_per_class=[5, 0]"),
)
LOCK = (
    "prune.method=ntp",
    "prune.rounds=2",
    "prune.fit.steps=5",
    "prune.recovery.steps=5",
    "prune.max_source_drop=1.0",
)


def main() -> None:
    """Make the sets, run the command, watch it."""
    given = arguments(__doc__, repeats=1, ways=("lock",))
    locked = "lock" not in given.without
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for at, (role, counts) in enumerate(SETS.items()):
            make_set(folder, role, counts, np.random.default_rng(at))
        settings = [*SHORT, *(LOCK if locked else ()), f"threads={given.threads}"]
        command = [
            sys.executable,
            "-m",
            "lockforge",
            "protect",
            str(folder / "source.npz"),
            "--target",
            str(folder / "target.npz"),
        ]
        command += [
            "--recipe",
            "cifar10-cpu",
            "--unsigned",
            "--runs",
            str(folder / "runs"),
            "--out",
            str(folder / "release"),
        ]
        command += [part for setting in settings for part in ("--set", setting)]
        started = time.perf_counter()
        with (folder / "told").open("w") as told:
            child = subprocess.Popen(command, stdout=told, stderr=told)
            stages, highest = watch(child, folder / "runs")
        if child.returncode:
            sys.exit((folder / "told").read_text())
        seconds = time.perf_counter() - started
    figures = {
        "images": sum(SETS["source"]),
        "side": SIDE,
        "target_images": sum(SETS["target"]),
        "locked": locked,
        "seconds": seconds,
    }
    write_line("protect_memory", given, figures | {"peak_bytes": highest, "stages": stages})


def make_set(
    folder: Path, role: str, counts: Sequence[int], generator: np.random.Generator
) -> None:
    """Noise around a mean of the class, written a piece at a time, so that what starts the command
    stays small.
    """
    arrays = {}
    for part, count in zip(("train", "test"), counts, strict=True):
        pixels = np.lib.format.open_memmap(
            folder / f"{role}-{part}.npy", "w+", np.uint8, (count, SIDE, SIDE, 3)
        )
        labels = np.arange(count) % CLASSES
        for start in range(0, count, 1000):
            noise = generator.integers(56, size=(1000, SIDE, SIDE, 3), dtype=np.uint8)
            pixels[start : start + 1000] = (
                noise + (20 * labels[start : start + 1000]).astype(np.uint8)[:, None, None, None]
            )
        arrays |= {f"x_{part}": pixels, f"y_{part}": labels}
    np.savez(folder / f"{role}.npz", **arrays)


def watch(child: "subprocess.Popen[bytes]", runs: Path) -> tuple[dict[str, dict[str, int]], int]:
    """Highest resident and own bytes by stage until the command ends, and the highest resident size
    of all.
    """
    stages: dict[str, dict[str, int]] = defaultdict(lambda: {"resident": 0, "own": 0})
    highest = 0
    while child.poll() is None:
        found = [said for said in map(said_of, family(child.pid)) if said]
        if found:
            resident, own = (sum(said[name] for said in found) for name in ("Pss", "Pss_Anon"))
            highest = max(highest, resident, *(said["VmHWM"] for said in found))
            entry = stages[stage_now(runs)]
            entry["resident"], entry["own"] = (
                max(entry["resident"], resident),
                max(entry["own"], own),
            )
        time.sleep(0.05)
    return dict(stages), highest


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):  # of every thread
            try:
                found += [int(word) for word in children.read_text().split()]
            except OSError:
                continue  # that thread has ended
    return found


def said_of(pid: int) -> dict[str, int]:
    """Bytes by name, as the system says them of a process; empty where it is gone."""
    try:
        text = "".join(
            Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup")
        )
    except OSError:
        return {}
    said = {
        name: int(number) * 1024
        for name, number in re.findall(r"^(VmHWM|Pss|Pss_Anon):\s+(\d+) kB", text, re.MULTILINE)
    }
    return said if len(said) == 3 else {}


def stage_now(runs: Path) -> str:
    """The stage whose folder is unfinished; before and between stages, reading or writing."""
    under_way = next(runs.glob("*/*.partial"), None)
    return under_way.parent.name if under_way else "between stages"


if __name__ == "__main__":
    main()
