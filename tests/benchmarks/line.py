"""One JSON line a benchmark: its figures with the circumstances they were measured in.

A benchmark is `python -m tests.benchmarks.NAME [--save] [--repeats N] [--threads N] [--device
cpu|cuda] [--note TEXT]`. It checks first that the ways it compares give the same answers, then runs
them by turns, so that a slow minute of the machine meets all of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from lockforge.engine.device import choose_device, describe, set_threads

FOLDER = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
_KEPT = ("cpu", "gpu", "torch", "python", "threads")


def arguments(about: str | None, *, repeats: int, ways: Sequence[str] = ()) -> argparse.Namespace:
    """The options that every benchmark has, and `--without` for the `ways` that may be left out;
    threads are set, the device is checked.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/NAME.jsonl"
    )
    parser.add_argument(
        "--repeats", type=int, default=repeats, help="how often each way runs; the median counts"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    add_device(parser)
    parser.add_argument(
        "--note", help="what else to know of this run, such as a machine that had other work"
    )
    if ways:
        parser.add_argument(
            "--without",
            nargs="+",
            choices=ways,
            default=[],
            help="ways that are not timed; the line names them",
        )
    given = parser.parse_args()
    set_threads(given.threads)
    return given


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option `--device`, checked; for benchmarks with options of their own too. Its clock is
    read when the device is `idle`.
    """
    parser.add_argument("--device", default="cpu", type=choose_device, help="auto, cpu or cuda")


def by_turns(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, float]:
    """The median seconds of each way; each repeat runs all of them once, and the device is idle at
    both ends of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            idle(device)
            started = time.perf_counter()
            way()
            idle(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def idle(device: str) -> None:
    """Wait until the device has done what it was told: a clock is read before and after that, not
    while it works.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def write_line(bench: str, given: argparse.Namespace, figures: Mapping[str, object]) -> str:
    """Print the line of a benchmark and, with `--save`, append it to docs/benchmarks/NAME.jsonl;
    numbers are kept to four digits.
    """
    described = describe()
    circumstances = {name: described[name] for name in _KEPT if described[name] != "none"} | {
        "threads": torch.get_num_threads()
    }
    line = {
        "bench": bench,
        "date": datetime.now(UTC).date().isoformat(),
        "device": given.device,
        **circumstances,
        "repeats": given.repeats,
        **({"note": given.note} if given.note else {}),
        **{
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in figures.items()
        },
    }
    text = json.dumps(line)
    print(text)
    if given.save:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / f"{bench}.jsonl").open("a") as out:
            out.write(text + "\n")
    return text
