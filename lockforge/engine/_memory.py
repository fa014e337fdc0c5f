"""How many networks a stack may hold: on a GPU as many as fit into its memory, by a count of what a
step holds at once.

Shapes: P numbers in the trained parameters of one member, b examples a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

# of the free memory: convolutions ask for room to work in, and what is given back lies in pieces
SHARE = 0.7
# of P numbers in a step of `engine.stack`: weights (2), owners (2), momentum, rates, penalty,
# gradients (2), and 2 between
_VECTORS = 11
# largest activations in the backward pass: a gradient that comes in, one that goes out, one to be
# added to it
_ON_THE_WAY = 3


@dataclass(frozen=True)
class Need:
    """What one member of a stack holds.

    Args: kept: bytes that its forward pass keeps for the backward pass, for one example. largest:
        bytes of its largest activation, for one example. weights: bytes of its parameters and
        statistics. moments: vectors of P numbers that the optimiser keeps.
    """

    kept: int
    largest: int
    weights: int
    moments: int

    def bytes(self, examples: int, *, more: int = 0) -> int:
        """At the fullest moment of a step of so many examples; more: further vectors of P numbers,
        as masks and best states are.

        >>> Need(kept=100, largest=40, weights=10, moments=1).bytes(2)
        560
        """
        return (
            examples * (self.kept + _ON_THE_WAY * self.largest)
            + (_VECTORS + self.moments + more) * self.weights
        )


@dataclass
class Kept:
    """Bytes that a forward pass keeps for its backward pass, parameters and what was there before
    left out; see `counting`.
    """

    there: set[int]
    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Each piece of memory once."""
        return sum(self.sizes.values())


@contextmanager
def counting(module: nn.Module) -> Iterator[Kept]:
    """Count what is kept of the passes of a module inside; gradients are on."""
    there = {
        tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())
    }
    kept = Kept(there)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def free_bytes(device: str) -> int:
    """Of a GPU: what nobody has, and what torch holds of it without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
