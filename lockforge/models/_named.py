"""Networks by name: which there are, and each of them as a `Classifier`.

`-cifar` networks are for images of 28 to 64 pixels: they leave out the first two halvings (VGG:
the hidden layers of its classifier instead). Tensors of a `Classifier` are called `head.*` and
`body.*`; in published files they have the published names: `from_published` and `to_published` go
from one to the other.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.errors import DataError, RecipeError
from lockforge.models import _mobilenet_v3 as mobilenet_v3
from lockforge.models import _resnet_cifar as resnet_cifar
from lockforge.models import _vgg as vgg
from lockforge.models import _vit as vit
from lockforge.models._filters import narrow
from lockforge.models.backbones import HEADS, Backbone, new_backbone
from lockforge.models.classifier import Classifier
from lockforge.records import NamedArchitecture

Shape = tuple[int, int, int]
Body = (
    Backbone | vgg.VGG | mobilenet_v3.MobileNetV3 | vit.VisionTransformer | resnet_cifar.ThinResNet
)


class Known(NamedTuple):
    """How to make a network from classes and (c, h, w); where its last and first layers are; what
    its images' sides must divide by.
    """

    make: Callable[[int, Shape], Body]
    head: str
    first: str
    patch: int = 1


def _backbone(name: str, *, small: bool) -> Known:
    def make(classes: int, shape: Shape) -> Body:
        return new_backbone(name, classes, channels=shape[0], small=small)

    return Known(
        make,
        HEADS[name].removesuffix(".weight"),
        "features.0.0" if name == "mobilenet_v2" else "conv1",
    )


def _vgg(name: str, *, small: bool) -> Known:
    def make(classes: int, shape: Shape) -> Body:
        return vgg.VGG(name, classes, shape, small=small)

    return Known(make, "classifier" if small else "classifier.6", "features.0")


def _mobilenet_v3(name: str, *, small: bool) -> Known:
    def make(classes: int, shape: Shape) -> Body:
        return mobilenet_v3.MobileNetV3(name, classes, channels=shape[0], small_images=small)

    return Known(make, "classifier.3", "features.0.0")


def _vit(name: str, *, small: bool) -> Known:
    patch = 4 if small else 16

    def make(classes: int, shape: Shape) -> Body:
        return vit.VisionTransformer(name, classes, shape, patch=patch)

    return Known(make, "head", "patch_embed.proj", patch)


def _thin(name: str) -> Known:
    def make(classes: int, shape: Shape) -> Body:
        return resnet_cifar.ThinResNet(name, classes, channels=shape[0])

    return Known(make, "linear", "conv1")


KNOWN: dict[str, Known] = {
    name + ("-cifar" if small else ""): family(name, small=small)
    for family, names in (
        (_backbone, HEADS),
        (_vgg, vgg.CONVOLUTIONS),
        (_mobilenet_v3, mobilenet_v3.TABLES),
        (_vit, vit.SIZES),
    )
    for name in names
    for small in (False, True)
} | {f"{name}-cifar": _thin(name) for name in resnet_cifar.BLOCKS}
NAMES: tuple[str, ...] = tuple(sorted(KNOWN))


def known(name: str) -> Known:
    """The network of this name.

    Raises: RecipeError: there is none.
    """
    if name not in KNOWN:
        raise RecipeError(f"there is no network {name!r}", hint=f"use one of: {', '.join(NAMES)}")
    return KNOWN[name]


def check_sides(name: str, size: tuple[int, int]) -> None:
    """Nothing, where a network can take images of h x w pixels.

    Raises: DataError: it cuts them into patches that do not fill them.
    """
    patch = known(name).patch
    if any(side % patch for side in size):
        raise DataError(
            f"{name} takes images whose sides are multiples of {patch} pixels, not {size[0]} x "
            f"{size[1]}",
            hint="set `data.size` to such a multiple",
        )


class NamedNetwork(Classifier):
    """A published network with its last layer taken off (`body`) and put beside it (`head`), and as
    narrow as its architecture says.
    """

    architecture: NamedArchitecture

    def __init__(self, architecture: NamedArchitecture) -> None:
        super().__init__()
        found = known(architecture.name)
        check_sides(architecture.name, architecture.shape[1:])
        self.architecture = architecture
        self.body = found.make(architecture.classes, architecture.shape)
        head = self.body.get_submodule(found.head)
        # every entry of KNOWN names a linear layer; the tests build them all
        assert isinstance(head, nn.Linear)  # noqa: S101
        self.head = head
        self.body.set_submodule(found.head, nn.Identity())
        if architecture.widths:
            narrow(self, head, architecture.widths, architecture.name)

    def maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps; features are their means, except where a hidden layer or a class token
        comes between (VGG, MobileNetV3, ViT).
        """
        return self.body.maps(x)

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head sees."""
        features: Tensor = self.body(x)
        return features

    def draw_tokens(self, generator: torch.Generator) -> None:
        """Give a transformer its class token and positions, normal with deviation .02 cut off at 2
        (Dosovitskiy et al. 2021's code).
        """
        if isinstance(self.body, vit.VisionTransformer):
            for tensor in (self.body.cls_token, self.body.pos_embed):
                nn.init.trunc_normal_(tensor, std=0.02, generator=generator)


def from_published(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published file under the names that a `NamedNetwork` has for them.

    >>> sorted(
    ...     from_published("resnet18", {"fc.bias": torch.zeros(1), "conv1.weight": torch.zeros(1)}),
    ... )
    ['body.conv1.weight', 'head.bias']
    """
    head = f"{known(name).head}."
    return {
        f"head.{key.removeprefix(head)}" if key.startswith(head) else f"body.{key}": tensor
        for key, tensor in tensors.items()
    }


def to_published(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `NamedNetwork` under their published names; `from_published` undoes it."""
    head = f"{known(name).head}."
    return {
        key.replace("head.", head, 1)
        if key.startswith("head.")
        else key.removeprefix("body."): tensor
        for key, tensor in tensors.items()
    }
