"""Who chooses, what he may see, and when the test split is touched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lockforge.audit._thief import AttackerData, Draw, GridPoint
from lockforge.audit.protocol import (
    Asking,
    AttackConfig,
    Attacker,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Item,
    Setting,
    Trained,
    Training,
    attack,
    in_step,
)
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe

ITEM = Item("release", "fake", 0)
POINT = GridPoint(5, 20)
FACTS = Capabilities(same_classes=False, head_fits=False, source_images=False)


@dataclass
class CountingTest:
    """A test split of four images of class 1 that counts how often it is read."""

    reads: int = 0

    def __len__(self) -> int:
        """Four images."""
        return 4

    def batches(
        self, *_given: object, **_named: object
    ) -> Iterator[tuple[Float[Tensor, "k c h w"], Int64[Tensor, " k"]]]:
        """All of them, once more."""
        self.reads += 1
        yield torch.zeros(4, 1, 6, 6), torch.ones(4, dtype=torch.int64)


class Always(nn.Module):
    """A network that always says one class."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Sure of its class."""
        return torch.eye(3)[self.label].repeat(len(x), 1)


def settings(_recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """Three settings."""
    return tuple(Setting("adam", rate, "own") for rate in (0.1, 0.2, 0.3))


def fake(
    _given: InitialModel,
    _loot: AttackerData,
    settings: Sequence[Setting],
    budget: Budget,
    _draw: Draw,
) -> Asking:
    """Validation prefers the second setting; on the test split, where class 1 is right, only the
    third would score.
    """
    yield []
    return [
        Attempt(setting, Always(label), val, budget.steps, 7.0)
        for setting, label, val in zip(settings, (0, 2, 1), (0.5, 0.75, 0.25), strict=True)
    ]


def terms() -> AttackConfig:
    """Any terms."""
    return AttackConfig(AuditRecipe(), FACTS, Budget(3, 8), partial(torch_generator, 0))


def test_validation_chooses_and_the_test_split_is_read_once(data: AttackerData) -> None:
    """The choice is validation's even where the test split would have chosen otherwise; the other
    settings are never tested.
    """
    test = CountingTest()
    # fakes
    points = attack(ITEM, Attacker("fake", fake, settings), None, {POINT: data}, test, terms())  # type: ignore[arg-type]
    assert test.reads == 1
    assert [point.test_accuracy for point in points] == [None, 0.0, None]
    assert [point.val_accuracy for point in points] == [0.5, 0.75, 0.25]


def test_a_point_says_what_it_cost_and_where_it_stands(data: AttackerData) -> None:
    """Start, attacker, setting, grid, seed, images, steps and operations are the attempt's."""
    points = attack(
        ITEM, Attacker("fake", fake, settings), None, {POINT: data}, CountingTest(), terms()
    )  # type: ignore[arg-type]  # fakes
    point = points[0]
    assert (point.start, point.attacker, point.images_per_class, point.seed) == (
        "release",
        "fake",
        5,
        0,
    )
    assert (point.setting, point.samples, point.steps, point.flops) == (
        "adam lr=0.1 bn=own",
        20,
        3,
        7.0,
    )


def test_every_attack_draws_from_generators_of_its_own(data: AttackerData) -> None:
    """Another seed, fraction, start, attacker or setting: other draws; the same names: the same."""
    drawn: list[int] = []

    def draws(
        _given: InitialModel,
        _loot: AttackerData,
        settings: Sequence[Setting],
        _budget: Budget,
        draw: Draw,
    ) -> Asking:
        drawn.extend(draw(setting).initial_seed() for setting in settings)
        yield []
        return [Attempt(setting, Always(0), 0.5, 1, 0.0) for setting in settings]

    other = GridPoint(1, 4)
    asked = [
        (ITEM, POINT),
        (ITEM, other),
        *(
            (Item(*item), POINT)
            for item in (("twin", "fake", 0), ("release", "x", 0), ("release", "fake", 1))
        ),
    ]
    for item, point in (*asked, asked[0]):
        attack(
            item, Attacker("draws", draws, settings), None, {point: data}, CountingTest(), terms()
        )  # type: ignore[arg-type]  # fakes
    assert len(set(drawn)) == 15
    assert drawn[-3:] == drawn[:3]


@pytest.mark.parametrize(("images", "batch", "seen"), [(5, 5, 50), (64, 64, 640), (300, 64, 640)])
def test_a_budget_is_in_steps_of_at_most_a_batch(images: int, batch: int, seen: int) -> None:
    """Few images are all taken at every step."""
    budget = Budget(10, 64)
    recipe = budget.recipe(Setting("sgd", 0.1, "own"), images)
    assert (recipe.steps, recipe.epochs, recipe.batch_size) == (10, None, batch)
    assert budget.seen(images) == seen


def test_attacks_in_step_get_their_own_trainings_back() -> None:
    """Each round's trainings are asked for together; who needs no more rounds drops out; the
    answers go to whom they belong.
    """
    rounds: list[list[str]] = []

    def asks(name: str, times: int) -> Asking:
        got: list[str] = []
        for time in range(times):
            # names stand for trainings
            back = yield [f"{name}{time}{i}" for i in range(time + 1)]  # type: ignore[misc]
            got += [one.module for one in back]  # type: ignore[misc]
        return got  # type: ignore[return-value]

    def train(wanted: Sequence[Training]) -> list[Trained]:
        rounds.append(list(wanted))  # type: ignore[arg-type]
        return [Trained(one, 0.5) for one in wanted]  # type: ignore[arg-type]

    found = in_step([asks("a", 1), asks("b", 0), asks("c", 2)], train)
    assert found == [["a00"], [], ["c00", "c10", "c11"]]
    assert rounds[:2] == [["a00", "c00"], ["c10", "c11"]]
