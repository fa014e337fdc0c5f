"""How good a plan is: `lockforge plan` before, `protect` after, stage by stage.

The recipe's own data (`--source` and the others give others), an empty runs folder, a fresh calibration. A ratio is estimated seconds over
true ones: above 1 the plan said too much. `again` is the plan's time with the calibration found again. Memory is the most that a process
that protects held, beside the plan's figure. `--set` makes the work small.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from lockforge.cli.show import WORDS
from lockforge.engine.device import set_threads
from tests.benchmarks.line import write_line


def main() -> None:
    """Plan, protect, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="append the line to docs/benchmarks/plan.jsonl")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `protect` has it")
    parser.add_argument("--source")
    parser.add_argument("--auxiliary", action="append", default=[])
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--threads", type=int, default=2, help="threads of the recipe")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--note", help="what else to know of this run, such as a machine that had other work")
    given = parser.parse_args()
    given.repeats = 1
    set_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = compared(given, Path(folder))
    write_line("plan", given, figures)


def compared(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The figures of the line."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": str(given.threads)}
    sets = [f"--set={one}" for one in (*given.set, f"threads={given.threads}")]
    data = [*([given.source] if given.source else []), *(f"--auxiliary={one}" for one in given.auxiliary)]
    data += [f"--target={one}" for one in given.target]
    common = [*data, *sets, "--runs", str(folder / "runs"), "--device", given.device]

    def lockforge(*arguments: str) -> tuple[str, float]:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "lockforge", *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout, time.perf_counter() - started

    said, first = lockforge("plan", given.recipe, *common, "--json")
    _, again = lockforge("plan", given.recipe, *common, "--json")
    plan = json.loads(said)
    _, whole = lockforge("protect", *common, "--recipe", given.recipe, "--unsigned", "--out", str(folder / "release"))
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    estimated: dict[str, float] = defaultdict(float)
    for one in plan["questions"]:
        estimated[one["stage"]] += one["seconds"]
    true: dict[str, float] = defaultdict(float)
    for name, seconds in json.loads((folder / "release" / "provenance.json").read_text())["seconds"].items():
        true[WORDS[name]] += seconds
    stages = {
        name: {"estimate": round(estimated[name], 2), "truth": round(true[name], 2), "ratio": round(estimated[name] / true[name], 2)}
        for name in estimated
        if true[name]
    }
    return {
        "recipe": given.recipe,
        "set": given.set,
        "stages": stages,
        "estimate_s": plan["seconds"]["left"],
        "truth_s": sum(true.values()),
        "ratio": plan["seconds"]["left"] / sum(true.values()),
        "protect_s": whole,
        "plan_s": first,
        "plan_again_s": again,
        "memory_estimate": plan["memory"]["peak"],
        "memory_truth": most,
    }


if __name__ == "__main__":
    main()
