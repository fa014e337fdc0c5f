"""How long a user waits for `lockforge --help`, `verify --help` and a wrong option, beside a Python
that does nothing.

The aim is half a second for `--help`. Each way is a process of its own; by turns, the median
counts.
"""

import functools
import subprocess
import sys

from tests.benchmarks.line import arguments, by_turns, write_line

WAYS = {
    "python": ("-c", "pass"),
    "help": ("-m", "lockforge", "--help"),
    "verify_help": ("-m", "lockforge", "verify", "--help"),
    "wrong_option": ("-m", "lockforge", "protect", "--no-such-option"),
}
_EXPECTED = {"wrong_option": 2}


def start(name: str) -> None:
    """One process from its start to its end, checked to end as it should."""
    ended = subprocess.run([sys.executable, *WAYS[name]], capture_output=True, check=False)
    if ended.returncode != _EXPECTED.get(name, 0):
        raise SystemExit(f"{name} ended with {ended.returncode}: {ended.stderr.decode()[-500:]}")


def main() -> None:
    """Time all of them and print the line."""
    given = arguments(__doc__, repeats=15)
    seconds = by_turns(
        {name: functools.partial(start, name) for name in WAYS}, given.repeats, given.device
    )
    figures = {f"{name}_s": value for name, value in seconds.items()} | {
        "help_over_python": seconds["help"] / seconds["python"]
    }
    write_line("start", given, figures)


if __name__ == "__main__":
    main()
