"""The rules of the attack: what an attacker is given, what he gives back, who chooses, and when the test split is touched.

An attacker is a function (see `Attack`). He gets a network to start from, the thief's training and validation images, settings and a
budget; he never sees the test split. `attack` runs him, lets validation choose among his settings, and tests the chosen one, once.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import nn

from lockforge.data.batches import Pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.fit import Bench, Feed, fit
from lockforge.errors import OutcomeError
from lockforge.evidence.curves import choose
from lockforge.recipe import AuditRecipe, FitRecipe
from lockforge.records import AttackPoint, Start
from lockforge.spaces.networks import CellNetwork

Optimizer = Literal["sgd", "adam"]
BatchNorm = Literal["source", "re-estimated", "own"]
Draw = Callable[..., torch.Generator]


@dataclass(frozen=True)
class Setting:
    """One configuration of an attacker.

    Batch-norm statistics: `source` keeps those that came with the network, `re-estimated` replaces them by the thief's images' before
    anything is trained, `own` is for networks that start empty. `rate` is the highest of the learning-rate schedule.
    """

    optimizer: Optimizer
    rate: float
    batch_norm: BatchNorm

    def __str__(self) -> str:
        """As it is stored with the attack's points.

        >>> str(Setting("adam", 0.01, "re-estimated"))
        'adam lr=0.01 bn=re-estimated'
        """
        return f"{self.optimizer} lr={self.rate} bn={self.batch_norm}"


@dataclass(frozen=True)
class Budget:
    """What each setting may spend: optimiser steps, and images a step (all of them where there are fewer).

    Steps are counted by what passes through the network: `steps` do, `head_steps` train a head on features that are there already.
    `report` is told of progress, and may end an attack by raising.
    """

    steps: int
    batch_size: int
    device: str = "cpu"
    head_steps: int = 1
    report: Callable[[float, float, str], None] = field(default=lambda _done, _total, _note: None, compare=False)

    def of_head(self) -> "Budget":
        """The same budget for an attacker whose steps do not pass through the network."""
        return replace(self, steps=self.head_steps)

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


@dataclass(frozen=True)
class Loot:
    """What the thief has at one point of the grid: `train`, the fraction; `val`, fixed outside it."""

    train: Pool
    val: Pool


@dataclass(frozen=True)
class Attempt:
    """What one setting came to: a network for the thief's task, its accuracy on his validation images in [0, 1], and its cost.

    `operations` are counted as `spaces.flops` counts them. A training that diverged leaves the thief with what he started from.
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


@dataclass(frozen=True)
class Trained:
    """A copy of a module after training, its validation accuracy in [0, 1], and whether it is untrained because that diverged."""

    module: nn.Module
    val_accuracy: float
    diverged: bool


def trained(module: nn.Module, data: tuple[Feed, Feed], setting: Setting, budget: Budget, generator: torch.Generator) -> Trained:
    """Train a copy of a module with one setting and take its last weights; where that diverges, a copy as it was.

    Args: data: training and validation examples.
    """
    train, val = data
    try:
        fitted = fit(
            copy.deepcopy(module),
            train,
            budget.recipe(setting, len(train)),
            generator=generator,
            val=val,
            bench=Bench(device=budget.device, report=budget.report),
        )
    except OutcomeError:
        kept = copy.deepcopy(module)
        return Trained(kept, accuracy(*logits_of(kept, val, device=budget.device)), diverged=True)
    return Trained(fitted.module, fitted.val_accuracy, diverged=False)


class Attack(Protocol):
    """A function from a network, the thief's images, settings, a budget and generators to one attempt a setting.

    All settings arrive together, so that what they share is worked out once. The network must be left as it is. `draw(*names)` makes
    the generator of that name; the same names give the same draws.
    """

    def __call__(self, network: CellNetwork, loot: Loot, settings: Sequence[Setting], budget: Budget, draw: Draw) -> Iterator[Attempt]:
        """Fit each setting."""


@dataclass(frozen=True)
class Attacker:
    """An attack with its name, and the settings it tries."""

    name: str
    attack: Attack
    settings: Callable[[AuditRecipe], tuple[Setting, ...]]


@dataclass(frozen=True)
class Item:
    """One piece of work, and one line of the ledger: an attacker on a starting point at a point of the grid with a seed."""

    start: Start
    attacker: str
    images_per_class: int
    seed: int


@dataclass(frozen=True)
class Terms:
    """What holds for every attack of an audit: the recipe, the budget, and where draws come from."""

    recipe: AuditRecipe
    budget: Budget
    draw: Draw


def attack(item: Item, attacker: Attacker, network: CellNetwork, loot: Loot, test: Pool, terms: Terms) -> tuple[AttackPoint, ...]:
    """Run an attacker's settings, choose by validation, and test the chosen one: the only place that touches the test split."""
    names = (item.seed, item.images_per_class, item.start, item.attacker)
    attempts = list(attacker.attack(network, loot, attacker.settings(terms.recipe), terms.budget, lambda *more: terms.draw(*names, *more)))
    points = {
        attempt.name: AttackPoint(
            start=item.start,
            attacker=item.attacker,
            setting=attempt.name,
            images_per_class=item.images_per_class,
            samples=len(loot.train),
            seed=item.seed,
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
