"""Where examples come from: anything that gives batches. `data.Pool` is a feed, and so are plain
tensors.

Shapes: n examples, b examples a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Shaped
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Feed(Protocol):
    """Examples with labels.

    `batches` is one pass. With a generator: shuffled, max(1, n // batch_size) batches, a last short
    one left out unless it is the only one; all draws come from the generator, none after the last
    batch was given. Without: all examples, in order, not augmented.
    """

    def __len__(self) -> int:
        """Examples."""

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[Batch]:
        """One pass over the examples; `crop` (pixels of padding) and `flip` augment images.

        balance: classes are drawn in proportion to (their examples)^(1 - balance); above zero,
        examples are drawn with replacement.
        """


@dataclass(frozen=True)
class TensorFeed:
    """Plain tensors on one device, as features or encoded pairs are; they cannot be augmented."""

    inputs: Shaped[Tensor, "n ..."]
    labels: Shaped[Tensor, "n ..."]

    def __len__(self) -> int:
        """Examples."""
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[Batch]:
        """One pass over the examples.

        Raises: ValueError: `crop`, `flip` or `balance` is asked for.
        """
        if crop or flip or balance:
            raise ValueError("plain tensors cannot be cropped, flipped or balanced")
        if generator is None:
            yield from zip(
                torch.split(self.inputs, batch_size),
                torch.split(self.labels, batch_size),
                strict=True,
            )
            return
        count = len(self)
        order = torch.randperm(count, generator=generator).to(self.labels.device)
        for start in range(0, count // batch_size * batch_size or count, batch_size):
            rows = order[start : start + batch_size]
            yield self.inputs[rows], self.labels[rows]
