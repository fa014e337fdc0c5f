"""How many networks a GPU's memory holds, told without a GPU."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lockforge.engine._memory import SHARE, Need, counting, free_bytes
from lockforge.engine.fit import RunContext
from lockforge.engine.stack import fit_stack, groups_of
from tests.engine.test_stack import ADAM, SGD, member, tiny

EXAMPLE = 8 * (
    36 + 4 * 36 + 4 * 36 + 16
)  # bytes that `tiny` in float64 keeps of an image: convolution, norm, relu and pooling, head
WEIGHTS = 832  # of its parameters and statistics


def sizes(count: int, memory: int, **changes: object) -> list[int]:
    """Of the groups of so many runs of `tiny` on a GPU with so much free memory."""
    members = [member(i, SGD.model_copy(update=changes)) for i in range(count)]
    return [len(group) for group in groups_of(members, device="cuda", memory=memory)]


def test_what_is_kept_is_counted_by_hand() -> None:
    """Inputs of each layer, each piece of memory once, weights left out; half of the network frozen
    keeps less.
    """
    net = tiny(0).eval()
    images = torch.zeros(5, 1, 6, 6, dtype=torch.float64)
    with counting(net) as kept:
        net(images)
    assert kept.bytes == 5 * EXAMPLE
    net[:5].requires_grad_(requires_grad=False)
    with counting(net) as kept:
        net(images)
    assert kept.bytes == 5 * 8 * 16


def test_a_group_is_as_large_as_memory_allows() -> None:
    """The share of the memory over what a member needs, rounded down, at least one; groups are of
    nearly equal size.
    """
    each = Need(kept=EXAMPLE, largest=8 * 4 * 36, weights=WEIGHTS, moments=1).bytes(SGD.batch_size)
    room = -(-each * 3 // SHARE) + 1
    assert sizes(6, int(room)) == [3, 3]
    assert sizes(6, int(room - each / SHARE / 2)) == [2, 2, 2]
    assert sizes(2, 1) == [1, 1]
    assert sizes(6, 2**40) == [6]


@pytest.mark.parametrize("changes", [{"batch_size": 12}, {"optimizer": "adam"}, {"select": "best"}])
def test_what_takes_more_memory_makes_smaller_groups(changes: dict[str, object]) -> None:
    """Larger batches, a second moment, a best state beside the present one."""
    each = Need(kept=EXAMPLE, largest=8 * 4 * 36, weights=WEIGHTS, moments=1).bytes(SGD.batch_size)
    room = int(-(-each * 5 // SHARE)) + 1  # just enough for five
    assert sizes(20, room) == [5] * 4
    assert len(sizes(20, room, **changes)) > 4


def test_the_cpu_asks_for_no_memory() -> None:
    """Its rule is the cache's: whatever memory is said to be free, groups are the same."""
    members = [member(i) for i in range(4)]
    assert groups_of(members, memory=1) == groups_of(members) == ((0, 1, 2, 3),)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_stack_stays_within_its_share(recipe: object) -> None:
    """Of a GPU's memory: the peak of a stack that fills a given room is below that room, and not
    below a third of it.
    """
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    room = 2**28

    def wide() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 36, 3),
        ).double()

    members = [replace(member(i, recipe, wide())) for i in range(512)]  # type: ignore[arg-type]
    (first, *_) = groups_of(members, device="cuda", memory=room)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fit_stack([members[at] for at in first], context=RunContext("cuda"))
    assert room / 3 < torch.cuda.max_memory_allocated() - before < room
    assert free_bytes("cuda") > 0
