"""The building blocks of a cell network: convolution + batch norm, factorised reduction, and the
cell itself.

Shapes: n images, c channels in, d channels out, h x w pixels. The ReLU that the benchmarks put
before each convolution is applied once to a node and shared by its outgoing edges; the modules
below therefore take inputs that have been through it already.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.records import Cell, Op
from lockforge.spaces.cells import NODES, plan

KERNELS = {Op.conv1x1: 1, Op.conv3x3: 3}


def every_second(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
    """The pixels with even row and even column: what a 1x1 convolution of stride 2 reads.

    Differs: the benchmarks give that convolution the stride. In torch 2.13 its backward pass writes
    outside its memory on a CPU when channels lie side by side and are few; picking the pixels first
    is the same function.
    """
    return functional.avg_pool2d(x, 1, 2)


class ConvBN(nn.Module):
    """Convolution without bias, then batch norm; `same` padding, the input has been through a
    ReLU.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.picks = kernel == 1 and stride == 2
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            1 if self.picks else stride,
            padding=kernel // 2,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, rectified: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """bn(conv(x))."""
        result: Tensor = self.bn(self.conv(every_second(rectified) if self.picks else rectified))
        return result


class FactorizedReduce(nn.Module):
    """Skip connection that changes size: two 1x1 convolutions of stride 2, one shifted by a pixel,
    side by side; then batch norm.

    TransNAS-Bench-101 uses it for `skip` in the first cell of a module of kind 4. The input has
    been through a ReLU.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half = channels_out // 2
        self.convs = nn.ModuleList(
            nn.Conv2d(channels_in, width, 1, bias=False) for width in (half, channels_out - half)
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, rectified: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """bn(concat(conv0(x), conv1(x shifted by one pixel, zeros coming in)))."""
        shifted = functional.pad(rectified, (0, 1, 0, 1))[:, :, 1:, 1:]
        result: Tensor = self.bn(
            torch.cat(
                [self.convs[0](every_second(rectified)), self.convs[1](every_second(shifted))],
                dim=1,
            )
        )
        return result


class CellBlock(nn.Module):
    """One cell: four nodes, each the sum of its incoming edges. Edges with weights are in `edges`,
    named by their index in `EDGES`.

    All edges with weights exist, as in the benchmarks, but only those of `plan(cell)` are computed:
    the output is exactly the same. Weights of the others never receive a gradient. A convolution of
    an all-zero node is its batch norm of zeros.
    """

    def __init__(self, cell: Cell, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.channels = channels_out
        self.plan = plan(cell)
        self.edges = nn.ModuleDict()
        for index, op in enumerate(cell.ops):
            from_input = index in {0, 1, 3}
            width, step = (channels_in, stride) if from_input else (channels_out, 1)
            if op in KERNELS:
                self.edges[str(index)] = ConvBN(width, channels_out, KERNELS[op], step)
            elif op == Op.skip and (step, width) != (1, channels_out):
                self.edges[str(index)] = FactorizedReduce(width, channels_out)

    def zeros(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """A node without inputs, in the size of this cell's output."""
        n, _, h, w = x.shape
        return x.new_zeros(n, self.channels, (h - 1) // self.stride + 1, (w - 1) // self.stride + 1)

    def drop_dead(self) -> None:
        """Remove the weights that cannot change the output."""
        steps = {str(step.edge): step for steps in self.plan for step in steps}
        for name, edge in list(self.edges.items()):
            if name not in steps:
                del self.edges[name]
            elif steps[name].of_zeros:
                del edge.conv

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The value of the last node."""
        edges = self.edges
        nodes: list[Tensor | None] = [x, None, None, None]
        rectified: list[Tensor | None] = [None] * NODES
        pooled: list[Tensor | None] = [None] * NODES
        for node, steps in enumerate(self.plan, start=1):
            total: Tensor | None = None
            for index, source, op, _ in steps:
                name = str(index)
                value = nodes[source]
                if value is None:
                    # only a ConvBN is planned behind a zero node
                    term = edges[name].bn(self.zeros(x))  # type: ignore[operator]
                elif name in edges:
                    hot = rectified[source]
                    if hot is None:
                        hot = rectified[source] = functional.relu(value)
                    term = edges[name](hot)
                elif op == Op.skip:
                    term = value
                else:
                    mean = pooled[source]
                    if mean is None:
                        mean = pooled[source] = functional.avg_pool2d(
                            value, 3, 1, 1, count_include_pad=False
                        )
                    term = mean
                total = term if total is None else total + term
            nodes[node] = total
        last = nodes[-1]
        return self.zeros(x) if last is None else last
