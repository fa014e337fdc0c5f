"""Adapters of low rank: the same function when they are multiplied out, and nothing but them and
the head trained.
"""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._low_rank import Adapted, adapt, low_rank, merge, product_operations
from lockforge.audit.protocol import Attempt, Budget, Setting
from lockforge.models.networks import CellNetwork, state
from lockforge.randomness import torch_generator
from lockforge.spaces.counts import flops

Run = Callable[..., Sequence[Attempt]]
DRAW = partial(torch_generator, 0, "low rank")


def test_merged_and_unmerged_outputs_are_equal(small: Callable[..., CellNetwork]) -> None:
    """Adapted, the network answers as before; with B drawn, merging changes no answer and leaves
    plain names.
    """
    images = torch.randn(5, 1, 6, 6, generator=torch_generator(0, "pictures"))
    network, before = small(), small()(images)
    adapt(network, {"rank": 2}, torch_generator(0, "adapters"))
    torch.testing.assert_close(network(images), before)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, Adapted):
                part.b.normal_(0, 0.3, generator=torch_generator(0, "b"))
    adapted = network(images)
    assert not torch.allclose(adapted, before, atol=1e-2)
    merge(network)
    torch.testing.assert_close(network(images), adapted)
    assert state(network).keys() == state(small()).keys()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.ones(1, 4, 5, 5)),
        (nn.Linear(3, 2), torch.ones(1, 3)),
    ],
    ids=["convolution", "linear"],
)
def test_a_layer_is_adapted_whatever_its_form(
    layer: nn.Conv2d | nn.Linear, x: torch.Tensor
) -> None:
    """Stride, padding, groups and bias are the layer's own: with B = 0 it answers the same; the
    rank is at most the layer's.
    """
    adapted = Adapted(layer, 100, torch_generator(0))
    torch.testing.assert_close(adapted(x), layer(x))
    assert adapted.a.shape[0] == min(len(layer.weight), layer.weight[0].numel())


@pytest.mark.parametrize("rank", [1, 2])
def test_the_change_of_each_kernel_has_the_rank(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run, rank: int
) -> None:
    """As matrices, the differences of all kernels have the rank, and no more; every vector before
    the head stays.
    """
    given = small()
    (one,) = run_attack(
        low_rank,
        given,
        data,
        [Setting("adam", 0.05, "source", (("rank", rank),))],
        Budget(6, 8),
        DRAW,
    )
    after, before = state(one.network), state(given)
    for name, _ in given.named_parameters():
        change = after[name] - before[name]
        if name.startswith("head."):
            assert bool(change.any())
        elif change.dim() > 1:
            sizes = torch.linalg.svdvals(change.flatten(1).double())
            assert sizes[0] > 1e-3
            assert bool((sizes[rank:] < 1e-6).all())
        else:
            assert not bool(change.any())


def test_operations_count_the_products(
    small: Callable[..., CellNetwork], data: AttackerData, run_attack: Run
) -> None:
    """By hand for the stem: B A of 4 x 2 and 2 x 9 is 72 multiply-adds; in all, 3 a step beside 3
    passes an image.
    """
    given = small()
    (one,) = run_attack(
        low_rank, given, data, [Setting("adam", 0.05, "source", (("rank", 2),))], Budget(6, 8), DRAW
    )
    stem = nn.Sequential(Adapted(nn.Conv2d(1, 4, 3), 2, torch_generator(0)))
    assert product_operations(stem) == 72
    adapt(given, {"rank": 2}, torch_generator(0))
    assert one.operations == 3 * 6 * 8 * flops(given.architecture) + 3 * 6 * product_operations(
        given
    )
