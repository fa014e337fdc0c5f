"""Adaptive sharpness-aware steps: the gradient is taken where the loss is worst nearby, in units of
the weights' own sizes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ETA = 0.01  # added to the size of each weight, so that one near zero can move too


@contextmanager
@torch.no_grad()
def sam_perturbation(module: nn.Module, rho: float, mask: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, weights stand at w + epsilon, epsilon = rho T^2 g / |T g|, and batch norms leave
    their statistics alone; then at w again.

    g are the gradients that the parameters hold; T = |w| + ETA for kernels and matrices, 1 for
    vectors; the norm is over all of them. Weights whose mask is 0 stay. Kwon et al. 2021,
    arXiv:2102.11600, equation 8, with its eta; T = 1 is the step of Foret et al. 2021,
    arXiv:2010.01412. The caller takes the second gradient: two a step.

    Differs: scales of batch norms count as vectors.
    """
    gradients = {name: one.grad for name, one in module.named_parameters() if one.grad is not None}
    climbed = {name: one for name, one in module.named_parameters() if name in gradients}
    units = {
        name: one.abs() + ETA if one.dim() > 1 else torch.ones_like(one)
        for name, one in climbed.items()
    }
    scaled = {name: units[name] * gradient for name, gradient in gradients.items()}
    scaled |= {name: scaled[name] * mask[name] for name in scaled.keys() & mask.keys()}
    length = (
        torch.stack([one.norm() for one in scaled.values()])
        .norm()
        .clamp_min(torch.finfo(torch.float32).tiny)
    )
    before = {name: one.clone() for name, one in climbed.items()}
    norms = [(norm, norm.momentum) for norm in module.modules() if isinstance(norm, _BatchNorm)]
    for name, one in climbed.items():
        one.add_(rho * units[name] * scaled[name] / length)
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        with torch.enable_grad():
            yield
    finally:
        for name, one in climbed.items():
            one.copy_(before[name])
        for norm, momentum in norms:
            norm.momentum = momentum
