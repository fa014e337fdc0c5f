"""The seven proxies of a NAS-Bench-201 cell: the shared engine against one proxy after another,
published skeleton, batch 64, 32 px.

One after another means as they are published: each with its own forward pass and its own backward
passes, grasp with two forward passes and torch's own double backward. They take gradients only of
what they need, which is kinder than the public code. Each repeat is another random cell, which all
ways see in turn; the answers that are timed are compared: all but grasp by a difference must agree.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from lockforge.models._cell_blocks import ConvBN
from lockforge.models.networks import CellNetwork, build, flops
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.records import Cell
from lockforge.search._proxies import jacobian_score, score_network
from lockforge.search.tasks import draw_cells
from lockforge.spaces import nasbench201
from tests.benchmarks.line import arguments, by_turns, write_line

BATCH, SIDE, CLASSES = 64, 32, 10
TOLERANCE = 1e-4  # of a proxy; of grasp, whose terms nearly cancel, of the largest layer's share


def layers_of(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Everything with weights that count."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def loss_and_gradients(
    network: nn.Module, x: Tensor, y: Tensor, *, again: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """One forward and one backward pass; weights that the loss depends on, and their gradients."""
    weights = [layer.weight for layer in layers_of(network)]
    found = torch.autograd.grad(
        functional.cross_entropy(network(x), y), weights, create_graph=again, allow_unused=True
    )
    return [(w, g) for w, g in zip(weights, found, strict=True) if g is not None]


def fisher(network: CellNetwork, x: Tensor, y: Tensor) -> float:
    """Its own pass, with the layers' outputs kept by hooks."""
    kept: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda module, _, output: kept.append((module, output)))
        for layer in layers_of(network)
    ]
    loss = functional.cross_entropy(network(x), y)
    for hook in hooks:
        hook.remove()
    slopes = torch.autograd.grad(loss, [output for _, output in kept])
    with torch.no_grad():
        shares = []
        for (layer, output), slope in zip(kept, slopes, strict=True):
            moved = output * slope
            moved = moved.sum((2, 3)) if moved.dim() == 4 else moved
            shares.append(float(moved.square().mean(0).sum()) / 2 * layer.weight[0].numel())  # type: ignore[index,union-attr,operator]
    return math.fsum(shares)


def operations(network: CellNetwork, x: Tensor, _: Tensor) -> float:
    """A pass over one image, as the counters do; the count is the closed form."""
    with torch.no_grad():
        network(x[:2])
    return float(flops(network.architecture))


def grad_norm(network: CellNetwork, x: Tensor, y: Tensor) -> float:
    """Its own pass."""
    return math.fsum(float(g.norm()) for _, g in loss_and_gradients(network, x, y))


def grasp_by_layers(network: CellNetwork, x: Tensor, y: Tensor) -> list[float]:
    """A pass for g, another for the gradient that is differentiated again."""
    stopped = [g for _, g in loss_and_gradients(network, x, y)]
    pairs = loss_and_gradients(network, x, y, again=True)
    length = sum((g * stop).sum() for (_, g), stop in zip(pairs, stopped, strict=True))
    # a sum of tensors
    curved = torch.autograd.grad(length, [w for w, _ in pairs])  # type: ignore[arg-type]
    return [-float((w.detach() * h).sum()) for (w, _), h in zip(pairs, curved, strict=True)]


def jacov(network: CellNetwork, x: Tensor, _: Tensor) -> float:
    """Its own pass for the gradients of the images."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x)
    return jacobian_score(slope.flatten(1)) or math.nan


def nwot(network: CellNetwork, x: Tensor, _: Tensor) -> float:
    """Its own pass; every reader of a rectifier adds to the kernel."""
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)

    def add(rectified: Tensor) -> None:
        on = (rectified > 0).float().flatten(1)
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: add(inputs[0]))
        for module in network.modules()
        if isinstance(module, ConvBN)
    ]
    hooks.append(
        network.get_submodule("last").register_forward_hook(
            lambda _module, _inputs, output: add(output)
        )
    )
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return float(torch.linalg.slogdet(kernel)[1])


def snip(network: CellNetwork, x: Tensor, y: Tensor) -> float:
    """Its own pass."""
    return math.fsum(
        float((w.detach() * g).abs().sum()) for w, g in loss_and_gradients(network, x, y)
    )


ALONE: dict[str, Callable[[CellNetwork, Tensor, Tensor], float]] = {
    "fisher": fisher,
    "flops": operations,
    "grad_norm": grad_norm,
    "jacov": jacov,
    "nwot": nwot,
    "snip": snip,
}


def one_after_another(network: CellNetwork, x: Tensor, y: Tensor) -> tuple[dict[str, float], float]:
    """Seven scores, and the largest share of a layer in grasp."""
    network.train()
    by_layers = grasp_by_layers(network, x, y)
    return {name: way(network, x, y) for name, way in ALONE.items()} | {
        "grasp": math.fsum(by_layers)
    }, max(map(abs, by_layers))


def differences(
    alone: dict[str, float], largest: float, ours: dict[str, float | None]
) -> dict[str, float]:
    """Relative, by proxy; infinite where ours is missing."""
    scale = {name: abs(value) for name, value in alone.items()} | {"grasp": largest}
    found = {name: ours[name] for name in alone}
    return {
        name: math.inf if (value := found[name]) is None else abs(value - alone[name]) / scale[name]
        for name in alone
    }


def time_cell(
    cell: Cell, x: Tensor, y: Tensor, device: str
) -> tuple[dict[str, float], float, tuple[float, float]]:
    """Seconds of the three ways, the largest relative difference of their answers, grasp exact and
    by a difference.
    """
    architecture = nasbench201.published(CLASSES, (3, SIDE, SIDE), cell)
    network = build(architecture, torch_generator(0, "benchmark", "proxies", str(cell))).to(device)
    alone: list[tuple[dict[str, float], float]] = []
    scored: list[dict[str, float | None]] = []
    ways: dict[str, Callable[[], object]] = {
        "alone_s": lambda: alone.append(one_after_another(network, x, y)),
        "engine_s": lambda: scored.append(score_network(network, x, y)),
        "engine_difference_s": lambda: scored.append(
            score_network(network, x, y, grasp="difference")
        ),
    }
    seconds = by_turns(ways, 1, device)
    exact, difference = scored
    off = differences(*alone[0], exact)
    if max(off.values()) > TOLERANCE:
        raise SystemExit(f"{cell}: the answers differ: {off}")
    return seconds, max(off.values()), (exact["grasp"] or math.nan, difference["grasp"] or math.nan)


def main() -> None:
    """Time cell after cell, compare, print the line."""
    given = arguments(__doc__, repeats=11)
    cells = draw_cells(
        nasbench201.NAME, given.repeats + 1, (), numpy_generator(0, "benchmark", "proxies")
    )
    generator = torch_generator(0, "benchmark", "proxies")
    x = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator).to(given.device)
    y = torch.randint(CLASSES, (BATCH,), generator=generator).to(given.device)
    found = [time_cell(cell, x, y, given.device) for cell in cells][1:]  # the first cell warms up
    timed = [seconds for seconds, _, _ in found]
    figures = {way: float(np.median([seconds[way] for seconds in timed])) for way in timed[0]}
    for name in ("engine", "engine_difference"):
        figures[f"{name}_speedup"] = float(
            np.median([seconds["alone_s"] / seconds[f"{name}_s"] for seconds in timed])
        )
    figures["largest_relative_difference"] = max(off for _, off, _ in found)
    figures["spearman_of_difference"] = float(
        spearmanr(*zip(*(pair for _, _, pair in found), strict=True)).statistic
    )
    write_line("proxies", given, {"batch": BATCH, "side": SIDE, **figures})


if __name__ == "__main__":
    main()
