"""What checking a release costs: the start of `verify` and `gate`, a gate on a typical release,
hashing beside a plain read.

Aims: `verify` (without parity) and `gate` start within half a second more than a Python that does
nothing, a gate within a second, and hashing at 70 % of the speed at which the same hash reads the
same file. The typical release has the points of a `standard` audit (14 attackers, six settings
each, seven points of the grid, three seeds) and 16 MiB of weights. Each command is a process of its
own, with modules that are compiled once, as those of an installed package are (`compiled` in the
line; lines without it compiled the package at each start). By turns, the median counts; `_cpu_s`
are processor seconds, which other work on the machine changes less. Hashing reads a file that is in
the system's cache, so that the disk is not measured.
"""

import functools
import hashlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from lockforge.evidence.curves import SCRATCH, STARTS, choose, measure, verdict
from lockforge.evidence.manifest import hash_file
from lockforge.evidence.suites import ATTACKERS
from lockforge.records import AttackPoint, TransferAudit
from tests.benchmarks.line import arguments, by_turns, write_line
from tests.small_release import IMAGES, LEVELS, images, make_release

GRID = (1, 2, 5, 10, 20, 50, 100)
SETTINGS = 6
POLICY = """\
attestation: optional
removed_at_least: 0.5
slc_auc_at_most: 1
worst_attacker_at_most: 1
verdicts: [protects under this suite, delays]
"""
BLOCK = 2**18


def typical() -> TransferAudit:
    """An audit as large as that of `standard`; starting over gets as many settings as the
    attackers.
    """
    points = [
        AttackPoint(
            start=start,
            attacker=attacker,
            setting=f"s{setting}",
            images_per_class=per_class,
            samples=2 * per_class,
            seed=seed,
            steps=10,
            flops=1e9,
            val_accuracy=(right - setting) / IMAGES,
            test_accuracy=right / IMAGES,
        )
        for start in STARTS
        if start in LEVELS
        for attacker in (("from-scratch",) if start in SCRATCH else ATTACKERS["standard"])
        for setting in range(SETTINGS)
        for per_class in GRID
        for seed in range(3)
        for right in [LEVELS[start] - 10 + seed + round(4 * math.log(per_class))]
    ]
    chosen = set(choose(points))
    kept = tuple(
        point if point in chosen else point.model_copy(update={"test_accuracy": None})
        for point in points
    )
    found = measure(kept, {"twin": "release"}, test_samples=IMAGES)
    return TransferAudit(
        target=images(2).digest,
        suite="standard",
        suite_version=2,
        classes=2,
        grid=GRID,
        samples=tuple(2 * some for some in GRID),
        seeds=(0, 1, 2),
        validation_samples=IMAGES,
        test_samples=IMAGES,
        same_as={"twin": "release"},
        points=kept,
        measures=found,
        verdict=verdict(found, "standard"),
    )


def ends_well(*words: str, code: int = 0) -> None:
    """One process from its start to its end."""
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if ended.returncode != code:
        raise SystemExit(
            f"{' '.join(words)} ended with {ended.returncode}: "
            f"{ended.stdout[-500:]}{ended.stderr[-500:]}"
        )


def plainly(path: Path) -> str:
    """The same hash over a plain read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def counted(spent: list[float], way: Callable[[], object]) -> None:
    """Run a way and note the processor seconds that it and its processes took."""
    before = sum(os.times()[:4])
    way()
    spent.append(sum(os.times()[:4]) - before)


def main() -> None:
    """Time all of them and print the line."""
    given = arguments(__doc__, repeats=7, ways=("hash",))
    with tempfile.TemporaryDirectory() as place:
        folder, large = Path(place), Path(place) / "large"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        release = make_release(
            folder / "release",
            folder / "key",
            (typical(),),
            made=datetime.now(UTC),
            weights=16 * 2**20,
        )
        (folder / "policy.yaml").write_text(POLICY)
        key = ("--key", str(folder / "key.pub"))
        run = functools.partial(functools.partial, ends_well, "-m", "lockforge")
        ways = {
            "python": functools.partial(ends_well, "-c", "pass"),
            "verify_start": run("verify", str(folder / "none"), "--no-parity", code=2),
            "gate_start": run(
                "gate", str(folder / "none"), "--policy", str(folder / "policy.yaml"), code=1
            ),
            "verify": run("verify", str(release), *key, "--no-parity"),
            "gate": run("gate", str(release), *key, "--policy", str(folder / "policy.yaml")),
        }
        if "hash" not in given.without:
            large.write_bytes(
                save({"w": np.random.default_rng(0).integers(0, 256, 2**30, dtype=np.uint8)})
            )
            if hash_file(large).sha256 != plainly(large):
                raise SystemExit("the two ways of hashing differ")
            ways |= {
                "hash": functools.partial(hash_file, large),
                "plain_hash": functools.partial(plainly, large),
            }
        spent: dict[str, list[float]] = defaultdict(list)
        timed = {name: functools.partial(counted, spent[name], way) for name, way in ways.items()}
        seconds = by_turns(timed, given.repeats, given.device)
        points, size = len(typical().points), sum(path.stat().st_size for path in release.iterdir())
    figures: dict[str, object] = {
        "compiled": True,
        "points": points,
        "release_bytes": size,
        "answers_differ": 0,
    }
    figures |= {f"{name}_s": value for name, value in seconds.items()}
    figures |= {f"{name}_cpu_s": statistics.median(each) for name, each in spent.items()}
    if given.without:
        figures["left_out"] = given.without
    else:
        figures |= {
            "hashed_bytes": 2**30,
            "hash_rate_share": seconds["plain_hash"] / seconds["hash"],
        }
    write_line("gate", given, figures)


if __name__ == "__main__":
    main()
