"""Published image networks with the parameter names torchvision gives them, so that ordinary
safetensors files load.

MobileNetV2 1.0 (Sandler et al. 2018, arXiv:1801.04381, table 2) and ResNet-18/34/50 (He et al.
2016, arXiv:1512.03385, table 1).
Differs: a bottleneck's stride sits on its 3x3 convolution, not on the 1x1 before it, as in the
published weight files. No dropout under MobileNetV2's head: torch draws it from the global random
state, and a run could not be repeated. `small` networks, for images of 28 to 64 pixels, leave out
the first two halvings: a 3x3 stem of stride 1 and no pooling behind it, or strides of 1.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.errors import IntegrityError

BackboneName = Literal["mobilenet_v2", "resnet18", "resnet34", "resnet50"]
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # expansion, channels, blocks, stride
RESNETS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}


def _conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=False))


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow without a nonlinearity; added to the input where
    shapes agree.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [_conv_bn_relu6(inputs, hidden, 1)] if expansion != 1 else []
        depthwise = _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden)
        self.conv = nn.Sequential(
            *widen, depthwise, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h2 w2"]:
        """One block."""
        inner: Tensor = self.conv(x)
        return x + inner if self.shortcut else inner


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0: 3.5 million weights with 1,000 classes, 1,280 features."""

    def __init__(self, classes: int, *, channels: int = 3, small: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(channels, 32, 3, stride=1 if small else 2)]
        width = 32
        for stage, (expansion, outputs, blocks, stride) in enumerate(INVERTED):
            for block in range(blocks):
                step = 1 if block or (small and stage == 1) else stride
                layers.append(InvertedResidual(width, outputs, stride=step, expansion=expansion))
                width = outputs
        layers.append(_conv_bn_relu6(width, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, classes))

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps, before they are averaged over their pixels."""
        return self.features(images)  # type: ignore[no-any-return]

    def pooled(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The 1,280 features under the head."""
        return self.maps(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.classifier(self.pooled(images))  # type: ignore[no-any-return]


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h2 w2"]:
        """One block."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; four times wider at the end."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e h2 w2"]:
        """One block."""
        inner = torch.relu(self.bn1(self.conv1(x)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet-18 or -34 (basic blocks, 512 features) or ResNet-50 (bottlenecks, 2,048 features)."""

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        block: type[BasicBlock] | type[Bottleneck],
        classes: int,
        *,
        channels: int = 3,
        small: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, count in enumerate(blocks):
            rows: list[nn.Module] = []
            for index in range(count):
                rows.append(block(inputs, 64 * 2**stage, 2 if stage and index == 0 else 1))
                inputs = 64 * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*rows))
        self.fc = nn.Linear(inputs, classes)

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps, before they are averaged over their pixels."""
        x: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for stage in range(4):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x

    def pooled(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The features under the head."""
        return self.maps(images).mean((2, 3))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.fc(self.pooled(images))  # type: ignore[no-any-return]


Backbone = MobileNetV2 | ResNet
HEADS = {
    "mobilenet_v2": "classifier.1.weight",
    "resnet18": "fc.weight",
    "resnet34": "fc.weight",
    "resnet50": "fc.weight",
}


def new_backbone(name: str, classes: int, *, channels: int = 3, small: bool = False) -> Backbone:
    """The network without weights; it is made on the meta device, so nothing is drawn and nothing
    is held.

    Args: channels: of the images. small: for images of 28 to 64 pixels, see above.
    Raises: ValueError: no such backbone.
    """
    with torch.device("meta"):
        if name == "mobilenet_v2":
            return MobileNetV2(classes, channels=channels, small=small)
        if name in RESNETS:
            block = Bottleneck if name == "resnet50" else BasicBlock
            return ResNet(RESNETS[name], block, classes, channels=channels, small=small)
    raise ValueError(f"no backbone {name!r}: know {', '.join(HEADS)}")


def load_backbone(name: str, tensors: Mapping[str, Tensor]) -> Backbone:
    """A backbone with the given weights, in eval mode; the number of classes is read off its last
    layer.

    Args: name: one of `HEADS`. tensors: torchvision's names; half precision becomes single;
        `num_batches_tracked` may be left out.
    Raises: IntegrityError: a tensor is missing, unknown, or of another shape; all are listed.
    """
    head = tensors.get(HEADS[name])
    if head is None or head.ndim != 2:
        raise IntegrityError(
            f"these are no {name} weights: {HEADS[name]} is missing",
            hint="use torchvision's parameter names",
        )
    network = new_backbone(name, head.shape[0]).to_empty(device="cpu")
    load_strictly(network, tensors, name)
    return network.eval()


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors into a network: every name, every shape; half precision becomes single, counters
    of batches may be left out.

    Raises: IntegrityError: a name is missing or unknown, a shape differs, or a number is not
        finite; the first twenty are listed.
    """
    wanted = network.state_dict()
    given = with_counters(tensors, wanted)
    faults = misfits(given, wanted)
    faults += [
        f"{name}: not all finite"
        for name in sorted(wanted.keys() & given.keys())
        if not finite(given[name])
    ]
    if faults:
        raise IntegrityError(
            f"these tensors are no {what}",
            faults=faults[:20],
            hint="give the safetensors file of this very network",
        )
    network.load_state_dict(
        {name: tensor.to(wanted[name].dtype) for name, tensor in given.items()}, strict=True
    )


def with_counters(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and a zero for each of a batch norm's counters of batches that is wanted and was
    left out.
    """
    return {
        name: torch.zeros((), dtype=torch.long)
        for name in wanted
        if name.endswith(".num_batches_tracked")
    } | dict(tensors)


def misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """A line for every name that is missing or unknown and for every other shape; only names and
    shapes are looked at.
    """
    faults = [f"{name}: missing" for name in sorted(wanted.keys() - given.keys())]
    faults += [f"{name}: unknown" for name in sorted(given.keys() - wanted.keys())]
    return faults + [
        f"{name}: shape {tuple(given[name].shape)} where {tuple(wanted[name].shape)} is needed"
        for name in sorted(wanted.keys() & given.keys())
        if given[name].shape != wanted[name].shape
    ]


def finite(tensor: Tensor) -> bool:
    """Whether no number of the tensor is infinite or NaN."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
