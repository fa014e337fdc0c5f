"""Which weights can be pruned, and which of them are.

Convolutions and linear layers (so the projections of attention too) but for the head; norm layers
and biases stay as they are. A mask is true for a weight that stays and false for one that is zero
for good, by the name of its parameter.
"""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.models.classifier import Classifier
from lockforge.prune._admm import largest
from lockforge.records import LayerSparsity

Named = Mapping[str, Tensor]


def prunable(network: Classifier) -> dict[str, nn.Parameter]:
    """The weights that can be pruned, by name, in the network's order.

    Raises: DataError: there are none.
    """
    found: dict[str, nn.Parameter] = {
        f"{name}.weight": cast("nn.Parameter", module.weight)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.head
    }
    if not found:
        raise DataError(
            f"{network.architecture} has no layer that can be pruned: no convolution and no "
            "linear layer before the head",
            hint="prune another network, or set prune.method to none",
        )
    return found


def kept_counts(
    weights: Named, sparsity: float, scope: Literal["layer", "global"]
) -> dict[str, int]:
    """How many weights each tensor keeps. A global share falls where the sizes of the weights say.

    Raises: RecipeError: a tensor would keep none; every such tensor is named.
    """
    if scope == "layer":
        kept = {
            name: tensor.numel() - round(sparsity * tensor.numel())
            for name, tensor in weights.items()
        }
    else:
        sizes = torch.cat([tensor.detach().abs().flatten() for tensor in weights.values()])
        chosen = largest(sizes, sizes.numel() - round(sparsity * sizes.numel()))
        parts = torch.split(chosen, [tensor.numel() for tensor in weights.values()])
        kept = {name: int(part.sum()) for name, part in zip(weights, parts, strict=True)}
    gone = [
        f"{name} of {tensor.numel()} weights" for name, tensor in weights.items() if not kept[name]
    ]
    if gone:
        raise RecipeError(
            f"a sparsity of {sparsity:g} would leave nothing of {len(gone)} layer(s), and "
            "nothing passes through an empty one",
            faults=gone,
            hint="lower prune.sparsity"
            + (", or set prune.scope to layer" if scope == "global" else ""),
        )
    return kept


def masks_of(
    weights: Named, sparsity: float, scope: Literal["layer", "global"]
) -> dict[str, Tensor]:
    """Masks that keep the largest weights.

    Raises: RecipeError: a tensor would keep none.
    """
    kept = kept_counts(weights, sparsity, scope)
    return {name: largest(tensor, kept[name]) for name, tensor in weights.items()}


def check_masks(masks: Named, network: Classifier) -> None:
    """Nothing, where these masks, or other tensors a mask is made of, are for this network.

    Raises: IntegrityError: names or shapes are others; every difference is listed.
    """
    wanted = prunable(network)
    faults = [f"no mask for {name}" for name in wanted if name not in masks]
    faults += [f"a mask for {name}, which cannot be pruned" for name in masks if name not in wanted]
    faults += [
        f"{name} has shape {tuple(weight.shape)}, its mask {tuple(masks[name].shape)}"
        for name, weight in wanted.items()
        if name in masks and masks[name].shape != weight.shape
    ]
    if faults:
        raise IntegrityError(
            f"the masks do not fit {network.architecture}",
            faults=faults[:12],
            hint="they belong to another network",
        )


def layers_of(network: Classifier) -> tuple[LayerSparsity, ...]:
    """Zeros of each prunable tensor."""
    return tuple(
        LayerSparsity(name=name, weights=weight.numel(), zeros=int((weight == 0).sum()))
        for name, weight in prunable(network).items()
    )


def sparsity_of(weights: Named) -> float:
    """Share of exact zeros in all tensors together."""
    return sum(int((tensor == 0).sum()) for tensor in weights.values()) / sum(
        tensor.numel() for tensor in weights.values()
    )
