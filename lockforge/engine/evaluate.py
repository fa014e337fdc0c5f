"""What a network answers, and how often it is right. Everything here runs in float32, whatever it
was trained in.

Shapes: n examples, k classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lockforge.engine.feed import Feed
from lockforge.errors import DataError


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    """Put every part back into the mode, train or eval, that it was in."""
    training = [part for part in module.modules() if part.training]
    try:
        yield
    finally:
        module.eval()
        for part in training:
            part.training = True


def _not_empty(feed: Feed) -> None:
    if not len(feed):
        raise DataError(
            "there are no examples to evaluate on", hint="give a split that is not empty"
        )


@torch.no_grad()
def logits_of(
    module: nn.Module, feed: Feed, *, device: str = "cpu", batch_size: int = 512
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, " n"]]:
    """What a module says of every example in order, in eval mode, and the labels; both on the
    device.

    The module is moved to the device and keeps its mode.

    Raises: DataError: the feed is empty.
    """
    _not_empty(feed)
    module.to(device)
    with _modes_kept(module):
        module.eval()
        pairs = [
            (
                torch.cat([module(part) for part in _parts(inputs.to(device), device)]),
                labels.to(device),
            )
            for inputs, labels in feed.batches(batch_size, None)
        ]
    outputs, labels = zip(*pairs, strict=True)
    return torch.cat(outputs), torch.cat(labels)


def _parts(inputs: Tensor, device: str) -> tuple[Tensor, ...]:
    """Images in parts of 65,536 pixels of one channel, 32 images at least, on the CPU; anything
    else as it is.

    Maps that fit into the processor's cache are worked out 1.3 to 2.2 times as fast at 28 and 32
    px.
    """
    if device != "cpu" or inputs.dim() != 4:
        return (inputs,)
    return torch.split(inputs, max(32, 2**16 // (inputs.shape[2] * inputs.shape[3])))


def hits(outputs: Float[Tensor, "n *k"], labels: Tensor) -> Bool[Tensor, " n"]:
    """Which answers are right: the largest of k logits is at the label, or a single logit (k
    absent) has the sign of the label minus 1/2.

    >>> (
    ...     hits(torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.tensor([1, 0])).tolist(),
    ...     hits(torch.tensor([3.0]), torch.tensor([1.0])).tolist(),
    ... )
    ([True, False], [True])
    """
    return outputs.argmax(1) == labels if outputs.dim() > 1 else (outputs > 0) == (labels > 0.5)


def accuracy(logits: Float[Tensor, "n *k"], labels: Tensor) -> float:
    """The share of right answers, in [0, 1]; of equal logits the first counts."""
    return int(hits(logits, labels).sum()) / len(labels)


def confusion(
    logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], classes: int
) -> tuple[tuple[int, ...], ...]:
    """How many examples of class i (row) were taken for class j (column).

    >>> confusion(torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]), 2)
    ((1, 0), (1, 1))
    """
    cells = labels * classes + logits.argmax(1)
    table = torch.bincount(cells, minlength=classes * classes).view(classes, classes).tolist()
    return tuple(tuple(row) for row in table)


@torch.no_grad()
def reestimate_batch_norm(
    module: nn.Module, feed: Feed, *, device: str = "cpu", batch_size: int = 512
) -> None:
    """Replace the running statistics of every batch norm by those of a feed, in place: the mean
    over batches of nearly equal size.

    Only batch norms are in train mode meanwhile. Those that the module does not use keep their
    statistics.

    Raises: DataError: the feed is empty.
    """
    _not_empty(feed)
    module.to(device)
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    before = [
        (norm.momentum, [statistic.clone() for statistic in norm.buffers(recurse=False)])
        for norm in norms
    ]
    even = ceil(len(feed) / ceil(len(feed) / batch_size))
    with _modes_kept(module):
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
            norm.train()
        for inputs, _ in feed.batches(even, None):
            module(inputs.to(device))
    for norm, (momentum, statistics) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            for buffer, statistic in zip(norm.buffers(recurse=False), statistics, strict=True):
                buffer.copy_(statistic)
