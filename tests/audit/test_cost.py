"""What an audit is counted to ask for is what it asks for: the same items, trainings, steps and
passes as the real attacks.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

from lockforge.audit import protocol
from lockforge.audit._thief import GridPoint
from lockforge.audit.attackers import SUITES
from lockforge.audit.cost import AuditEffort, workload_of
from lockforge.audit.protocol import Budget, Item, Trained, Training
from lockforge.audit.stage import AuditContext, attack_item, plan_items, set_scene
from lockforge.data.batches import Batch, Pool
from lockforge.engine.workload import added
from lockforge.files import Files
from lockforge.recipe import AuditRecipe
from lockforge.records import ImageSet, Subjects
from lockforge.runs import Work
from tests.audit.conftest import OTHER, PLAIN, Train, image_set

SHORT = {
    "seeds": 2,
    "steps": 4,
    "probe_steps": 3,
    "batch_size": 16,
    "rates": (0.01,),
    "sgd_rates": (0.1,),
}


FULL = AuditRecipe(suite="full", images_per_class=(1, 20, 0), **SHORT)


def items_of(context: AuditContext) -> dict[Item, tuple[GridPoint, ...]]:
    """The audit's items."""
    return plan_items(
        context.starts.values(), context.terms.facts, context.grid, context.terms.recipe
    )


@pytest.fixture(scope="module")
def work(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A folder of an audit's own."""
    return Work(files=files, folder=tmp_path_factory.mktemp("effort"), seed=0)


@pytest.fixture(scope="module")
def alike(files: Files) -> ImageSet:
    """Five other patterns under the names of the source's: source-free attackers and the old head
    fit.
    """
    return image_set(files, "alike", 5)


@pytest.fixture(scope="module")
def full(
    subjects: Subjects, source: ImageSet, alike: ImageSet, work: Work
) -> tuple[AuditEffort, AuditContext]:
    """The largest suite, counted and ready to be attacked."""
    return workload_of(subjects, source, alike, FULL, work.files), set_scene(
        subjects, source, alike, FULL, work=work
    )


@pytest.fixture(scope="module")
def subjects(source: ImageSet, train: Train) -> Subjects:
    """Three untrained networks: a release, its twin, and a reference of another cell."""
    release = train(PLAIN, source, 0)
    twin = release.model_copy(update={"weights": train(PLAIN, source, 1).weights})
    return Subjects(release=release, twin=twin, reference=train(OTHER, source, 0))


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images passed in order, without being trained on."""
    seen: Counter[str] = Counter()
    real = Pool.batches

    def batches(
        self: Pool, size: int, generator: torch.Generator | None, **more: object
    ) -> Iterator[Batch]:
        for images, labels in real(self, size, generator, **more):  # type: ignore[arg-type]
            if generator is None and size > 2:  # fewer are only a look at their shape
                seen["images"] += len(labels)
            yield images, labels

    monkeypatch.setattr(Pool, "batches", batches)
    return seen


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int, int]]:
    """Trainings that were really asked for, by what is trained, steps and examples."""
    seen: Counter[tuple[str, int, int]] = Counter()
    real = protocol.train_all

    def train_all(wanted: Sequence[Training], budget: Budget) -> list[Trained]:
        for one in wanted:
            kind = "head" if isinstance(one.module, nn.Linear) else "network"
            seen[kind, int(one.recipe.steps or 0), min(one.recipe.batch_size, len(one.train))] += 1
        return real(wanted, budget)

    monkeypatch.setattr(protocol, "train_all", train_all)
    return seen


@pytest.mark.parametrize("suite", ["quick", "paper"])
def test_the_items_are_those_of_the_audit_in_its_order(
    suite: str, subjects: Subjects, source: ImageSet, target: ImageSet, work: Work
) -> None:
    """Starts that are one network, attackers that do not fit and checks with more budget
    included.
    """
    recipe = AuditRecipe(suite=suite, images_per_class=(1, 2, 0), **SHORT)
    context = set_scene(subjects, source, target, recipe, work=work)
    counted = workload_of(subjects, source, target, recipe, work.files)
    assert list(counted.items) == list(items_of(context))
    assert counted.grid == context.grid


def test_checks_with_more_budget_are_counted_where_they_are_made(
    full: tuple[AuditEffort, AuditContext],
) -> None:
    """Of the suites that check their budget too, the items are the audit's, in its order."""
    counted, context = full
    assert list(counted.items) == list(items_of(context))
    assert {item.budget for item in counted.items} == {1, SUITES["full"].check}


@pytest.mark.parametrize(
    "attacker", [*(one.name for one in SUITES["full"].attackers), "from-scratch"]
)
def test_what_an_attack_is_counted_to_train_it_trains(
    attacker: str,
    full: tuple[AuditEffort, AuditContext],
    trained: Counter[tuple[str, int, int]],
    passed: Counter[str],
    work: Work,
) -> None:
    """Every training with its steps and its batch, and every image passed: counted before,
    counted while it happens.
    """
    counted_items, context = full
    item = next(item for item in items_of(context) if item.attacker == attacker)
    effort = counted_items.items[item]
    passed.clear()
    samples = tuple(point.samples for point in items_of(context)[item])
    attack_item(context, item.start, item.attacker, item.seed, item.budget, samples, work=work)
    counted: Counter[tuple[str, int, int]] = Counter()
    for one in effort.fits:
        counted[one.of, one.steps, one.examples] += one.trainings
    assert counted == trained
    if attacker != "disguise":  # its queries are no passes of a data set
        validated = sum(one.trainings * one.validated for one in effort.fits if one.of == "network")
        assert effort.passed + validated == passed["images"]


def test_efforts_are_added_kind_by_kind(
    subjects: Subjects, source: ImageSet, target: ImageSet, work: Work
) -> None:
    """All items together have as many trainings, steps and passes as one by one."""
    items = workload_of(
        subjects, source, target, AuditRecipe(images_per_class=(1, 0), **SHORT), work.files
    ).items.values()
    whole = added(items)
    assert (whole.trainings, whole.steps) == (
        sum(one.trainings for one in items),
        sum(one.steps for one in items),
    )
    assert whole.passed == sum(one.passed for one in items)
    assert len(whole.fits) < sum(len(one.fits) for one in items)
