"""A black box as a `Classifier`: its answers are the features, and a head of the thief's own goes
behind them.

Shapes: n images, c channels, h x w pixels, d answers, k classes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.files import Files
from lockforge.models.classifier import Classifier
from lockforge.models.read_onnx import BlackBox, read_black_box
from lockforge.records import BLACK_BOX, AnyArchitecture, FileRef, NamedArchitecture


class OpaqueNetwork(Classifier):
    """Images -> answers -> logits. Only the head has weights; no gradient passes through the
    answers. Copies share the black box.
    """

    def __init__(
        self, box: BlackBox, classes: int, generator: torch.Generator | None = None
    ) -> None:
        """Put a head behind a black box.

        Args: generator: draws the head, uniform in +-1/sqrt(d), as `networks.build` does; None is
            the head that hands the answers on.
        """
        super().__init__()
        self.box = box
        self.architecture = NamedArchitecture(name=BLACK_BOX, classes=classes, shape=box.shape)
        self.head = nn.Linear(box.classes, classes, device="meta").to_empty(device="cpu")
        if generator is None:
            nn.init.eye_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            return
        bound = 1 / math.sqrt(box.classes)
        nn.init.uniform_(self.head.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.head.bias, -bound, bound, generator=generator)

    def maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d 1 1"]:
        """The answers, as maps of one pixel: nothing before them can be seen."""
        return self.features(x)[:, :, None, None]

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The answers.

        Raises: DataError: images of another shape, or an answer that is no number.
        """
        return self.box.logits(x).to(x.device)


def read_opaque(architecture: AnyArchitecture, weights: FileRef, files: Files) -> BlackBox:
    """The black box of a stored checkpoint.

    Raises: DataError: it cannot be asked. ResourceError: onnxruntime is not installed.
    """
    files.get(weights)
    return read_black_box(files.path(weights), architecture.shape, "the model's ONNX file")
