"""`protect` on the built-in digits with its `quick` audit, by each executor of this machine; with
the weight lock unless `--without lock`.

Each run begins with an empty runs folder, and all must leave the same report. `NAME_s` is the whole
command by the clock, `NAME_stages` the seconds that its stages took; those that go side by side are
counted each.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.line import arguments, write_line

KINDS = ("here", "threads")


def main() -> None:
    """Protect by turns, compare the reports, write the line."""
    given = arguments(__doc__, repeats=1, ways=("lock", *KINDS))
    kinds = [kind for kind in KINDS if kind not in given.without]
    seconds: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, dict[str, float]] = {}
    reports: set[bytes] = set()
    for _ in range(given.repeats):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                seconds[kind].append(
                    protect(
                        Path(folder),
                        kind,
                        given.threads,
                        given.device,
                        locked="lock" not in given.without,
                    )
                )
                reports.add((Path(folder) / "release" / "report.json").read_bytes())
                stages[kind] = json.loads(
                    (Path(folder) / "release" / "provenance.json").read_text()
                )["seconds"]
    if len(reports) != 1:
        sys.exit(f"the {len(kinds) * given.repeats} runs left {len(reports)} different reports")
    figures: dict[str, object] = {"locked": "lock" not in given.without, "executors": kinds}
    figures |= {f"{kind}_s": statistics.median(took) for kind, took in seconds.items()}
    write_line(
        "protect", given, figures | {f"{kind}_stages": found for kind, found in stages.items()}
    )


def protect(folder: Path, kind: str, threads: int, device: str, *, locked: bool) -> float:
    """Seconds of one command that leaves a release in `folder`."""
    command = [
        sys.executable,
        "-m",
        "lockforge",
        "protect",
        "--unsigned",
        "--executor",
        kind,
        "--device",
        device,
    ]
    command += [
        "--runs",
        str(folder / "runs"),
        "--out",
        str(folder / "release"),
        "--set",
        f"threads={threads}",
    ]
    command += ["--set", "prune.method=ntp"] if locked else []
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
