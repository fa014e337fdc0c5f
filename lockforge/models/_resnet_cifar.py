"""He et al.'s own CIFAR networks, ResNet-20 to -110 (2016, arXiv:1512.03385, section 4.2),
shortcuts without weights (option A).

Parameter names are those of the files that are commonly passed around: `conv1`, `bn1`,
`layer1.0.conv1`, ..., `linear`.
Differs: new channels of a shortcut are zeros on both sides, half before and half after the old
    ones, as in those files.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
}  # a stage; layers = 6 x blocks + 2
WIDTHS = (16, 32, 64)


class ThinBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that picks pixels and adds channels of zeros."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = (width - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e i j"]:
        """One block."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        picked = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(
            inner
            + (
                functional.pad(picked, (0, 0, 0, 0, self.added, self.added))
                if self.added
                else picked
            )
        )


class ThinResNet(nn.Module):
    """16, 32, 64 channels at 1, 1/2, 1/4 of the image; 64 features, 0.27 million weights with 20
    layers.
    """

    def __init__(self, name: str, classes: int, *, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        stages: list[nn.Module] = []
        for stage, width in enumerate(WIDTHS):
            rows = []
            for index in range(BLOCKS[name]):
                rows.append(ThinBlock(inputs, width, 2 if stage and index == 0 else 1))
                inputs = width
            stages.append(nn.Sequential(*rows))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, classes)

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps, before they are averaged over their pixels."""
        x = torch.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(x)))  # type: ignore[no-any-return]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.linear(self.maps(images).mean((2, 3)))  # type: ignore[no-any-return]
