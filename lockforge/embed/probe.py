"""The probe: a small residual network that ships with the package and looks at every task the same
way.

Shapes: n images, c channels, h x w pixels, d features. Images arrive as 8-bit numbers of any
size, grey or colour; `see` brings them to the probe's own input. Batch norm is always in eval mode
and the weights are frozen: a task only trains a linear head on the features.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files as package_files
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from lockforge.errors import IntegrityError, RecipeError
from lockforge.files import Files
from lockforge.models.backbones import load_backbone, load_strictly
from lockforge.recipe import EmbedRecipe
from lockforge.records import FileRef

WIDTHS = (24, 32, 64, 160)
SIDE = 32
BACKBONE_SIDE = 96  # pixels; under a fifth of the cost of 224
PACKAGED = "probe.safetensors"


class ResidualBlock(nn.Module):
    """Halve the side: two 3x3 convolutions beside a mean-pooled shortcut; new channels start at
    zero (He et al. 2016, option A).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.added = outputs - inputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h2 w2"]:
        """Half the side, more channels."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = nn.functional.pad(nn.functional.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.added))
        return torch.relu(inner + shortcut)


class ProbeNetwork(nn.Module):
    """A stem and three residual blocks, 32 -> 16 -> 8 -> 4 pixels; 0.4 million weights and 13
    million multiply-adds an image.
    """

    def __init__(self, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the layers' own first draws are thrown away
            self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
            self.stem_bn = nn.BatchNorm2d(WIDTHS[0])
            self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(WIDTHS)))
            self.head = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
        nn.init.normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)

    def pooled(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """160 features an image."""
        return self.blocks(torch.relu(self.stem_bn(self.stem(images)))).mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Scores of the classes it was trained on."""
        return self.head(self.pooled(images))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Probe:
    """A frozen network, what it wants to see, and the hash of the file its weights came from."""

    name: str
    digest: str
    network: nn.Module
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def see(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 3 side side"]:
        """8-bit images as this probe's input: grey repeated to three channels, resized (bilinear,
        antialiased), fixed normalisation.
        """
        x = images.to(torch.float32) / 255
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.side, self.side):
            x = nn.functional.interpolate(
                x, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
            )
        mean, std = (
            torch.tensor(values, device=x.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        return (x - mean) / std

    def features(
        self, images: UInt8[Tensor, "n c h w"], batch_size: int = 256
    ) -> Float[Tensor, "n d"]:
        """Features of 8-bit images, without gradients."""
        with torch.no_grad():
            return torch.cat(
                [
                    self.network.pooled(self.see(part))  # type: ignore[operator]
                    for part in torch.split(images, batch_size)
                ]
            )


def load_probe(
    recipe: EmbedRecipe, weights: FileRef | None, files: Files, device: str = "cpu"
) -> Probe:
    """The probe a recipe names: the packaged one, or a local backbone's safetensors file.

    Raises: RecipeError: a backbone without weights, or weights without a backbone. IntegrityError:
        tensors that do not fit the network.
    """
    if (recipe.probe == "packaged") != (weights is None):
        given = "a weights file was given" if weights else "no weights file was given"
        raise RecipeError(
            f"embed.probe is {recipe.probe!r}, but {given}",
            hint="`packaged` brings its own weights; mobilenet_v2, resnet18, resnet34 and "
            "resnet50 need a safetensors file",
        )
    if weights is None:
        data = package_files("lockforge.embed").joinpath(PACKAGED).read_bytes()
        return _packaged(data, device)
    try:
        tensors = files.get_tensors(weights)
    except SafetensorError as error:
        raise IntegrityError(
            f"the weights of embed.probe {recipe.probe!r} are no safetensors file: {error}",
            hint="convert them to safetensors",
        ) from error
    network = load_backbone(recipe.probe, tensors)
    return Probe(
        recipe.probe,
        weights.sha256,
        _frozen(network, device),
        BACKBONE_SIDE,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _packaged(data: bytes, device: str) -> Probe:
    from safetensors.torch import load

    network = ProbeNetwork(2, torch.Generator().manual_seed(0))
    network.head = nn.Identity()  # type: ignore[assignment]  # a task brings its own
    load_strictly(network, load(data), PACKAGED)
    return Probe(
        "packaged",
        hashlib.sha256(data).hexdigest(),
        _frozen(network, device),
        SIDE,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


def _frozen(network: nn.Module, device: str) -> nn.Module:
    return network.eval().requires_grad_(requires_grad=False).to(device)
