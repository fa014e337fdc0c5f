"""Seven zero-cost proxies: scores of an untrained network from one minibatch, each oriented higher
= better.

Shapes: n images, c channels, h x w pixels, k classes, o output channels, f units. Definitions as in
NAS-Bench-Suite-Zero (Krishnakumar et al. 2022, arXiv:2210.03230), so that they can be compared with
its published tables. W: weights of a convolution or linear layer, L: mean cross-entropy, g = dL/dW,
a: a layer's output.

    fisher     sum over layers and channels of 1/2 mean_n (sum_hw a dL/da)^2, times the channel's
               weights
    flops      operations of one forward pass over one image
    grad_norm  sum over layers of |g|_2
    grasp      -sum W (H g), H the Hessian of L
    jacov      -sum (log(v + 1e-5) + 1/(v + 1e-5)), v: eigenvalues of the correlation of the images'
               input gradients
    nwot       log |det K|, K_ij: how many rectified units are on for both images or off for both
    snip       sum |W g|

Sources: Turner et al. 2020, arXiv:1906.04113; Abdelfattah et al. 2021, arXiv:2101.08134; Wang et
al. 2020, arXiv:2002.07376; Mellor et al. 2020, arXiv:2006.04647, version 1 (jacov) and last (nwot);
Lee et al. 2019, arXiv:1810.02340.

All seven share one forward pass, one backward pass for the input gradients, one for the loss and
one through it for H g. Batch norm uses the minibatch's statistics, dropout is left out. A proxy
that cannot be said (not finite, a singular K, no gradient) is None: missing, never a number.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lockforge.models.networks import CellNetwork, flops
from lockforge.search._curvature import IN_PLACE, RECTIFIERS, batch_norm, bounds, held

PROXIES: tuple[str, ...] = ("fisher", "flops", "grad_norm", "grasp", "jacov", "nwot", "snip")
_DROPOUT = frozenset(
    {
        functional.dropout,
        functional.dropout1d,
        functional.dropout2d,
        functional.dropout3d,
        functional.alpha_dropout,
    }
    | {functional.feature_alpha_dropout}
)
_FLOOR = 1e-5  # of the eigenvalues, as published
_STEP = 3e-6  # of grasp's difference, as a share of the length of the weights

Layer = nn.Conv2d | nn.Linear
Scores = Mapping[str, float | None]


@dataclass
class _Seen:
    """What one forward pass left behind; `limits[i]` bound what `rectified[i]` passed, `uses[i]`
    counts the convolutions that read it.
    """

    layers: list[tuple[Layer, Tensor]] = field(default_factory=list)
    rectified: list[Tensor] = field(default_factory=list)
    limits: list[tuple[float, float]] = field(default_factory=list)
    uses: list[int] = field(default_factory=list)


class _Watch(TorchFunctionMode):
    """Keep what every ReLU gives, or hold it as it was before; batch norm that is quick to
    differentiate twice; no dropout.
    """

    def __init__(self, seen: _Seen, before: _Seen | None) -> None:
        super().__init__()
        self.seen = seen
        self.before = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call through, but for the three."""
        kwargs = kwargs or {}
        if func in RECTIFIERS:
            return self._rectify(func, args, kwargs)
        if func is functional.batch_norm:
            return _normalise(*args, **kwargs)
        return args[0] if func in _DROPOUT else func(*args, **kwargs)

    def _rectify(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        at, limits = len(self.seen.rectified), bounds(func, args, kwargs)
        if self.before is None:
            own = args[
                : 3 if func is functional.hardtanh else 1
            ]  # never in place: a layer's output is looked at again
            result: Tensor = func(
                *own, **{name: value for name, value in kwargs.items() if name != "inplace"}
            )
        else:
            result = held(
                args[0].clone() if func in IN_PLACE else args[0],
                self.before.rectified[at].detach(),
                *limits,
            )
            result = args[0].copy_(result) if func in IN_PLACE else result
        self.seen.rectified.append(result)
        self.seen.limits.append(limits)
        self.seen.uses.append(0)
        return result


def _normalise(
    x: Tensor,
    mean: Any,
    variance: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """In the place of `functional.batch_norm`."""
    return (
        batch_norm(x, weight, bias, eps)
        if training
        else functional.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)
    )


@contextmanager
def _watching(network: nn.Module, before: _Seen | None = None) -> Iterator[_Seen]:
    """Train mode with batch statistics, rectifiers as they were `before`; afterwards mode and
    buffers are as before.
    """
    seen = _Seen()
    modes = {module: module.training for module in network.modules()}
    buffers = [
        (module, name, buffer)
        for module in modes
        for name, buffer in module.named_buffers(recurse=False)
    ]

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.layers.append((module, output))  # type: ignore[arg-type]  # hooked on layers only
        if isinstance(module, nn.Conv2d):
            for at, tensor in enumerate(seen.rectified):
                seen.uses[at] += tensor is inputs[0]

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        network.train()
        for module, name, buffer in buffers:
            setattr(
                module, name, buffer.clone()
            )  # the pass changes the copy; autograd keeps it, so it cannot be changed back in place
        with _Watch(seen, before):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


def score_network(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    grasp: Literal["exact", "difference"] = "exact",
) -> dict[str, float | None]:
    """All seven proxies of one network on one minibatch; the network is left as it was.

    Args: images: normalised, at least two. labels: class indices. grasp: H g by differentiating
        twice, or by a difference of gradients, faster, and close enough to order networks; see
        `_by_difference`.
    Returns: a number for each of `PROXIES`, None where it is missing.
    """
    if len(images) < 2:
        raise ValueError(f"a proxy compares images: give at least 2, not {len(images)}")
    x = images.detach().to(torch.float32).requires_grad_()
    with torch.enable_grad(), _unfrozen(network):
        with _watching(network) as seen:
            logits = network(x)
        (jacobian,) = torch.autograd.grad(logits.sum(), x, retain_graph=True, allow_unused=True)
        weights = list({id(layer): layer.weight for layer, _ in seen.layers}.values())
        outputs = [output for _, output in seen.layers]
        loss = functional.cross_entropy(logits, labels)
        found = (
            torch.autograd.grad(
                loss, [*weights, *outputs], create_graph=grasp == "exact", allow_unused=True
            )
            if weights
            else ()
        )
        gradients, slopes = found[: len(weights)], found[len(weights) :]
        if grasp == "exact":
            curved = _exactly(weights, gradients)
        else:
            curved = _by_difference(
                network, x, labels, seen, dict(zip(weights, gradients, strict=True))
            )
    with torch.no_grad():
        scores = {
            "fisher": _total(
                _channel_saliency(layer, output, slope)
                for (layer, output), slope in zip(seen.layers, slopes, strict=True)
            ),
            "flops": float(operations(network, seen.layers)),
            "grad_norm": _total(None if g is None else g.norm() for g in gradients),
            "grasp": None if curved is None else -curved,
            "jacov": None if jacobian is None else jacobian_score(jacobian.flatten(1)),
            "nwot": overlap_score(
                [r.flatten(1) > 0 for r in seen.rectified], [max(1, uses) for uses in seen.uses]
            ),
            "snip": _total(
                None if g is None else (w * g).abs().sum()
                for w, g in zip(weights, gradients, strict=True)
            ),
        }
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in scores.items()
    }


@contextmanager
def _unfrozen(network: nn.Module) -> Iterator[None]:
    """Every parameter takes part; afterwards the frozen ones are frozen again."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_()
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad = False


def _exactly(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> float | None:
    """W (H g), where H g is the gradient of g . stop(g)."""
    length = sum((g * g.detach()).sum() for g in gradients if g is not None)
    if not isinstance(length, Tensor) or not length.requires_grad:
        return None
    curved = torch.autograd.grad(length, list(weights), allow_unused=True)
    return _total(
        None if h is None else (w.detach() * h).sum() for w, h in zip(weights, curved, strict=True)
    )


def _by_difference(
    network: nn.Module,
    x: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    seen: _Seen,
    gradients: Mapping[Tensor, Tensor | None],
) -> float | None:
    """W (H g) from one more pass, at W + t g.

    For s(t) = V . dL/dV at V = W + t g: s'(0) = W (H g) + g . g, and s(t) is the sum over layers of
    output times its slope, so that no gradient of a weight is needed. Rectifiers are held as they
    were: H knows no kinks. t |g| = 3e-6 |W|.
    """
    moved = {w: g for w, g in gradients.items() if g is not None}
    square = _summed(_dot(g, g) for g in moved.values())
    if not 0 < square < math.inf:
        return None
    step = _STEP * math.sqrt(_summed(_dot(w.detach(), w.detach()) for w in moved) / square)
    there = {
        name: w.detach() + step * moved[w]
        for name, w in network.named_parameters(remove_duplicate=False)
        if w in moved
    }
    with _watching(network, seen) as again:
        loss = functional.cross_entropy(torch.func.functional_call(network, there, (x,)), labels)
    slopes = torch.autograd.grad(loss, [output for _, output in again.layers], allow_unused=True)
    after = _summed(
        _pull(layer, output, slope)
        for (layer, output), slope in zip(again.layers, slopes, strict=True)
        if slope is not None
    )
    return (after - _summed(_dot(w.detach(), g) for w, g in moved.items())) / step - square


def _summed(parts: Iterable[Tensor]) -> float:
    """Of numbers that are read from the device together."""
    there = list(parts)
    return math.fsum(torch.stack(there).tolist()) if there else 0.0


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, ""]:
    return (a * b).sum(dtype=torch.float64)


def _pull(
    layer: Layer, output: Float[Tensor, "n o ..."], slope: Float[Tensor, "n o ..."]
) -> Float[Tensor, ""]:
    """W . dL/dW of one layer, from its output without its bias."""
    total = _dot(output.detach(), slope)
    if layer.bias is None:
        return total
    return total - _dot(layer.bias.detach(), slope.sum([0, *range(2, slope.dim())]))


def _total(parts: Any) -> float | None:
    """The sum over layers; None when there is no layer with a gradient. They are read from the
    device once, not one by one.
    """
    there = [part for part in parts if part is not None]
    numbers: list[float] = torch.stack(there).tolist() if there else []
    return math.fsum(numbers) if numbers and all(map(math.isfinite, numbers)) else None


def _channel_saliency(
    layer: Layer, output: Float[Tensor, "n o ..."], slope: Tensor | None
) -> Tensor | None:
    if slope is None:
        return None
    moved = (output * slope).flatten(2).sum(2) if output.dim() > 2 else output * slope
    return moved.square().mean(0).sum() / 2 * layer.weight[0].numel()


def operations(network: nn.Module, layers: Sequence[tuple[Layer, Tensor]]) -> int:
    """Operations of one forward pass over one image: as the tables count them for a cell, else
    the layers' multiply-adds.
    """
    if isinstance(network, CellNetwork):
        return flops(network.architecture)
    return sum(
        layer.weight.numel() * (output[0, 0].numel() if output.dim() == 4 else 1)
        for layer, output in layers
    )


def jacobian_score(jacobian: Float[Tensor, "n f"]) -> float | None:
    """Jacov of the images' input gradients; None where one of them does not vary.

    Differs: the common public code adds up the input gradients of one network after another; here
        they are of one network alone.

    >>> round(jacobian_score(torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])), 3)
    -2.0
    """
    rows = jacobian.double()
    rows -= rows.mean(1, keepdim=True)
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(lengths).all()) or float(lengths.min()) == 0:
        return None
    rows /= lengths
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + _FLOOR
    return -float((values.log() + 1 / values).sum())


def overlap_score(codes: Sequence[Bool[Tensor, "n f"]], weights: Sequence[int]) -> float | None:
    """nwot: log |det K|, K = sum over rectifiers of weight (c c' + (1 - c)(1 - c)'); None where K
    is singular.

    Args: codes: which units are on. weights: how many convolutions read this rectifier; the
        benchmarks' cells have a ReLU in every convolution, ours share one, and this gives both the
        same K.

    >>> round(
    ...     overlap_score([torch.tensor([[True, True, False], [True, False, False]])], [1]),
    ...     3,
    ... )  # log(3 * 3 - 2 * 2)
    1.609
    """
    if not codes:
        return None
    n = len(codes[0])
    kernel = torch.zeros(n, n, dtype=torch.float64)
    for code, weight in zip(codes, weights, strict=True):
        on = code.to(torch.float32)
        counts = on.sum(1)
        both = 2 * (on @ on.T) + code.shape[1] - counts[:, None] - counts[None, :]
        kernel += weight * both.double().cpu()
    sign, value = torch.linalg.slogdet(kernel)
    return float(value) if float(sign) != 0 else None


def preference(a: Scores, b: Scores) -> int:
    """How many more proxies prefer a than b: the paper's vote. A proxy that is tied or missing on
    either side prefers neither.

    >>> preference(
    ...     {"snip": 2.0, "nwot": 1.0, "jacov": None},
    ...     {"snip": 1.0, "nwot": 1.0, "jacov": -3.0},
    ... )
    1
    """
    vote = 0
    for name, left in a.items():
        right = b.get(name)
        if left is not None and right is not None:
            vote += (left > right) - (left < right)
    return vote
