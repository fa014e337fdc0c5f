"""Distillation: a network of the thief's own learns to say what the given one says of his images,
then learns his labels.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531; features: Romero et al. 2015 (FitNets),
arXiv:1412.6550, section 2.2.
Differs: standardised logits or features are matched by mean squared error through a linear map, and
labels come after, not beside: the given network's classes need not be the thief's, so that there is
no common softmax.

Shapes: n images, k classes, d features or outputs to match.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.audit._closed_form import standardised
from lockforge.audit._queries import Body, fresh_head, numbered, oracle_of, phases
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
from lockforge.engine.evaluate import logits_of
from lockforge.engine.fit import Loss
from lockforge.models.classifier import Classifier
from lockforge.models.networks import build, flops
from lockforge.recipe import AuditRecipe
from lockforge.records import AnyArchitecture, Architecture, Cell, Op

STRONG = Cell(
    ops=(Op.conv3x3, Op.none, Op.none, Op.skip, Op.conv3x3, Op.none)
)  # a plain residual block, in every space
SKELETON: dict[str, Any] = {"space": "nasbench201", "stem_channels": 16, "cells_per_stage": 1}
MATCHING = 0.5  # of the steps; the rest is for the labels


class Student(nn.Module):
    """A network whose features are mapped to what it should match."""

    def __init__(self, network: Classifier, match: nn.Linear) -> None:
        super().__init__()
        self.network, self.match = network, match

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What it takes the given network to say."""
        said: Tensor = self.match(self.network.features(x))
        return said


def settings(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
    """A plain strong cell and the given architecture, each matching logits and features, and logits
    alone; Adam.

    Of a black box neither the architecture nor the features are known.
    """
    if facts.black_box:
        return (
            Setting(
                "adam",
                recipe.fine_tune_rates[0],
                "own",
                (("student", "plain"), ("match", "black-box")),
            ),
        )
    return tuple(
        Setting("adam", recipe.fine_tune_rates[0], "own", (("student", student), ("match", match)))
        for student in ("plain", "same")
        for match in ("inside", "black-box")
    )


def student_of(architecture: AnyArchitecture, setting: Setting) -> AnyArchitecture:
    """The given architecture, or its skeleton around a plain strong cell; a network without cells
    has no skeleton and lends `SKELETON`.
    """
    if dict(setting.also)["student"] != "plain":
        return architecture
    if isinstance(architecture, Architecture):
        return architecture.model_copy(update={"cell": STRONG})
    return Architecture(
        **SKELETON, cell=STRONG, classes=architecture.classes, shape=architecture.shape
    )


def matching(targets: Float[Tensor, "n d"]) -> Loss:
    """Mean squared error against the row's target."""

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        return (outputs - targets[rows]).square().mean()

    return loss


def said_of(
    given: InitialModel, data: AttackerData, budget: Budget
) -> dict[str | float, Float[Tensor, "n d"]]:
    """What is matched, standardised: `black-box` the answers of the network as a service, `inside`
    its features as well.
    """
    images = numbered(data.train)
    answers, _ = logits_of(oracle_of(given)[0], images, device=budget.device)
    features, _ = logits_of(Body(given.network), images, device=budget.device)
    both = torch.cat([answers, features], 1)
    return {"black-box": standardised(answers)[0].float(), "inside": standardised(both)[0].float()}


def distill(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train an empty network for each setting: `MATCHING` of the steps what the given one says,
    then the labels.

    Operations: 3 of the student's passes for each image seen, 1 of the given network's for each
    training image.
    """
    said = said_of(given, data, budget)
    first, second = phases(budget, MATCHING)
    students: list[nn.Module] = []
    for setting in settings:
        network = build(student_of(given.network.architecture, setting), draw(setting, "student"))
        width = said[dict(setting.also)["match"]].shape[1]
        students.append(
            Student(
                network, fresh_head(network.head.in_features, width, draw(setting, "match"))
            ).to(budget.device)
        )
    wild: set[int] = set()
    if first.steps:
        matched = yield [
            replace(
                first.training(
                    student, (numbered(data.train), data.val), setting, draw(setting, "matching")
                ),
                loss=matching(said[dict(setting.also)["match"]]),
            )
            for student, setting in zip(students, settings, strict=True)
        ]
        students = [one.module for one in matched]
        wild = {at for at, one in enumerate(matched) if one.diverged}
    done = yield [
        # a Student's
        second.training(student.network, (data.train, data.val), setting, draw(setting, "labels"))  # type: ignore[arg-type]
        for student, setting in zip(students, settings, strict=True)
    ]
    images = len(data.train)
    return [
        Attempt(
            setting,
            one.module,
            one.val_accuracy,
            budget.steps,
            float(
                3 * flops(student_of(given.network.architecture, setting)) * budget.seen(images)
                + flops(given.network.architecture) * images
            ),
            one.diverged or at in wild,
        )
        for at, (setting, one) in enumerate(zip(settings, done, strict=True))
    ]


DISTILL = Attacker("distill", distill, settings, black_box=True)
