"""MobileNetV3 1.0, small and large (Howard et al. 2019, arXiv:1905.02244, tables 1 and 2),
torchvision's parameter names.

Differs: squeezed channels are a quarter of the expanded ones rounded to eights, batch norm has
epsilon 0.001 and momentum 0.01, and the hidden layer of the classifier is a linear one, all as in
the published weight files. No dropout under the head: torch draws it from the global random state,
and a run could not be repeated. `small_images` leaves out the first two halvings.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Row(NamedTuple):
    """One line of the paper's table: kernel, expanded channels, channels out, squeeze and excite,
    hard swish, stride.
    """

    kernel: int
    hidden: int
    outputs: int
    squeezes: bool
    swish: bool
    stride: int


SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    *(Row(5, 240, 40, True, True, 1),) * 2,
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    *(Row(5, 576, 96, True, True, 1),) * 2,
)
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    *(Row(5, 120, 40, True, False, 1),) * 2,
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    *(Row(3, 184, 80, False, True, 1),) * 2,
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    *(Row(5, 960, 160, True, True, 1),) * 2,
)
TABLES = {
    "mobilenet_v3_small": (SMALL, 1024),
    "mobilenet_v3_large": (LARGE, 1280),
}  # rows, hidden layer of the classifier
STEM = 16


def eighths(channels: int) -> int:
    """Rounded to a multiple of eight, but not below nine tenths (Sandler et al. 2018's published
    rounding).

    >>> eighths(18), eighths(24), eighths(4)
    (24, 24, 8)
    """
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    act: type[nn.Module] | None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    norm = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
    return nn.Sequential(conv, norm, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Each channel times a factor in [0, 1] that depends on the means of all (Hu et al. 2018,
    arXiv:1709.01507, equations 2 to 4).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = eighths(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The product of x and hard_sigmoid(fc2(relu(fc1(mean(x)))))."""
        return x * functional.hardsigmoid(
            self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        )


class Block(nn.Module):
    """Widen, filter each channel by itself, weigh the channels, narrow; added to the input where
    shapes agree.
    """

    def __init__(self, inputs: int, row: Row, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish if row.swish else nn.ReLU
        layers = [_conv_bn(inputs, row.hidden, 1, act)] if row.hidden != inputs else []
        layers.append(
            _conv_bn(row.hidden, row.hidden, row.kernel, act, stride=stride, groups=row.hidden)
        )
        squeeze = [SqueezeExcite(row.hidden)] if row.squeezes else []
        self.block = nn.Sequential(*layers, *squeeze, _conv_bn(row.hidden, row.outputs, 1, None))
        self.shortcut = stride == 1 and inputs == row.outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e i j"]:
        """One block."""
        inner: Tensor = self.block(x)
        return x + inner if self.shortcut else inner


class MobileNetV3(nn.Module):
    """2.5 (small) or 5.5 (large) million weights with 1,000 classes; 1,024 or 1,280 features."""

    def __init__(self, name: str, classes: int, *, channels: int, small_images: bool) -> None:
        super().__init__()
        rows, hidden = TABLES[name]
        layers: list[nn.Module] = [
            _conv_bn(channels, STEM, 3, nn.Hardswish, stride=1 if small_images else 2)
        ]
        width, first = STEM, small_images
        for row in rows:
            kept = 1 if first and row.stride == 2 else row.stride
            first = first and row.stride == 1
            layers.append(Block(width, row, kept))
            width = row.outputs
        layers.append(_conv_bn(width, 6 * width, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(6 * width, hidden), nn.Hardswish(), nn.Identity(), nn.Linear(hidden, classes)
        )

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps; a hidden layer comes after their means."""
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.classifier(self.maps(images).mean((2, 3)))  # type: ignore[no-any-return]
