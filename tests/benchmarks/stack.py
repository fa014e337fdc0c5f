"""Member steps per second of stacked training against one by one and side by side: digits networks
of the sizes an audit trains.

K networks of one cell (stem of 8 channels, one cell a stage), each with its own data and draws,
SGD, `select: last`. The ways: `one_by_one` (`fit` after `fit`, as many threads as given),
`side_by_side` (two at once, one thread each: what the audit does), `stacked` (one stack after
another, as many threads as given) and `halves` (two stacks at once, one thread each). First all
ways must end at the same weights, to rounding. Options `--members`, `--side`, `--batch` and
`--stem` choose the case; a line is one case.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from lockforge.engine.device import set_threads
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.engine.stack import Member, fit_stack, groups_of
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe
from lockforge.records import Architecture, Cell
from tests.benchmarks.line import arguments, by_turns, write_line

CELL = Cell.parse(
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
)


def members_of(case: argparse.Namespace) -> list[Member]:
    """The same runs each time."""
    architecture = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=case.stem,
        cells_per_stage=1,
        classes=10,
        shape=(1, case.side, case.side),
    )
    recipe = FitRecipe(steps=case.steps, batch_size=case.batch, learning_rate=0.02, select="last")
    found = []
    for index in range(case.members):
        draws = torch_generator(index, "benchmark", "noise")
        images = torch.randn(2 * case.batch, 1, case.side, case.side, generator=draws)
        data = TensorFeed(images, torch.randint(10, (2 * case.batch,), generator=draws))
        found.append(
            Member(
                build(architecture, draws),
                data,
                None,
                recipe,
                torch_generator(index, "benchmark", "draws"),
            )
        )
    return found


def alone(members: Sequence[Member], device: str) -> None:
    """`fit` after `fit`."""
    for one in members:
        fit(one.module, one.train, one.recipe, generator=one.generator, context=RunContext(device))


def stacked(members: Sequence[Member], device: str) -> None:
    """`fit_stack`."""
    for one in fit_stack(members, context=RunContext(device)):
        if not isinstance(one, Fitted):
            raise one


def at_once(
    way: Callable[[Sequence[Member], str], None], parts: Sequence[Sequence[Member]], threads: int
) -> None:
    """Two parts at a time, on one thread each."""
    set_threads(1)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: way(part, "cpu"), parts))
    set_threads(threads)


def main() -> None:
    """Same weights first, then the clock."""
    options = argparse.ArgumentParser(add_help=False)
    for name, default in (("members", 16), ("side", 8), ("batch", 32), ("stem", 8), ("steps", 12)):
        options.add_argument(f"--{name}", type=int, default=default)
    case, sys.argv[1:] = options.parse_known_args()
    given = arguments(__doc__, repeats=3)
    device, threads = given.device, given.threads
    piles = [
        members_of(case) for _ in range(4 * (given.repeats + 1))
    ]  # networks are built off the clock
    runs: list[Member] = []

    def fresh() -> list[Member]:
        runs[:] = piles.pop()
        return runs

    def side_by_side() -> None:
        at_once(alone, [[one] for one in fresh()], threads)

    def halves() -> None:
        half = (case.members + 1) // 2
        at_once(stacked, [fresh()[:half], runs[half:]], threads)

    ways: dict[str, Callable[[], None]] = {
        "one_by_one": lambda: alone(fresh(), device),
        "stacked": lambda: stacked(fresh(), device),
    }
    ways |= {} if device.startswith("cuda") else {"side_by_side": side_by_side, "halves": halves}
    ends = {}
    for name, way in ways.items():  # also the warm-up
        way()
        ends[name] = torch.cat(
            [tensor.detach().flatten().cpu() for one in runs for tensor in one.module.parameters()]
        )
    apart = max(float((end - ends["one_by_one"]).abs().max()) for end in ends.values())
    if apart > (0.1 if device.startswith("cuda") else 1e-2):
        raise SystemExit(f"the ways do not end at the same weights: {apart} apart")
    groups = groups_of(members_of(case), device=device)
    seconds = by_turns(ways, given.repeats, device)
    figures: dict[str, object] = {**vars(case), "stacks": len(groups), "weights_apart": apart}
    figures |= {
        f"{name}_ms_a_member_step": 1e3 * value / (case.members * case.steps)
        for name, value in seconds.items()
    }
    figures["speedup"] = seconds["one_by_one"] / min(
        seconds[name] for name in ("stacked", "halves") if name in seconds
    )
    if "side_by_side" in seconds:
        figures["speedup_over_side_by_side"] = seconds["side_by_side"] / min(
            seconds["stacked"], seconds["halves"]
        )
    write_line("stack", given, figures)


if __name__ == "__main__":
    main()
