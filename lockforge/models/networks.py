"""Architecture -> network: the published skeletons around a cell, at any width, depth and image
size, and named networks.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

import copy
import functools
import math
from collections.abc import Mapping
from typing import TypeVar, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.errors import IntegrityError
from lockforge.models import _operation_counts as tally
from lockforge.models import _read_external as foreign
from lockforge.models._cell_blocks import CellBlock, ConvBN
from lockforge.models._named import NamedNetwork
from lockforge.models.classifier import Classifier
from lockforge.records import Architecture, NamedArchitecture, is_black_box, origin_of
from lockforge.spaces import counts, nasbench201, transnas101

__all__ = [
    "CellNetwork",
    "Classifier",
    "NamedNetwork",
    "build",
    "flops",
    "load",
    "parameters",
    "prune_dead",
    "state",
]

Net = TypeVar("Net", bound=Classifier)


class Reduction(nn.Module):
    """NAS-Bench-201's residual block between stages: halves the image, changes the channels. The
    image has h x w pixels.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_a = ConvBN(channels_in, channels_out, 3, 2)
        self.conv_b = ConvBN(channels_out, channels_out, 3, 1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """shortcut(2x2 means of x) + conv_b(relu(conv_a(relu(x)))).

        Differs: an odd last row or column is averaged over what there is, where the published block
            would not fit together.
        """
        odd = bool(x.shape[2] % 2 or x.shape[3] % 2)
        residual = self.shortcut(functional.avg_pool2d(x, 2, ceil_mode=odd))
        result: Tensor = residual + self.conv_b(functional.relu(self.conv_a(functional.relu(x))))
        return result


class Stage(nn.Module):
    """Cells one after another, behind an optional reduction."""

    def __init__(self, reduction: Reduction | None, cells: list[CellBlock]) -> None:
        super().__init__()
        if reduction is not None:
            self.reduction = reduction
        self.cells = nn.ModuleList(cells)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Reduction, then every cell."""
        for part in self.children():
            if isinstance(part, nn.ModuleList):
                for cell in part:
                    x = cell(x)
            else:
                x = part(x)
        return x


class CellNetwork(Classifier):
    """Stem, stages of equal cells, global average pooling, linear head. `architecture` says which.

    State names: `stem.0.weight`, `stages.0.cells.1.edges.2.conv.weight`,
    `stages.1.reduction.conv_a.bn.bias`, `last.weight`, `head.bias`.
    """

    architecture: Architecture

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        if architecture.space == nasbench201.NAME:
            self.stem, self.stages, width = _nasbench201(architecture)
            self.last: nn.BatchNorm2d | None = nn.BatchNorm2d(width)
        else:
            self.stem, self.stages, width = _transnas101(architecture)
            self.last = None
        self.head = nn.Linear(width, architecture.classes)

    def maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The last maps, before they are averaged over their pixels."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x if self.last is None else functional.relu(self.last(x))

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head sees: the last maps, averaged over their pixels."""
        return self.maps(x).mean((2, 3))


def _nasbench201(architecture: Architecture) -> tuple[nn.Sequential, nn.ModuleList, int]:
    width = architecture.stem_channels
    stem = nn.Sequential(
        nn.Conv2d(architecture.shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
    )
    stages = nn.ModuleList()
    for factor in nasbench201.WIDTHS:
        channels = factor * architecture.stem_channels
        reduction = Reduction(width, channels) if len(stages) else None
        cells = [
            CellBlock(architecture.cell, channels, channels, 1)
            for _ in range(architecture.cells_per_stage)
        ]
        stages.append(Stage(reduction, cells))
        width = channels
    return stem, stages, width


def _transnas101(architecture: Architecture) -> tuple[nn.Sequential, nn.ModuleList, int]:
    width = architecture.stem_channels
    half = max(1, width // 2)
    first, second = transnas101.stem_strides(architecture.shape)
    stem = nn.Sequential(
        nn.Conv2d(architecture.shape[0], half, 3, first, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, width, 3, second, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )
    stages = nn.ModuleList()
    for factor, kind in zip(transnas101.WIDTHS, transnas101.MACRO, strict=True):
        channels, stride = factor * architecture.stem_channels, 2 if kind == "4" else 1
        first_cell = CellBlock(architecture.cell, width, channels, stride)
        others = [
            CellBlock(architecture.cell, channels, channels, 1)
            for _ in range(architecture.cells_per_stage - 1)
        ]
        stages.append(Stage(None, [first_cell, *others]))
        width = channels
    return stem, stages, width


def _skeleton(architecture: Architecture | NamedArchitecture) -> Classifier:
    if isinstance(architecture, NamedArchitecture) and origin_of(architecture) != "ours":
        return foreign.make(architecture)
    with torch.device("meta"):
        return (
            NamedNetwork(architecture)
            if isinstance(architecture, NamedArchitecture)
            else CellNetwork(architecture)
        )


def parameters(architecture: Architecture | NamedArchitecture) -> int:
    """Weights of the whole network, as its publishers count them; see `counts`.

    >>> parameters(NamedArchitecture(name="resnet18", classes=1000, shape=(3, 224, 224)))
    11689512
    """
    if isinstance(architecture, Architecture):
        return counts.parameters(architecture)
    return sum(weight.numel() for weight in _skeleton(architecture).parameters())


@functools.lru_cache(maxsize=256)
def flops(architecture: Architecture | NamedArchitecture) -> int:
    """Operations of one forward pass over one image; `counts` and `tally` say what one operation
    is. A black box's are not known: 0.

    >>> flops(NamedArchitecture(name="resnet18", classes=1000, shape=(3, 224, 224)))
    1823187968
    """
    if isinstance(architecture, Architecture):
        return counts.flops(architecture)
    if is_black_box(architecture):
        return 0
    return sum(tally.operations(_skeleton(architecture).eval(), architecture.shape).values())


def _channels_last(kernel: Float[Tensor, "d c i j"]) -> Float[Tensor, "d c i j"]:
    """The same kernel with its channels side by side in memory; a convolution hands this order on
    to its output.

    With it, a step of a small network takes about two thirds of the time on a CPU. Written as
    strides, because for one channel torch takes the two orders for the same and would keep the slow
    one.
    """
    d, c, i, j = kernel.shape
    return torch.empty_strided((d, c, i, j), (c * i * j, 1, c * j, c), dtype=kernel.dtype).copy_(
        kernel
    )


def _laid_out(network: Classifier, kernel: Float[Tensor, "d c i j"]) -> Float[Tensor, "d c i j"]:
    """Channels side by side in a cell network; plain in a named one, whose 1x1 convolutions of
    stride 2 could else hit torch's fault.

    See `ops.every_second` for the fault.
    """
    return _channels_last(kernel) if isinstance(network, CellNetwork) else kernel


@overload
def build(architecture: Architecture, generator: torch.Generator) -> CellNetwork: ...
@overload
def build(architecture: NamedArchitecture, generator: torch.Generator) -> NamedNetwork: ...
@overload
def build(
    architecture: Architecture | NamedArchitecture, generator: torch.Generator
) -> Classifier: ...
def build(architecture: Architecture | NamedArchitecture, generator: torch.Generator) -> Classifier:
    """A network with fresh weights on the CPU, all drawn from `generator`; the global random state
    is not touched.

    Convolutions: normal with variance 2 / fan-in (He et al. 2015, arXiv:1502.01852, equation 10),
    bias 0. Linear layers: uniform in +-1/sqrt(d). Norms: scale 1, bias 0. Networks made elsewhere:
    the same, and their other layers by their own `reset_parameters`.
    Differs: the same rule for all named networks, where each paper has one of its own.
    """
    if isinstance(architecture, NamedArchitecture) and origin_of(architecture) != "ours":
        network: Classifier = foreign.make(architecture, generator)
    else:
        network = _skeleton(architecture).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            module.weight.data = _laid_out(network, module.weight.data)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, NamedNetwork):
            module.draw_tokens(generator)
        elif isinstance(network, foreign.ForeignNetwork):
            foreign.draw_again(module, generator)
    return network


def state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights and batch-norm statistics, on the CPU, by name."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }


@overload
def load(architecture: Architecture, tensors: Mapping[str, Tensor]) -> CellNetwork: ...
@overload
def load(architecture: NamedArchitecture, tensors: Mapping[str, Tensor]) -> NamedNetwork: ...
@overload
def load(
    architecture: Architecture | NamedArchitecture, tensors: Mapping[str, Tensor]
) -> Classifier: ...
def load(
    architecture: Architecture | NamedArchitecture, tensors: Mapping[str, Tensor]
) -> Classifier:
    """The network with these weights (copied, on the CPU), whole or as `prune_dead` leaves it.

    Raises: IntegrityError: names or shapes are not the architecture's; every difference is listed.
    """
    network = _skeleton(architecture)
    if set(tensors) != set(network.state_dict()):
        pruned = prune_dead(network)
        if set(tensors) == set(pruned.state_dict()):
            network = pruned
    wanted = network.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name} is not part of the network" for name in tensors if name not in wanted]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} where {tuple(want.shape)} is needed"
        for name, want in wanted.items()
        if name in tensors and tensors[name].shape != want.shape
    ]
    if faults:
        raise IntegrityError(
            f"these weights do not fit {architecture}",
            faults=faults[:12],
            hint="give the weights that were stored with this architecture",
        )
    copies = {
        name: tensors[name].detach().to("cpu", want.dtype, copy=True).contiguous()
        for name, want in wanted.items()
    }
    copies = {
        name: _laid_out(network, tensor) if tensor.dim() == 4 else tensor
        for name, tensor in copies.items()
    }
    network.load_state_dict(copies, assign=True)
    return network


def prune_dead(network: Net) -> Net:
    """A copy without the weights that cannot change its output; exactly the same function.

    Dropped: edges that do not reach the output, and convolutions of nodes that are always zero
    (their batch norm stays: it has a bias).
    """
    pruned = copy.deepcopy(network)
    for module in pruned.modules():
        if isinstance(module, CellBlock):
            module.drop_dead()
    return pruned
