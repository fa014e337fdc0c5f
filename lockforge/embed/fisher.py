r"""Diagonal Fisher information of a probe's convolutions and linear layers (Achille et al. 2019,
Task2Vec, arXiv:1902.03545, section 2).

    F_w = E_x E_{y ~ p(y|x)} [ (d log p(y|x) / d w)^2 ],

then the mean of F_w over the weights of each filter.

Per sample: gradients are squared before anything is averaged, and batch norm is in eval mode, so
one image does not feel the others.

With J = d logits / d w (k x w), p = softmax(logits) and e_y a unit vector, d log p(y) / d w = J^T
(e_y - p), hence F_w = diag(J^T H J) with H = sum_y p_y (e_y - p)(e_y - p)^T. Any directions
v_1..v_r with sum_j v_j v_j^T = H, or that in expectation, give the same F as sum_j (J^T v_j)^2: up
to `DIRECTIONS` classes we take v_y = sqrt(p_y) (e_y - p), which is the sum over y itself; above
that r = `DIRECTIONS` times v = sum_y s_y sqrt(p_y) (e_y - p) / sqrt(r) with random signs s, whose v
v^T sum to H in expectation.

Differs: Task2Vec draws y from p(y|x); a confident probe then almost never draws the rare y that
carry nearly all of F. The directions above estimate the same quantity with far less noise (none at
all up to `DIRECTIONS` classes).

Shapes: n images, c channels, h x w pixels, k classes, r directions, d embedding entries;
a layer has g groups of o filters with i weights each, and q output positions.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

DIRECTIONS = 5
DEFINITION = (
    f"task2vec-diagonal/1: means over filters, head left out; exact over y to {DIRECTIONS} "
    f"classes, then {DIRECTIONS} sign draws"
)


def directions(
    probabilities: Float[Tensor, "n k"], generator: torch.Generator, most: int = DIRECTIONS
) -> Float[Tensor, "r n k"]:
    """Vectors v with sum_j v_j v_j^T = diag(p) - p p^T for each image: exactly, or in expectation
    over `generator`'s signs.

    >>> p = torch.tensor([[0.25, 0.75]])
    >>> v = directions(p, torch.Generator())
    >>> torch.einsum("rnk,rnl->nkl", v, v)
    tensor([[[ 0.1875, -0.1875],
             [-0.1875,  0.1875]]])
    """
    classes = probabilities.shape[1]
    root = probabilities.sqrt()
    rooted = (
        torch.diag_embed(root) - root[:, :, None] * probabilities[:, None, :]
    )  # row y is sqrt(p_y) (e_y - p)
    if classes <= most:
        return rooted.transpose(0, 1)
    coins = torch.randint(2, (most, *probabilities.shape), generator=generator).to(
        probabilities.device
    )
    signs = (coins * 2 - 1).to(probabilities) / most**0.5
    return torch.einsum("rny,nyk->rnk", signs, rooted)


def diagonal_fisher(
    network: nn.Module,
    head: nn.Linear,
    batches: Iterable[Float[Tensor, "n c h w"]],
    *,
    generator: torch.Generator,
    most: int = DIRECTIONS,
) -> Float[Tensor, " d"]:
    """The diagonal Fisher of every convolution and linear layer that `network.pooled` runs through,
    one number a filter, in module order.

    Hooks keep what goes into and comes out of each layer; one backward pass a direction gives the
    gradients at the outputs, and their batched product with the unfolded inputs is every image's
    own weight gradient.

    Args: network: has `pooled(images) -> features`; in eval mode, frozen. head: on its features;
        takes no part in the result. batches: images as the network wants them. generator: for
        sign draws; unused up to `most` classes. most: directions an image; anything but
        `DIRECTIONS` is another definition.
    Returns: float32, finite, >= 0; the mean over images.
    """
    total: Float[Tensor, " d"] | None = None
    count = 0
    for images in batches:
        summed = _batch_fisher(network, head, images, generator, most)
        total = summed if total is None else total + summed
        count += len(images)
    if total is None:
        raise ValueError("the Fisher information of no images is undefined")
    return (total / count).float()


def _batch_fisher(
    network: nn.Module, head: nn.Linear, images: Tensor, generator: torch.Generator, most: int
) -> Float[Tensor, " d"]:
    """The sum over one batch, in float64."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((module, inputs[0].detach(), output))

    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not head
    ]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.enable_grad():
            logits = head(network.pooled(images.detach().requires_grad_()))  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    vectors = directions(torch.softmax(logits.detach(), dim=1), generator, most)
    outputs = [output for _, _, output in seen]
    gradients = [
        torch.autograd.grad(logits, outputs, grad_outputs=vector, retain_graph=True)
        for vector in vectors
    ]
    sums: dict[int, Float[Tensor, " filters"]] = {}
    for at, (layer, given, _) in enumerate(seen):
        sums[id(layer)] = _filter_squares(
            layer, given, torch.stack([of_direction[at] for of_direction in gradients], dim=1)
        )
    return torch.cat([sums[id(layer)] for layer in layers if id(layer) in sums])


def _filter_squares(
    layer: nn.Module, given: Tensor, gradients: Float[Tensor, "n r ..."]
) -> Float[Tensor, " filters"]:
    r"""Sum over directions and images of mean_i (sum_q g_oq x_iq)^2, for each filter o.

    Two ways to the same number, the cheaper one is taken: form the i weight gradients and square
    them, or, with K = x^T x (q x q, shared by all directions), sum_i (sum_q g_oq x_iq)^2 = g_o K
    g_o^T, which never forms them (after Goodfellow 2015, arXiv:1510.01799).
    """
    r = gradients.shape[1]
    x, g = _by_position(layer, given, gradients)
    rows, places, weights = g.shape[2], g.shape[3], x.shape[2]
    if places * (weights + rows) < rows * weights:
        kernel = x.transpose(-1, -2) @ x
        squares = ((g @ kernel) * g).sum(-1).clamp_min(0)
    else:
        squares = (g @ x.transpose(-1, -2)).square().sum(-1)
    per_filter: Tensor = squares.double().sum(0).reshape(x.shape[1], r, -1).sum(1)
    return per_filter.flatten() / weights


def _by_position(
    layer: nn.Module, given: Tensor, gradients: Float[Tensor, "n r ..."]
) -> tuple[Float[Tensor, "n g i q"], Float[Tensor, "n g ro q"]]:
    """A layer's inputs as columns, one a position, and the gradients at its outputs, both split
    into the layer's groups.
    """
    n, r = gradients.shape[:2]
    if isinstance(layer, nn.Linear):
        x = given.reshape(n, 1, -1, layer.in_features).transpose(-1, -2)
        return x, gradients.reshape(n, r, -1, layer.out_features).transpose(-1, -2).reshape(
            n, 1, r * layer.out_features, -1
        )
    if (
        not isinstance(layer, nn.Conv2d)
        or layer.padding_mode != "zeros"
        or isinstance(layer.padding, str)
    ):
        raise ValueError(
            "only linear layers and convolutions with zero padding given as numbers are known, "
            f"not {layer}"
        )
    if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
        columns = given[:, :, :: layer.stride[0], :: layer.stride[1]].flatten(2)
    else:
        columns = nn.functional.unfold(
            given, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
    groups, places = layer.groups, columns.shape[-1]
    by_group = gradients.reshape(n, r, groups, -1, places).transpose(1, 2)
    return columns.reshape(n, groups, -1, places), by_group.reshape(n, groups, -1, places)
