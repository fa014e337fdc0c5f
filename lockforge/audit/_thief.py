"""The thief's images: his validation split, and the nested, class-balanced subsets of what is left.

Shapes: n images. His images are the target's training and validation splits; the target's test
    split is not his.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from lockforge.data.batches import Pool, few
from lockforge.errors import DataError

VALIDATION_SHARE = 0.2
VALIDATION_MOST = 500
FEWEST = 10  # images at the smallest fraction
SOURCE_SHARE = 0.1  # of the source's training images, in the thief's hands

Draw = Callable[..., torch.Generator]


@dataclass(frozen=True)
class AttackerData:
    """What the thief has at one point of the grid: `train`, the fraction; `val`, fixed outside it;
    some of the source's images, if any.
    """

    train: Pool
    val: Pool
    source: Pool | None = None


@dataclass(frozen=True)
class GridPoint:
    """How much the thief has: images per class (0 is all, or no such number), and images of all
    classes together.
    """

    images_per_class: int
    samples: int
    drawn_by: Literal["class", "share"] = "class"

    @property
    def name(self) -> int | str:
        """What it is called in the names of generators: images a class, or, of a share, all
        images.
        """
        return self.images_per_class if self.drawn_by == "class" else f"{self.samples} images"


@dataclass(frozen=True)
class Grid:
    """The points that the thief's images can fill, those that they cannot, and the size of his
    validation split.
    """

    points: tuple[GridPoint, ...]
    dropped: tuple[str, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True)
class Thief:
    """One seed's thief: his validation images, the images left to train on, and the seed that
    orders them.
    """

    rest: Pool
    val: Pool
    order: int
    source: Pool | None = None

    def data(self, point: GridPoint) -> AttackerData:
        """His images at a point of the grid. One order for all points: a larger fraction holds
        every smaller one.
        """
        generator = torch.Generator().manual_seed(self.order)
        if point.drawn_by == "class":
            drawn = few(self.rest, point.images_per_class, generator)
        else:
            drawn = torch.randperm(len(self.rest), generator=generator)[: point.samples]
        return AttackerData(train=self.rest.take(drawn), val=self.val, source=self.source)


def merge(pools: Sequence[Pool], like: Pool) -> Pool:
    """Splits of one data set as one pool, normalised as `like` is."""
    return Pool(
        images=torch.cat([pool.images for pool in pools]),
        labels=torch.cat([pool.labels for pool in pools]),
        mean=like.mean,
        std=like.std,
        classes=pools[0].classes,
    )


def validation_counts(per_class: Sequence[int]) -> tuple[int, ...]:
    """How many images of each class are set aside: 20 % of all, at most 500, shared out by class
    size, one of each class left to train.

    Whole images by largest remainders; of equal remainders the first class.

    >>> validation_counts((50, 30, 20))
    (10, 6, 4)
    >>> validation_counts((5000, 5000))
    (250, 250)
    """
    total = sum(per_class)
    wanted = max(1, min(math.floor(VALIDATION_SHARE * total), VALIDATION_MOST))
    shares = [wanted * count / total for count in per_class]
    whole = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - shares[i], i))
    for i in by_remainder[: wanted - sum(whole)]:
        whole[i] += 1
    return tuple(min(held, count - 1) for held, count in zip(whole, per_class, strict=True))


def plan_grid(
    labels: Int64[Tensor, " n"],
    classes: Sequence[str],
    images_per_class: Sequence[int],
    fractions: Sequence[float] = (),
) -> Grid:
    """Which points of the grid the thief's images can fill, in rising order.

    Args: images_per_class: 0 (all) is last and must hold more than the one before. fractions: of
        his training images, instead; drawn without regard to classes, as published learning curves
        are; `FEWEST` images at least.
    Raises: DataError: a class has fewer than two images, or fewer than two points are left.
    """
    per_class = torch.bincount(labels, minlength=len(classes)).tolist()
    poor = [f"{name}: {count}" for name, count in zip(classes, per_class, strict=True) if count < 2]
    if poor:
        raise DataError(
            "the thief needs two or more images of each class of the target, one to train on and "
            "one to validate with",
            faults=poor,
            hint="give a target with more images, or leave these classes out",
        )
    validation = validation_counts(per_class)
    left = [count - held for count, held in zip(per_class, validation, strict=True)]
    points, dropped = (
        _shares(sum(left), fractions) if fractions else _per_class(left, classes, images_per_class)
    )
    if len(points) < 2:
        key, asked = (
            ("fractions", fractions) if fractions else ("images_per_class", images_per_class)
        )
        raise DataError(
            f"the target has too few images for a curve: {len(points)} point(s) of the grid "
            f"{tuple(asked)} can be filled",
            faults=dropped,
            hint=f"give a target with more images, or other numbers in `audit.{key}`",
        )
    return Grid(tuple(points), tuple(dropped), validation)


def _shares(images: int, fractions: Sequence[float]) -> tuple[list[GridPoint], list[str]]:
    """The points of a grid of fractions, and what was dropped: too few images, or as many as the
    point before.
    """
    points: list[GridPoint] = []
    dropped: list[str] = []
    for fraction in sorted(set(fractions)):
        samples = round(fraction * images)
        if samples < FEWEST or (points and samples == points[-1].samples):
            dropped.append(
                f"{fraction:g} of the images: {samples} of {images}, at least {FEWEST} and more "
                "than the point before are needed"
            )
        else:
            points.append(GridPoint(0, samples, "share"))
    return points, dropped


def _per_class(
    left: Sequence[int], classes: Sequence[str], images_per_class: Sequence[int]
) -> tuple[list[GridPoint], list[str]]:
    """The points of a grid of images per class, and what was dropped."""
    fewest = min(left)
    points = [
        GridPoint(some, some * len(classes))
        for some in sorted(set(images_per_class))
        if 0 < some <= fewest
    ]
    scarce = classes[left.index(fewest)]
    dropped = [
        f"{some} images a class: only {fewest} of class {scarce!r} are left beside the thief's "
        "validation images"
        for some in sorted(set(images_per_class))
        if some > fewest
    ]
    if 0 in images_per_class:
        everything = GridPoint(0, sum(left))
        if not points or everything.samples > points[-1].samples:
            points.append(everything)
        else:
            dropped.append(
                f"all: the same {everything.samples} images as {points[-1].images_per_class} a "
                "class"
            )
    return points, dropped


def split_thief(pool: Pool, grid: Grid, draw: Draw, seed: int, source: Pool | None = None) -> Thief:
    """One seed's thief: of each class as many images for validation as the grid says, drawn by a
    generator of the class's own.

    Args: source: the source's training images; he gets a tenth of them, one at least.
    """
    labels = pool.labels.cpu()
    held = torch.zeros(len(pool), dtype=torch.bool)
    for label, count in enumerate(grid.validation):
        members = torch.nonzero(labels == label).flatten()
        held[
            members[torch.randperm(len(members), generator=draw("validation", seed, label))[:count]]
        ] = True
    rest, val = (pool.take(torch.nonzero(mine).flatten()) for mine in (~held, held))
    if source is not None:
        some = max(1, round(SOURCE_SHARE * len(source)))
        source = source.take(torch.randperm(len(source), generator=draw("source", seed))[:some])
    return Thief(rest, val, draw("subset", seed).initial_seed(), source)
