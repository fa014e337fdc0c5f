"""How good a plan is: `lockforge plan` before, `protect` after, stage by stage.

The recipe's own data (`--source` and the others give others), an empty runs folder, a fresh
calibration. A ratio is estimated seconds over true ones: above 1 the plan said too much. `known` is
what the plan would have said had it known which cells the search was to find: it is asked again
afterwards. `plan_again_s` is its time with the calibration found again. Memory is the most that all
processes of `protect` held, counted as `protect_memory` counts it, beside the plan's figure.
`--set` makes the work small.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lockforge.engine.device import set_threads
from lockforge.runs import WORDS
from tests.benchmarks.line import write_line
from tests.benchmarks.protect_memory import watch


def main() -> None:
    """Plan, protect, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/plan.jsonl"
    )
    parser.add_argument("--recipe", default="digits")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as `protect` has it"
    )
    parser.add_argument("--source")
    parser.add_argument("--auxiliary", action="append", default=[])
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--threads", type=int, default=2, help="threads of the recipe")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--note", help="what else to know of this run, such as a machine that had other work"
    )
    given = parser.parse_args()
    given.repeats = 1
    set_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = compared(given, Path(folder))
    write_line("plan", given, figures)


def compared(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The figures of the line."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": str(given.threads),
    }
    sets = [f"--set={one}" for one in (*given.set, f"threads={given.threads}")]
    data = [
        *([given.source] if given.source else []),
        *(f"--auxiliary={one}" for one in given.auxiliary),
    ]
    data += [f"--target={one}" for one in given.target]
    common = [*data, *sets, "--runs", str(folder / "runs"), "--device", given.device]

    def lockforge(*arguments: str) -> tuple[str, float, int]:
        """What it said, its seconds, and the most bytes that it held."""
        started = time.perf_counter()
        with (folder / "err").open("w+") as err, (folder / "out").open("w+") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "lockforge", *arguments],
                env=environment,
                stdout=out,
                stderr=err,
            )
            _, most = watch(process, folder / "runs")
            if process.returncode:
                sys.exit((folder / "err").read_text())
        return (folder / "out").read_text(), time.perf_counter() - started, most

    said, first, _ = lockforge("plan", given.recipe, *common, "--json")
    plan = json.loads(said)
    _, whole, most = lockforge(
        "protect", *common, "--recipe", given.recipe, "--unsigned", "--out", str(folder / "release")
    )
    said, again, _ = lockforge("plan", given.recipe, *common, "--json")
    estimated, known = seconds_of(plan), seconds_of(json.loads(said))
    true: dict[str, float] = defaultdict(float)
    for name, seconds in json.loads((folder / "release" / "provenance.json").read_text())[
        "seconds"
    ].items():
        true[WORDS[name]] += seconds
    stages = {
        name: {
            "estimate": round(estimated[name], 2),
            "known": round(known[name], 2),
            "truth": round(seconds, 2),
            "ratio": round(estimated[name] / seconds, 2),
            "ratio_known": round(known[name] / seconds, 2),
        }
        for name, seconds in true.items()
        if seconds
    }
    return {
        "recipe": given.recipe,
        "set": given.set,
        "stages": stages,
        "estimate_s": plan["seconds"]["left"],
        "truth_s": sum(true.values()),
        "ratio": plan["seconds"]["left"] / sum(true.values()),
        "ratio_known": sum(known.values()) / sum(true.values()),
        "protect_s": whole,
        "plan_s": first,
        "plan_again_s": again,
        "memory_estimate": plan["memory"]["peak"],
        "memory_truth": most,
    }


def seconds_of(plan: dict[str, Any]) -> dict[str, float]:
    """Of each stage all of it, done or not."""
    found: dict[str, float] = defaultdict(float)
    for one in plan["questions"]:
        found[one["stage"]] += one["seconds"]
    return found


if __name__ == "__main__":
    main()
