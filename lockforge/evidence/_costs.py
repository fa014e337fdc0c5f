"""What an attack costs: operations until it is good enough, and whether one budget is enough for
it.

Points are those that validation chose. Operations are counted as `spaces.counts` counts them;
accuracies are in [0, 1].
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from lockforge.errors import IntegrityError
from lockforge.evidence.statistics import mean
from lockforge.records import AttackPoint, BudgetCheck


def operations_to_reach(
    places: Iterable[tuple[Sequence[float], Sequence[float]]], goal: float
) -> float | None:
    """The least mean of operations over seeds among the places where the mean accuracy reaches
    `goal`; None where none does.

    Args: places: accuracies and operations of the same seeds, at one grid value and of one attacker
        from one start.

    >>> operations_to_reach([((0.25, 0.75), (1e9, 3e9)), ((0.9, 0.9), (8e9, 8e9))], 0.5)
    2000000000.0
    """
    return min(
        (mean(operations) for accuracies, operations in places if mean(accuracies) >= goal),
        default=None,
    )


def check_budgets(chosen: Sequence[AttackPoint]) -> tuple[BudgetCheck, ...]:
    """Each start, attacker and grid value that was tried with more than one budget, beside the same
    seeds with one.

    Args: chosen: one point for each start, attacker, grid value, seed and budget.
    Returns: ordered by start, attacker, images and factor.
    Raises: IntegrityError: nobody tried one budget there, or a test accuracy is missing.
    """
    tested = {
        (point.start, point.attacker, point.samples, point.seed, point.budget): point.test_accuracy
        for point in chosen
    }
    pairs: dict[tuple[str, str, int, int], list[tuple[float, float]]] = defaultdict(list)
    for (start, attacker, samples, seed, budget), more in sorted(
        tested.items(), key=lambda item: item[0]
    ):
        if budget == 1:
            continue
        one = tested.get((start, attacker, samples, seed, 1))
        if one is None or more is None:
            raise IntegrityError(
                f"{start}:{attacker} at {samples} images, seed {seed}: with {budget} budgets "
                f"{_said(more)}, with one {_said(one)}"
            )
        pairs[start, attacker, samples, budget].append((one, more))
    found = []
    for (start, attacker, samples, factor), both in sorted(pairs.items()):
        reached, with_more = (mean(side) for side in zip(*both, strict=True))
        found.append(
            BudgetCheck(
                start=start,
                attacker=attacker,
                samples=samples,
                factor=factor,
                reached=reached,
                with_more=with_more,
                share=reached / with_more if with_more else 1.0,
            )
        )
    return tuple(found)


def _said(accuracy: float | None) -> str:
    return "no test accuracy" if accuracy is None else f"test accuracy {accuracy}"
