"""No step of a training asks the device for a number: on a GPU each such question would stop the
machine until the device is idle.

What asks is counted on the CPU, where the same operations are dispatched: reading a number, and
finding out how many there are.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import fit
from lockforge.engine.stack import Member, fit_stack
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

MakeNet = Callable[[], nn.Module]
ASKING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
}


class Questions(TorchDispatchMode):
    """Counts operations that need an answer at once; indexing by truth values is one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call through, and count."""
        name = func._schema.name
        truths = [
            one
            for one in (args[1] if name == "aten::index" else ())
            if one is not None and one.dtype == torch.bool
        ]
        if name in ASKING or truths:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def questions_of(task: Callable[[], object]) -> int:
    """How many there are in a task."""
    with Questions() as found:
        task()
    return len(found.asked)


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam"}, {"momentum": 0.0}], ids=["sgd", "adam", "no momentum"]
)
def test_a_longer_run_asks_no_more(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, changes: dict[str, Any]
) -> None:
    """Ten lines of one step and ten of five have the same questions, with a mask and
    sharpness-aware steps too.
    """
    mask = {"0.weight": torch.ones(6, 1, 3, 3)}
    for extra in ({}, {"mask": mask, "sharpness": 0.05}):
        counts = [
            questions_of(
                lambda steps=steps, extra=extra: fit(
                    make_net(),
                    train,
                    FitRecipe(steps=steps, batch_size=20, **changes),
                    generator=torch_generator(0),
                    val=val,
                    **extra,
                )
            )
            for steps in (10, 50)
        ]
        assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_longer_stack_asks_no_more(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, optimizer: str
) -> None:
    """The same for three networks at once."""

    def run(steps: int) -> None:
        recipe = FitRecipe(steps=steps, batch_size=20, optimizer=optimizer)  # type: ignore[arg-type]
        fit_stack(
            [
                Member(copy.deepcopy(make_net()), train, val, recipe, torch_generator(seed))
                for seed in range(3)
            ]
        )

    assert questions_of(lambda: run(10)) == questions_of(lambda: run(50)) > 0


def test_a_question_is_noticed() -> None:
    """Each way of asking, so that the tests above can fail."""
    x = torch.arange(4.0)
    for ask in (
        lambda: x.sum().item(),
        lambda: float(x[0]),
        lambda: bool(x.any()),
        lambda: x[x > 1],
        x.nonzero,
    ):
        assert questions_of(ask) == 1
    assert questions_of(lambda: torch.where(x > 1, x, 0) + x[torch.tensor([0, 1, 2, 3])]) == 0
