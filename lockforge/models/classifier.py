"""What every network offers that LockForge trains, locks, attacks and releases.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from lockforge.records import Architecture, NamedArchitecture


class Classifier(nn.Module, ABC):
    """Images -> maps -> features -> logits. All weights that belong to the classes are in `head`,
    and no others are.

    `architecture` says how to build it again; the names of its tensors begin with `head.` for the
    head's and otherwise for the rest's.
    """

    architecture: Architecture | NamedArchitecture
    head: nn.Linear

    @abstractmethod
    def maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps, before they become features."""

    @abstractmethod
    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head sees."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits: head(features(x))."""
        logits: Tensor = self.head(self.features(x))
        return logits
