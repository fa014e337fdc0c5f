"""Input disguise: images are changed until a network that can only be asked tells the thief's
classes apart.

Xiang et al. 2025 (JailNTL, CVPR, arXiv:2503.17198) disguise images of the target as images of the
source. The change is found by simultaneous perturbation (SPSA; Spall 1992, IEEE Trans. Automatic
Control 37:332, equation 2.2) through the outputs alone.
Differs: the disguise is a few dozen to a few hundred numbers instead of a generator network,
because every gradient is an estimate from queries; what it lowers is the thief's own error, not a
distance to source images; a linear map in closed form reads his classes off the outputs, so that
the source need not have them.

Shapes: b images a batch, c channels, h x w pixels, k outputs, q parameters of a disguise, p
    parameter vectors tried at once.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.audit._closed_form import left_out_error, ridge, standardised, targets_of
from lockforge.audit._queries import Oracle, oracle_of
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.data.batches import Batch, Pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.schedule import learning_rate
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

PAIRS = 8  # perturbations of a step, each tried in both directions
REACH = 0.05  # of a perturbation, in normalised pixels
GRID = 6  # rows and columns of the additive pattern, at most
PENALTY = 0.1  # of the linear map inside a step
RATES = (0.03, 0.1)


@dataclass(frozen=True)
class Form:
    """The shape of a disguise: x' = x * (1 + scale_c) + shift_c + pattern (enlarged from a small
    grid) + conv3x3(x). All zeros: x' = x.
    """

    channels: int
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the pattern."""
        return min(GRID, self.height), min(GRID, self.width)

    @property
    def sizes(self) -> list[int]:
        """Parameters of scale, shift, pattern and convolution."""
        c, (rows, columns) = self.channels, self.grid
        return [c, c, c * rows * columns, c * c * 9]

    def wear(
        self, x: Float[Tensor, "b c h w"], theta: Float[Tensor, "p q"]
    ) -> Float[Tensor, "pb c h w"]:
        """Every disguise on every image: first all images in the first disguise, then in the
        second.
        """
        p, b, c = len(theta), len(x), self.channels
        scale, shift, pattern, kernel = torch.split(theta, self.sizes, dim=1)
        small = pattern.view(p, c, *self.grid)
        large = functional.interpolate(
            small, (self.height, self.width), mode="bilinear", align_corners=False
        )
        mixed = functional.conv2d(x, kernel.reshape(p * c, c, 3, 3), padding=1).view(
            b, p, c, self.height, self.width
        )
        worn: Tensor = (
            x[:, None] * (1 + scale.view(p, c, 1, 1)) + shift.view(p, c, 1, 1) + large + mixed
        )
        return worn.transpose(0, 1).reshape(p * b, c, self.height, self.width)


class Disguised(nn.Module):
    """Images in a disguise, a network that is asked about them, and a linear map from what it says
    to the thief's classes.
    """

    def __init__(self, form: Form, theta: Float[Tensor, " q"], oracle: Oracle) -> None:
        super().__init__()
        self.form, self.oracle = form, oracle
        self.theta = nn.Buffer(theta)
        self.head: nn.Module = nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits for the thief's classes; the network's own outputs as long as there is no map."""
        said: Tensor = self.head(self.oracle(self.form.wear(x, self.theta[None])))
        return said


def spsa(
    objective: Callable[[Float[Tensor, "p q"]], Float[Tensor, " p"]],
    theta: Float[Tensor, " q"],
    signs: Float[Tensor, "m q"],
    reach: float,
) -> Float[Tensor, " q"]:
    """The estimated gradient: mean over perturbations d of (f(theta + reach d) - f(theta - reach
    d)) / (2 reach) * d, d of +-1.

    Spall 1992, equation 2.2, averaged over m perturbations (there, 1/d is written for what is d for
    signs). All 2m points are asked for at once. Without bias up to reach^2; exact for a linear
    function when the rows of `signs` are orthogonal and m = q.

    >>> f = lambda points: points @ torch.tensor([3.0, -1.0])
    >>> spsa(f, torch.zeros(2), torch.tensor([[1.0, 1.0], [1.0, -1.0]]), 0.5).tolist()
    [3.0, -1.0]
    """
    up, down = objective(torch.cat([theta + reach * signs, theta - reach * signs])).chunk(2)
    return ((up - down) / (2 * reach)).to(theta.dtype) @ signs / len(signs)


def asked_error(
    form: Form, oracle: Oracle, batch: Batch, classes: int
) -> Callable[[Float[Tensor, "p q"]], Float[Tensor, " p"]]:
    """How badly the best linear map reads a batch's labels off the outputs, for many disguises: its
    leave-one-out squared error.

    Without leaving out, a map from k outputs explains the labels of k images whatever the disguise.
    """
    images, labels = batch
    y, _ = targets_of(labels, classes)

    def error(theta: Float[Tensor, "p q"]) -> Float[Tensor, " p"]:
        said: Tensor = oracle(form.wear(images, theta))
        z, _, _ = standardised(said.view(len(theta), len(images), -1))
        return left_out_error(z, y, PENALTY)

    return error


def settings(_recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Two step sizes; the statistics cannot be touched from outside."""
    return tuple(Setting("adam", rate, "source") for rate in RATES)


def _endless(pool: Pool, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    for _ in itertools.count():
        yield from pool.batches(batch_size, generator)


def _disguise(
    form: Form,
    oracle: Oracle,
    data: AttackerData,
    setting: Setting,
    budget: Budget,
    generator: torch.Generator,
) -> Disguised:
    """The disguise of one setting after all steps, and the map that reads the classes."""
    recipe = budget.recipe(setting, len(data.train))
    theta = torch.zeros(sum(form.sizes), device=budget.device, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=setting.rate)
    stream = _endless(data.train, recipe.batch_size, generator)
    for step, batch in zip(range(budget.steps), stream, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, budget.steps, recipe)
        signs = (
            torch.randint(2, (PAIRS, len(theta)), generator=generator).to(theta, non_blocking=True)
            * 2
            - 1
        )
        theta.grad = spsa(
            asked_error(form, oracle, batch, data.train.classes), theta.detach(), signs, REACH
        )
        optimizer.step()
        budget.report(step + 1, budget.steps, "")
    dressed = Disguised(form, theta.detach(), oracle)
    said, labels = logits_of(dressed, data.train, device=budget.device)
    dressed.head = ridge(said, labels, data.train.classes)
    return dressed


def queries(budget: Budget, images: int) -> int:
    """Images that a setting asks about: `PAIRS` disguises in both directions for each image of a
    step, and each image at the end.
    """
    return 2 * PAIRS * budget.seen(images) + images


def disguise(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Learn a disguise for each setting.

    Operations: one pass for each of `queries`.
    """
    oracle, _ = oracle_of(given)
    form = Form(*given.network.architecture.shape)
    worn = [
        _disguise(form, oracle.to(budget.device), data, setting, budget, draw(setting))
        for setting in settings
    ]
    yield []
    asked = queries(budget, len(data.train))
    return [
        Attempt(
            setting,
            dressed,
            accuracy(*logits_of(dressed, data.val, device=budget.device)),
            budget.steps,
            float(flops(given.network.architecture) * asked),
        )
        for setting, dressed in zip(settings, worn, strict=True)
    ]


DISGUISE = Attacker("disguise", disguise, settings, black_box=True)
