"""Many settings for the price of few: all of them with little, the best of them again with
everything.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943). Differs: two rounds, a quarter
each, and the second starts afresh, so that what comes out is what the whole budget gives and its
learning rates follow their own schedule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lockforge.audit.protocol import Asking, Attempt, Budget, Setting

SHARE = 1 / 4  # of the budget in the first round, and of the settings that reach the second
FEW = 2  # settings that all get the whole budget at once

Run = Callable[[Sequence[Setting], Budget], Asking]


def halving(run: Run, settings: Sequence[Setting], budget: Budget) -> Asking:
    """Run all settings with a quarter of the budget, then the best quarter of them again, from the
    start, with all of it.

    The best by validation, rounded up, of equal ones the first by name. How many steps are spent
    depends on the number of settings and on the budget alone: it is the same for every start. `run`
    must give one attempt a setting, in order.

    Returns: an attempt a setting, in order, with the costs of both rounds; of its two networks the
        better by validation, of equal ones the second.
    """
    if len(settings) <= FEW:
        return (yield from run(settings, budget))
    first = yield from run(settings, budget.times(SHARE))
    ranked = sorted(first, key=lambda one: (-one.val_accuracy, str(one.setting)))
    best = {one.setting for one in ranked[: math.ceil(SHARE * len(settings))]}
    second = {
        one.setting: one
        for one in (yield from run([setting for setting in settings if setting in best], budget))
    }
    return [_together(one, second[one.setting]) if one.setting in second else one for one in first]


def _together(first: Attempt, second: Attempt) -> Attempt:
    """The better of two attempts with one setting, at the cost of both."""
    better = second if second.val_accuracy >= first.val_accuracy else first
    return replace(
        better, steps=first.steps + second.steps, operations=first.operations + second.operations
    )
