"""Mask-free regrow: what pruning took away is initialised again, then everything is trained, with
dense gradients and no mask.

After the regrowth of sparse training (Mocanu et al. 2018, arXiv:1707.04780; Evci et al. 2020,
arXiv:1911.11134) and the re-initialisation of neurons of no use (Sokar et al. 2023,
arXiv:2302.12902). Differs: all zeros come back at once, drawn at the size of the weights that
survived in their layer, times a factor; there is no mask afterwards. Shapes: d filters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import adam_rates, fresh, size_of_fresh, starts_of, tune
from lockforge.audit.protocol import Asking, Attacker, Budget, Capabilities, InitialModel, Setting
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

SHARES = (0.0, 0.25)  # of a layer's filters, initialised again beside the zeros
SCALES = (0.1, 1.0)  # of the new weights, in the size of those of their layer


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Adam at each rate, for each share and scale; batch-norm statistics are taken after the
    change.
    """
    grown = [(("share", share), ("scale", scale)) for share in SHARES for scale in SCALES]
    return tuple(one for also in grown for one in adam_rates(recipe, "re-estimated", also))


def regrown(
    weight: Float[Tensor, "d ..."], share: float, scale: float, generator: torch.Generator
) -> Float[Tensor, "d ..."]:
    """The weights, with new ones for zeros and for the share (rounded down) of filters whose norm
    is smallest, of equal ones the first.

    New ones are normal, `scale` times the root mean square of the weights that are not zero; where
    all are, that of an empty layer.
    """
    dead = weight == 0
    weakest = weight.flatten(1).norm(dim=1).argsort(stable=True)[: int(share * len(weight))]
    new = fresh(weight, generator)
    if not bool(dead.all()):
        new *= weight[~dead].square().mean().sqrt() / size_of_fresh(weight)
    dead[weakest] = True
    return torch.where(dead, scale * new, weight)


def alter(network: Classifier, also: Mapping[str, Any], generator: torch.Generator) -> None:
    """Regrow every convolution and linear layer before the head; a batch norm's scale that is zero
    is 1 again, or nothing would pass.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.head:
            module.weight.copy_(regrown(module.weight, also["share"], also["scale"], generator))
        elif isinstance(module, _BatchNorm) and module.affine:
            module.weight[module.weight == 0] = 1.0


def regrow(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Regrow a copy for each setting and train all of it."""
    return (
        yield from tune(starts_of(given, data, settings, budget, draw, alter), data, budget, draw)
    )


REGROW = Attacker("regrow", regrow, settings)
