"""What an audit will ask for, before it does: its attacks are begun on tiny networks, and what they
want trained is counted, not trained.

An attack says what it wants trained (`protocol.Asking`), and how much that is depends on the suite,
the recipe and the number of images, not on the network's size or the images' content. So the very
functions of the audit are run here, for each attacker once, on a few blank images of 8 x 8 that
stand for the thief's, with a trainer that hands every network back untrained.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from lockforge.audit._starts import StartingPoint, distinct_starts, facts_of
from lockforge.audit._thief import SOURCE_SHARE, AttackerData, Grid, GridPoint, plan_grid
from lockforge.audit.attackers import SUITES
from lockforge.audit.attackers._disguise import DISGUISE, queries
from lockforge.audit.protocol import (
    Attacker,
    Budget,
    Capabilities,
    InitialModel,
    Item,
    Trained,
    Training,
    in_step,
)
from lockforge.audit.stage import attacker_of, plan_items
from lockforge.data.batches import Batch, Pool, load_pool
from lockforge.engine.fold import structure_of
from lockforge.engine.workload import TrainingCost, Workload, added
from lockforge.files import Files
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, ImageSet, Op, Subjects

_PLAIN = Cell(
    ops=(Op.conv3x3, Op.none, Op.conv3x3, Op.skip, Op.none, Op.conv3x3)
)  # stands in for a network without cells
_SIDE = 8
_THERE = 12  # images of a set that are really there, at most


@dataclass(frozen=True)
class Blank(Pool):
    """A few blank images that stand for many: `each` of them a row. `passed` counts those that
    whole passes in order stand for.
    """

    each: float = 1.0
    passed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """As many as they stand for."""
        return round(len(self.images) * self.each)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[Batch]:
        """The images that are there."""
        if generator is None:
            self.passed.append(len(self))
        there = Pool(self.images, self.labels, self.mean, self.std, self.classes)
        yield from there.batches(batch_size, generator, crop=crop, flip=flip, balance=balance)


def _blank(many: int, there: int, channels: int, classes: int) -> Blank:
    """Blank images of all classes in turn; as many as are wanted where these are few."""
    rows = min(many, there)
    labels: Int64[Tensor, " n"] = torch.arange(rows) % classes
    images = torch.zeros(rows, channels, _SIDE, _SIDE, dtype=torch.uint8)
    images[:, :, ::2] += (
        (torch.arange(rows) % 251).to(torch.uint8).view(-1, 1, 1, 1)
    )  # no two alike: distances would else be undefined
    return Blank(images, labels, torch.zeros(channels), torch.ones(channels), classes, many / rows)


@dataclass(frozen=True)
class AuditEffort:
    """An audit's attacks by their names, what each asks for, and the most networks that one of them
    holds at a time.
    """

    grid: Grid
    items: Mapping[Item, Workload]
    held: int


def workload_of(
    subjects: Subjects, source: ImageSet, target: ImageSet, recipe: AuditRecipe, files: Files
) -> AuditEffort:
    """Every attack of an audit with its trainings. Weights are not read: only what the subjects are
    made of counts.

    Raises: DataError: as the audit itself: too few images for a curve, or networks that do not fit
        the target or one another.
    """
    found, _ = distinct_starts(subjects, target)
    facts, _ = facts_of(subjects, source, target)
    labels = torch.cat([load_pool(target, split, files).labels for split in ("train", "val")])
    grid = plan_grid(labels, target.classes, recipe.images_per_class, recipe.fractions)
    tried = CostProbe(source, target, recipe, grid)
    starts = {start.name: start for start, _ in found}
    items: dict[Item, Workload] = {}
    for item, points in plan_items(starts.values(), facts, grid, recipe).items():
        start = starts[item.start]
        items[item] = tried.of(
            attacker_of(item.attacker, recipe.suite, facts, start),
            start,
            facts,
            points,
            item.budget,
        )
    return AuditEffort(grid, items, tried.held)


@dataclass
class CostProbe:
    """Attacks that were begun already; the same attack on another start of the same kind asks for
    the same.
    """

    source: ImageSet
    target: ImageSet
    recipe: AuditRecipe
    grid: Grid
    known: dict[object, Workload] = field(default_factory=dict)
    held: int = 0

    def of(
        self,
        attacker: Attacker,
        start: StartingPoint,
        facts: Capabilities,
        points: Sequence[GridPoint],
        factor: int = 1,
    ) -> Workload:
        """What one attack asks for at these points."""
        here = start.facts(facts)
        cell = start.architecture.cell if isinstance(start.architecture, Architecture) else _PLAIN
        key = (
            attacker.name,
            cell,
            start.source_classes,
            start.scratch,
            here,
            tuple(points),
            factor,
        )
        if key not in self.known:
            self.known[key] = self._begun(attacker, self._given(start, cell), here, points, factor)
        return self.known[key]

    def _given(self, start: StartingPoint, cell: Cell) -> InitialModel:
        """A tiny network around the start's cell, with a head that came with it unless it is
        empty.
        """
        classes, channels = len(self.target.classes), self.target.shape[0]
        space = (
            start.architecture.space
            if isinstance(start.architecture, Architecture)
            else "nasbench201"
        )
        tiny = Architecture(
            space=space,
            cell=cell,
            stem_channels=4,
            cells_per_stage=1,
            classes=classes,
            shape=(channels, _SIDE, _SIDE),
        )
        draw = torch_generator(0, "audit", "effort")
        network = build(tiny, draw)
        if start.scratch:
            return InitialModel(network)
        old = build(
            tiny.model_copy(update={"classes": start.source_classes}), draw
        ).head.state_dict()
        return InitialModel(network, old if start.source_classes == classes else None, old)

    def _begun(
        self,
        attacker: Attacker,
        given: InitialModel,
        facts: Capabilities,
        points: Sequence[GridPoint],
        factor: int,
    ) -> Workload:
        recipe = self.recipe
        budget = Budget(
            recipe.steps or SUITES[recipe.suite].steps,
            recipe.batch_size,
            head_steps=recipe.probe_steps,
        ).times(factor)
        settings = attacker.settings(recipe, facts)
        if attacker is DISGUISE:  # it trains nothing: all it does is ask
            asked = len(settings) * sum(
                queries(budget, point.samples) + sum(self.grid.validation) for point in points
            )
            return Workload(passes={"network": asked + len(points) * self.target.counts.test})
        data, rounds, kept = self._loot(points[0]), list[Sequence[Training]](), 0

        def count(wanted: Sequence[Training]) -> list[Trained]:
            nonlocal kept
            rounds.append(wanted)
            kept += sum(not isinstance(one.module, nn.Linear) for one in wanted)
            return [Trained(one.module, 0.0) for one in wanted]

        in_step([attacker.attack(given, data, settings, budget, _draw)], count)
        times = len(points)
        self.held = max(self.held, times * kept)
        steps_of = Counter(
            min(point.samples, recipe.batch_size) for point in points
        )  # points with as many images a step go together
        fits = [one for wanted in rounds for one in _alike(wanted, data, steps_of)]
        of_train, of_val, of_source = (
            sum(pool.passed) if isinstance(pool, Blank) else 0
            for pool in (data.train, data.val, data.source)
        )
        passed = of_train * sum(point.samples for point in points) // points[0].samples
        return added(
            [
                Workload(
                    tuple(fits),
                    {"network": passed + times * (of_val + of_source + self.target.counts.test)},
                )
            ]
        )

    def _loot(self, point: GridPoint) -> AttackerData:
        """Images that stand for the thief's at one point."""
        channels, classes = self.target.shape[0], len(self.target.classes)
        return AttackerData(
            train=_blank(point.samples, _THERE, channels, classes),
            val=_blank(sum(self.grid.validation), _THERE, channels, classes),
            source=_blank(
                max(1, round(SOURCE_SHARE * self.source.counts.train)),
                _THERE,
                channels,
                len(self.source.classes),
            ),
        )


def _draw(*names: object) -> torch.Generator:
    return torch_generator(0, "audit", "effort", *names)


def _alike(
    wanted: Sequence[Training], data: AttackerData, steps_of: Mapping[int, int]
) -> list[TrainingCost]:
    """The trainings of a round, at all points; those that a stack may hold are told together.

    Args: data: what was given; its training images differ from point to point, the source's do not.
        steps_of: how many points have so many images a step.
    """
    groups: Counter[tuple[TrainingCost, tuple[str, str, int | None]]] = Counter()
    for at, one in enumerate(wanted):
        of: Literal["head", "network"] = "head" if isinstance(one.module, nn.Linear) else "network"
        of_source = (
            isinstance(one.train, Blank)
            and isinstance(data.source, Blank)
            and one.train.passed is data.source.passed
        )
        alone = at if one.loss is not None or one.sharpness else None
        for examples, points in (
            {one.recipe.batch_size: sum(steps_of.values())} if of_source else steps_of
        ).items():
            fits = TrainingCost(
                1,
                int(one.recipe.steps or 1),
                examples,
                len(one.val),
                2.0 if one.sharpness else 1.0,
                1,
                of,
            )
            groups[fits, (one.recipe.optimizer, structure_of(one.module), alone)] += points
    return [
        replace(fits, trainings=count, together=1 if kind[2] is not None else count)
        for (fits, kind), count in groups.items()
    ]
