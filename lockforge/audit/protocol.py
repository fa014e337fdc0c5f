"""The rules of the attack: what an attacker is given, what he gives back, who chooses, and when the
test split is touched.

An attacker is a function (see `Attack`). He gets a network to start from, the thief's training and
validation images, settings and a budget; he never sees the test split. Networks are trained for
him: he says which (`Training`) and gets them back (`Trained`), so that what many attacks ask for
can be trained together. `attack` runs him at every point of the grid, lets validation choose among
his settings, and tests the chosen one, once.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from lockforge.audit._thief import AttackerData, Draw, GridPoint
from lockforge.data.batches import Pool
from lockforge.engine.copying import copied
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.fit import Feed, Fitted, Loss, RunContext, fit
from lockforge.engine.stack import Member, fit_stack
from lockforge.errors import OutcomeError
from lockforge.evidence.curves import choose
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe, FitRecipe
from lockforge.records import AttackPoint, Start

Optimizer = Literal["sgd", "adam"]
BatchNorm = Literal["source", "re-estimated", "own"]


@dataclass(frozen=True)
class Setting:
    """One configuration of an attacker.

    Batch-norm statistics: `source` keeps those that came with the network, `re-estimated` replaces
    them by the thief's images' before anything is trained, `own` is for networks that start empty.
    `rate` is the highest of the learning-rate schedule. `also` holds what only this attacker has.
    """

    optimizer: Optimizer
    rate: float
    batch_norm: BatchNorm
    also: tuple[tuple[str, str | float], ...] = ()

    def __str__(self) -> str:
        """As it is stored with the attack's points.

        >>> str(Setting("adam", 0.01, "re-estimated"))
        'adam lr=0.01 bn=re-estimated'
        >>> str(Setting("sgd", 0.1, "source", (("head", "kept"), ("rank", 4))))
        'sgd lr=0.1 bn=source head=kept rank=4'
        """
        return f"{self.optimizer} lr={self.rate} bn={self.batch_norm}" + "".join(
            f" {name}={value}" for name, value in self.also
        )


@dataclass(frozen=True)
class Capabilities:
    """What decides whether an attacker can do anything here: the target's classes, those of the
    network, what the thief holds.

    Args: same_classes: the target's class names are the source's, in that order. head_fits: as many
        classes. source_images: the thief has some of the source's images. cells: the network is
        made of cells. black_box: of the release only the answers are known.
    """

    same_classes: bool
    head_fits: bool
    source_images: bool
    cells: bool = True
    black_box: bool = False


@dataclass(frozen=True)
class InitialModel:
    """What the thief starts from: a network with a new head for his classes, and the head that came
    with it where that has as many.

    `source_head` is the head that came with it, whatever its number of classes: what answers when
    the network is only asked.
    """

    network: Classifier
    old_head: Mapping[str, Tensor] | None = None
    source_head: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Budget:
    """What each setting may spend: optimiser steps, and images a step (all of them where there are
    fewer).

    Steps are counted by what passes through the network: `steps` do, `head_steps` train a head on
    features that are there already. `report` is told of progress, and may end an attack by raising.
    """

    steps: int
    batch_size: int
    device: str = "cpu"
    head_steps: int = 1
    report: Callable[[float, float, str], None] = field(
        default=lambda _done, _total, _note: None, compare=False
    )

    def of_head(self) -> "Budget":
        """The same budget for an attacker whose steps do not pass through the network."""
        return replace(self, steps=self.head_steps)

    def times(self, factor: float) -> "Budget":
        """So many times the steps, one at least."""
        return replace(
            self,
            steps=max(1, round(self.steps * factor)),
            head_steps=max(1, round(self.head_steps * factor)),
        )

    def recipe(self, setting: Setting, images: int) -> FitRecipe:
        """The training run that this budget buys with a setting, on so many images."""
        return FitRecipe(
            steps=self.steps,
            batch_size=min(self.batch_size, images),
            optimizer=setting.optimizer,
            learning_rate=setting.rate,
            select="last",
        )

    def seen(self, images: int) -> int:
        """Training images that pass through the network, repetitions counted."""
        return self.steps * min(self.batch_size, images)

    def training(
        self,
        module: nn.Module,
        data: tuple[Feed, Feed],
        setting: Setting,
        generator: torch.Generator,
    ) -> "Training":
        """What this budget buys with a setting: a copy of the module trained on the first feed,
        validated on the second.
        """
        train, val = data
        return Training(module, train, val, setting, self.recipe(setting, len(train)), generator)


@dataclass(frozen=True)
class Training:
    """A training that an attack asks for. The module stays as it is: a copy is trained, its last
    weights are taken.

    Only parameters that require gradients are trained. `loss` is of (outputs, labels); None is
    cross-entropy. `sharpness` and `mask` are those of `engine.fit.fit`.
    """

    module: nn.Module
    train: Feed
    val: Feed
    setting: Setting
    recipe: FitRecipe
    generator: torch.Generator
    loss: Loss | None = None
    sharpness: float = 0.0
    mask: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Trained:
    """A copy of a module after training, its validation accuracy in [0, 1], and whether it is
    untrained because that diverged.
    """

    module: nn.Module
    val_accuracy: float
    diverged: bool = False


def train_all(wanted: Sequence[Training], budget: Budget) -> list[Trained]:
    """Every training, in order; those that `engine.stack` can train together are, with the same
    outcomes but for rounding.
    """
    context = RunContext(device=budget.device, report=budget.report)
    plain = [at for at, one in enumerate(wanted) if one.loss is None and not one.sharpness]
    members = [
        Member(copied(one.module), one.train, one.val, one.recipe, one.generator, one.mask)
        for one in (wanted[at] for at in plain)
    ]
    done = dict(zip(plain, fit_stack(members, context=context), strict=True))
    return [
        _trained(one, done[at] if at in done else _alone(one, context), context)
        for at, one in enumerate(wanted)
    ]


def _alone(wanted: Training, context: RunContext) -> Fitted | OutcomeError:
    """A training with a loss of its own or with sharpness-aware steps."""
    try:
        return fit(
            copied(wanted.module),
            wanted.train,
            wanted.recipe,
            generator=wanted.generator,
            val=wanted.val,
            loss=wanted.loss,
            sharpness=wanted.sharpness,
            mask=wanted.mask,
            context=context,
        )
    except OutcomeError as error:
        return error


def _trained(wanted: Training, done: Fitted | OutcomeError, context: RunContext) -> Trained:
    """What came of it; where it diverged, a copy of the module as it was."""
    if isinstance(done, Fitted):
        return Trained(done.module, done.val_accuracy)
    kept = copied(wanted.module)
    return Trained(
        kept, accuracy(*logits_of(kept, wanted.val, device=context.device)), diverged=True
    )


@dataclass(frozen=True)
class Attempt:
    """What one setting came to: a network for the thief's task, its accuracy on his validation
    images in [0, 1], and its cost.

    `operations` are counted as `models.networks.flops` counts them. A training that diverged leaves
    the thief with what he started from.
    """

    setting: Setting
    network: nn.Module
    val_accuracy: float
    steps: int
    operations: float
    diverged: bool = False

    @property
    def name(self) -> str:
        """The setting as it is stored, and whether it diverged."""
        return f"{self.setting} (diverged)" if self.diverged else str(self.setting)


Asking = Generator[Sequence[Training], Sequence[Trained], Sequence[Attempt]]
"""An attack under way: it yields trainings and is sent as many networks back, as often as it
likes; it returns an attempt for each setting.
"""


class Attack(Protocol):
    """From what the thief starts with, his images, settings, a budget and generators to one attempt
    a setting.

    All settings arrive together, so that what they share is worked out once. The given network must
    be left as it is. `draw(*names)` makes the generator of that name; the same names give the same
    draws.
    """

    def __call__(
        self,
        given: InitialModel,
        data: AttackerData,
        settings: Sequence[Setting],
        budget: Budget,
        draw: Draw,
    ) -> Asking:
        """Fit each setting."""


def always(_facts: Capabilities) -> str:
    """Nothing stands in the way."""
    return ""


@dataclass(frozen=True)
class Attacker:
    """An attack with its name, the settings it tries, and why it cannot be made where it cannot.
    `black_box`: it needs answers only.
    """

    name: str
    attack: Attack
    settings: Callable[[AuditRecipe, Capabilities], tuple[Setting, ...]]
    unfit: Callable[[Capabilities], str] = always
    black_box: bool = False


@dataclass(frozen=True)
class Item:
    """One piece of work, and one line of the ledger: an attacker on a starting point with a seed,
    at all points of the grid.

    `budget` is in budgets of the audit: more than one only shows whether one is enough.
    """

    start: Start
    attacker: str
    seed: int
    budget: int = 1


@dataclass(frozen=True)
class AttackConfig:
    """What holds for every attack of an audit: the recipe, the facts, the budget, and where draws
    come from.
    """

    recipe: AuditRecipe
    facts: Capabilities
    budget: Budget
    draw: Draw


def in_step(
    attacks: Sequence[Asking], train: Callable[[Sequence[Training]], Sequence[Trained]]
) -> list[Sequence[Attempt]]:
    """Run attacks side by side: in each round, all that they ask for is trained together.

    Returns: the attempts of each attack, in order.
    """
    ended: dict[int, Sequence[Attempt]] = {}
    answers: dict[int, Sequence[Trained] | None] = dict.fromkeys(range(len(attacks)))
    while answers:
        wanted: dict[int, Sequence[Training]] = {}
        for at, answer in answers.items():
            try:
                wanted[at] = next(attacks[at]) if answer is None else attacks[at].send(answer)
            except StopIteration as end:
                ended[at] = end.value
        trained = iter(train([one for ones in wanted.values() for one in ones]))
        answers = {at: [next(trained) for _ in ones] for at, ones in wanted.items()}
    return [ended[at] for at in range(len(attacks))]


def attack(
    item: Item,
    attacker: Attacker,
    given: InitialModel,
    loots: Mapping[GridPoint, AttackerData],
    test: Pool,
    terms: AttackConfig,
) -> tuple[AttackPoint, ...]:
    """Run an attacker's settings at every point, choose by validation, test the chosen one: the
    only place that touches the test split.
    """
    settings = attacker.settings(terms.recipe, terms.facts)
    budget = terms.budget.times(item.budget)
    under_way = [
        attacker.attack(
            given,
            data,
            settings,
            budget,
            lambda *more, at=point: terms.draw(
                item.seed, at.name, item.start, item.attacker, *more
            ),
        )
        for point, data in loots.items()
    ]
    found = in_step(under_way, lambda wanted: train_all(wanted, budget))
    return tuple(
        one
        for point, attempts in zip(loots, found, strict=True)
        for one in _points(item, point, attempts, test, terms)
    )


def _points(
    item: Item, point: GridPoint, attempts: Sequence[Attempt], test: Pool, terms: AttackConfig
) -> tuple[AttackPoint, ...]:
    points = {
        attempt.name: AttackPoint(
            start=item.start,
            attacker=item.attacker,
            setting=attempt.name,
            images_per_class=point.images_per_class,
            samples=point.samples,
            seed=item.seed,
            budget=item.budget,
            steps=attempt.steps,
            flops=attempt.operations,
            val_accuracy=attempt.val_accuracy,
        )
        for attempt in attempts
    }
    (chosen,) = choose(tuple(points.values()))
    network_of = {attempt.name: attempt.network for attempt in attempts}
    tested = accuracy(*logits_of(network_of[chosen.setting], test, device=terms.budget.device))
    points[chosen.setting] = chosen.model_copy(update={"test_accuracy": tested})
    return tuple(points.values())
