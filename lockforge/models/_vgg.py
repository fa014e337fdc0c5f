"""VGG-11, -13 and -16 with batch norm (Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 A, B,
D), torchvision's parameter names.

Differs: no dropout between the hidden layers: torch draws it from the global random state, and a
run could not be repeated. `small` networks have the mean of the last maps and one linear layer,
`classifier`, where the paper has three layers over 7 x 7 pixels: at 32 pixels one pixel is left,
and the hidden layers would be 120 of 129 million weights. Under 32 pixels a pooling keeps an odd
last row and column, so that something is left of the image.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512, 512)
THIN = {
    "vgg6_bn_thin": (16, 32, 64, 64, 64)
}  # not published: for images of 8 to 32 pixels on a CPU
CONVOLUTIONS: dict[str, tuple[int, int, int, int, int]] = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg6_bn_thin": (1, 1, 1, 1, 1),
}
HIDDEN = 4096
POOLED = 7  # pixels of a side


class VGG(nn.Module):
    """3x3 convolutions with batch norm, five halvings; 512 features (small) or 4,096."""

    def __init__(
        self, name: str, classes: int, shape: tuple[int, int, int], *, small: bool
    ) -> None:
        super().__init__()
        self.small = small
        layers: list[nn.Module] = []
        inputs, h, w = shape
        for width, count in zip(THIN.get(name, WIDTHS), CONVOLUTIONS[name], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=min(h, w) < 32))
        self.features = nn.Sequential(*layers)
        if small:
            self.classifier: nn.Module = nn.Linear(inputs, classes)
        else:
            hidden = [
                nn.Linear(inputs * POOLED**2, HIDDEN),
                nn.ReLU(),
                nn.Identity(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.ReLU(),
                nn.Identity(),
            ]
            self.classifier = nn.Sequential(*hidden, nn.Linear(HIDDEN, classes))

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps; the paper's hidden layers come after them."""
        return self.features(images)  # type: ignore[no-any-return]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        maps = self.maps(images)
        pooled = (
            maps.mean((2, 3))
            if self.small
            else functional.adaptive_avg_pool2d(maps, POOLED).flatten(1)
        )
        return self.classifier(pooled)  # type: ignore[no-any-return]
