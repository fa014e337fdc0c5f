"""Parameters and operations of a named network, counted while no image passes through it; the
convention is that of `counts`.

One operation is one of: a multiply-add of a convolution, a linear layer or an attention; an
activation of one value; half a normalisation of one value (it counts 2); one value under the window
of a pooling. A mean over all pixels counts (h + 1)(w + 1) a channel, as in `counts`. Biases,
additions, products of two maps and copies count nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset(
    {
        "relu",
        "relu6",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "gelu",
        "silu",
        "elu",
        "leaky_relu",
        "sigmoid",
        "tanh",
    }
)
NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})


class Tally(TorchFunctionMode):
    """Counts what torch is asked to do, by kind, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do it, and count it."""
        given = dict(kwargs or {})
        result = func(*args, **given)
        name = getattr(func, "__name__", "")
        if isinstance(result, Tensor):
            kind = "norms" if name in NORMS else "activations" if name in ACTIVATIONS else name
            self.operations[kind] += _count(kind, args, given, result)
        return result


def _count(kind: str, args: tuple[Any, ...], given: Mapping[str, Any], result: Tensor) -> int:
    each = 0  # operations for each value of the result
    match kind:
        case "conv2d":
            each = _second(args, given, "weight")[0].numel()
        case "linear":
            each = _second(args, given, "weight").shape[1]
        case "scaled_dot_product_attention":  # q k^T, the softmax over the keys, and the sum of v
            d, keys = args[0].shape[-1], args[1].shape[-2]
            return int(result.numel() // d * keys * (2 * d + 1))
        case "norms":
            each = 2
        case "activations":
            each = 1
        case "max_pool2d" | "avg_pool2d":
            window = _second(args, given, "kernel_size")
            each = window**2 if isinstance(window, int) else math.prod(window)
        case "adaptive_avg_pool2d":
            return max(result.numel(), int(args[0].numel()))
        case "mean" if _second(args, given, "dim") in ((2, 3), [2, 3]):
            n, c, h, w = args[0].shape
            return int(n * c * (h + 1) * (w + 1))
    return each * result.numel()


def _second(args: tuple[Any, ...], given: Mapping[str, Any], name: str) -> Any:
    """The second argument of a call, by its place or its name; None where there is none."""
    return args[1] if len(args) > 1 else given.get(name)


def operations(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """What one forward pass over one image of (c, h, w) takes, by kind; the network is in eval
    mode, best on the meta device.
    """
    device = next(network.parameters()).device
    with torch.no_grad(), Tally() as tally:
        network(torch.zeros(1, *shape, device=device))
    return {kind: count for kind, count in tally.operations.items() if count}
