"""Copies of networks beside those of the standard library."""

import copy
from collections import OrderedDict

import torch
from torch import nn

from lockforge.engine.copying import copied
from lockforge.engine.fold import structure_of
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.records import NamedArchitecture


class Tied(nn.Module):
    """Two layers with one weight, a frozen one, a hook, a list and a buffer that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.frozen.requires_grad_(requires_grad=False)
        self.first.register_forward_hook(_double)
        self.register_buffer("mean", torch.arange(3.0), persistent=False)
        self.register_buffer("none", None)
        self.sizes = [3, 3]
        self.first.notes = self.second.notes = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Through all three."""
        result: torch.Tensor = self.frozen(self.second(self.first(x - self.mean)))
        return result


def _double(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


def test_a_copy_is_what_the_library_makes() -> None:
    """Parts, settings, weights in their order of memory, mode, what is trained; the original can
    change and the copy does not.
    """
    kernels_apart = build(
        NamedArchitecture(name="resnet20-cifar", classes=3, shape=(3, 8, 8)),
        torch_generator(0, "copied"),
    ).eval()
    for network in (kernels_apart, Tied()):
        ours, theirs = copied(network), copy.deepcopy(network)
        assert structure_of(ours) == structure_of(theirs) == structure_of(network)
        assert [part.training for part in ours.modules()] == [
            part.training for part in network.modules()
        ]
        for one, other in zip(
            ours.state_dict().values(), theirs.state_dict().values(), strict=True
        ):
            assert one.stride() == other.stride()
            assert torch.equal(one, other)
        before = [tensor.clone() for tensor in ours.state_dict().values()]
        for tensor in network.state_dict().values():
            tensor.zero_()
        assert all(
            torch.equal(one, other)
            for one, other in zip(before, ours.state_dict().values(), strict=True)
        )


class Particular(nn.Module):
    """It says itself how it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.copies = 0

    def __getstate__(self) -> dict[str, object]:
        """One copy more."""
        return vars(self) | {"copies": self.copies + 1}


def test_a_network_that_says_how_it_is_copied_is_asked() -> None:
    """Also as a part of another; a recurrent one, whose weights stand in a second list, computes
    with its own.
    """
    assert copied(nn.Sequential(Particular()))[0].copies == copied(Particular()).copies == 1
    recurrent = nn.LSTM(2, 3)
    other, x = copied(recurrent), torch.ones(1, 1, 2)
    before = other(x)[0]
    with torch.no_grad():
        recurrent.weight_ih_l0.zero_()
    assert torch.equal(other(x)[0], before)
    assert not torch.equal(recurrent(x)[0], before)


def test_what_is_shared_stays_shared_and_hooks_go_along() -> None:
    """The tied weight is one tensor in the copy too, the hook still doubles, and new hooks on the
    copy are its own.
    """
    network = Tied()
    other = copied(network)
    assert other.first.weight is other.second.weight
    assert other.first.weight is not network.first.weight
    x = torch.ones(2, 3)
    assert torch.equal(other(x), network(x))
    other.second.register_forward_hook(_double)
    assert not torch.equal(other(x), network(x))
    assert type(other.frozen._forward_hooks) is type(network.frozen._forward_hooks) is OrderedDict
    assert other.first.notes is other.second.notes is not network.first.notes
    other.sizes.append(4)
    assert network.sizes == [3, 3]
