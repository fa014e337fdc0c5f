"""Several processes that train one network: what one of them does otherwise than a process alone.

All of them draw the same batches with the same generators; each works on its own share. What they
say to each other: gradients at each step, by torch's `DistributedDataParallel`; losses, right
answers and the statistics of batch norms at the end of a line of history.

Shapes: b examples a batch, of which this process has s; P processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lockforge.engine.feed import Batch, Feed

_NAMES = ("forward_sync_buffers", "broadcast_buffers")  # of one option, newer and older
_OWN_BUFFERS: dict[str, Any] = {
    next(name for name in _NAMES if name in signature(DistributedDataParallel).parameters): False
}


@dataclass(frozen=True)
class Team:
    """The place of this process among those that train together; where `size` is above 1 torch's
    process group is open.

    Args: rank: from 0. size: P.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(
        self, inputs: Shaped[Tensor, "b ..."], labels: Shaped[Tensor, "b ..."]
    ) -> tuple[Tensor, Tensor, float]:
        """The process's part of a batch, and the weight s P / b of its mean loss: so the mean over
        processes is that over examples.

        >>> inputs, labels, weight = Team(1, 2).share(torch.arange(5), torch.arange(5))
        >>> labels.tolist(), weight
        ([3, 4], 0.8)
        """
        if self.size == 1:
            return inputs, labels, 1.0
        part = labels.tensor_split(self.size)[self.rank]
        return (
            inputs.tensor_split(self.size)[self.rank],
            part,
            len(part) * self.size / max(1, len(labels)),
        )

    def joined(self, module: nn.Module) -> nn.Module:
        """The module, so that a backward pass leaves the mean gradient of all processes in its
        parameters.

        Parameters that no output depends on are looked for at each step: a cell may have some, and
        torch then never sorts the gradients anew, so that a resumed run adds them up in the order
        of one that was not interrupted.
        """
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True, **_OWN_BUFFERS)

    def sum(self, values: Tensor) -> Tensor:
        """Over the processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Over the processes, in place."""
        return self.sum(values).div_(self.size) if self.size > 1 else values

    @torch.no_grad()
    def average_statistics(self, module: nn.Module) -> None:
        """Give all the mean of their running statistics, of each batch norm in train mode: they are
        linear in the batches' own.
        """
        if self.size == 1:
            return
        for part in module.modules():
            if (
                isinstance(part, _BatchNorm)
                and part.training
                and part.running_mean is not None
                and part.running_var is not None
            ):
                self.mean(part.running_mean)
                self.mean(part.running_var)


ALONE = Team()


@dataclass(frozen=True)
class Share:
    """A feed of which each process sees its own part of every batch; as long as the whole."""

    feed: Feed
    team: Team

    def __len__(self) -> int:
        """Examples of all processes together."""
        return len(self.feed)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[Batch]:
        """One pass; a last batch of fewer examples than processes is empty for some of them."""
        for inputs, labels in self.feed.batches(
            batch_size, generator, crop=crop, flip=flip, balance=balance
        ):
            part, own, _ = self.team.share(inputs, labels)
            yield part, own
