"""Source-only repair teaches a network to see through disturbances, then hands it back with the
thief's head.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import kl_div

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._repair import COPIES, disturbed, lesson, repair, settings, unfit
from lockforge.audit.protocol import Attempt, Budget, Capabilities, InitialModel, train_all
from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, build, load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Cell, Checkpoint, ImageSet, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "repaired")

Run = Callable[..., Sequence[Attempt]]
Train = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def teacher(files: Files, source: ImageSet, train: Train) -> CellNetwork:
    """A network that knows the source's five patterns."""
    checkpoint = train(CELL, source, 80)
    return load(checkpoint.architecture, files.get_tensors(checkpoint.weights))


@pytest.fixture(scope="module")
def given(teacher: CellNetwork) -> InitialModel:
    """The same with a new head for four classes, and the old one beside it."""
    fresh = build(teacher.architecture.model_copy(update={"classes": 4}), DRAW("fresh"))
    body = {name: tensor for name, tensor in state(teacher).items() if not name.startswith("head.")}
    head = {f"head.{name}": tensor for name, tensor in fresh.head.state_dict().items()}
    return InitialModel(
        load(fresh.architecture, {**body, **head}), source_head=teacher.head.state_dict()
    )


@pytest.fixture
def robbed(data: AttackerData, files: Files, source: ImageSet) -> AttackerData:
    """The thief's images, and forty of the source's."""
    return replace(data, source=load_pool(source, "train", files).take(torch.arange(40)))


def test_disturbed_copies_differ_and_are_images() -> None:
    """No copy is the original, no two draws are the same, the same draw gives the same."""
    images = torch.randint(256, (6, 3, 8, 8), generator=DRAW("images"), dtype=torch.uint8)
    one, again, other = (disturbed(images, DRAW(name)) for name in ("a", "a", "b"))
    assert one.dtype == torch.uint8
    assert one.shape == images.shape
    assert torch.equal(one, again)
    assert all(
        not torch.equal(a, b) and not torch.equal(a, c)
        for a, b, c in zip(one, other, images, strict=True)
    )


def test_a_lesson_has_labels_for_clean_images_and_the_teachers_word_for_copies(
    teacher: CellNetwork, robbed: AttackerData
) -> None:
    """The loss is least, row by row, at the label and at what the teacher says of the clean
    image.
    """
    source = robbed.source
    assert source is not None
    taught = lesson(teacher, source, "cpu", DRAW("lesson"))
    count = len(source)
    assert len(taught.images) == (1 + COPIES) * count
    assert torch.equal(taught.images.images[:count], source.images)
    said = logits_of(teacher, source)[0]
    row = torch.tensor([count + 7])
    assert (
        torch.argmin(
            torch.stack(
                [taught.loss(50 * torch.eye(5)[k : k + 1], torch.tensor([7])) for k in range(5)]
            )
        )
        == source.labels[7]
    )
    at_teacher = taught.loss(said[7:8], row)
    others = [
        taught.loss(said[7:8] + 0.5 * torch.randn(1, 5, generator=DRAW("other", i)), row)
        for i in range(10)
    ]
    assert all(float(at_teacher) < float(other) for other in others)


def test_a_repaired_network_sees_through_new_disturbances(
    given: InitialModel, robbed: AttackerData, facts: Capabilities, files: Files, source: ImageSet
) -> None:
    """Of disturbed source images that it was not repaired with it says more nearly what it said of
    the clean ones.
    """
    budget, unseen = Budget(80, 40), load_pool(source, "val", files)
    robbed = replace(robbed, source=load_pool(source, "train", files))
    wanted = next(repair(given, robbed, settings(AuditRecipe(), facts)[:1], budget, DRAW))[0]
    assert wanted.recipe.steps == 40
    fresh = replace(unseen, images=disturbed(unseen.images, DRAW("fresh ones")))
    said = logits_of(wanted.module, unseen)[0].log_softmax(1)
    before, after = (
        float(
            kl_div(
                logits_of(network, fresh)[0].log_softmax(1),
                said,
                reduction="batchmean",
                log_target=True,
            )
        )
        for network in (wanted.module, train_all([wanted], budget)[0].module)
    )
    assert after < 0.97 * before


def test_the_thief_gets_the_repaired_body_with_his_own_head(
    given: InitialModel, robbed: AttackerData, facts: Capabilities
) -> None:
    """What is fine-tuned has the weights that the repair ended with, his head, and his statistics;
    the steps add up.
    """
    budget = Budget(8, 8)
    tried = settings(AuditRecipe(), facts)
    under_way = repair(given, robbed, tried, budget, DRAW)
    first = next(under_way)
    back = train_all(first, budget)
    second = under_way.send(back)
    for begun, one, then in zip(first, back, second, strict=True):
        ended, after = state(one.module), state(then.module)
        kernels = [name for name, tensor in after.items() if tensor.dim() == 4]
        assert all(torch.equal(ended[name], after[name]) for name in kernels)
        assert torch.equal(after["head.weight"], given.network.head.weight)
        assert not torch.equal(ended["last.running_mean"], after["last.running_mean"])
        # both are given in steps
        assert begun.recipe.steps + then.recipe.steps == 8  # type: ignore[operator]
        assert then.train is robbed.train
    assert [one.recipe.steps for one in first] == [4, 2, 4, 2]


def test_validation_and_operations(
    given: InitialModel, robbed: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """Closed form: 3 passes for 8 steps of 8 images, 1 for each of 40 source images and of 20 for
    the statistics; the start stays.
    """
    before = state(given.network)
    for attempt in run_attack(
        repair, given, robbed, settings(AuditRecipe(), facts), Budget(8, 8), DRAW
    ):
        assert accuracy(*logits_of(attempt.network, robbed.val)) == attempt.val_accuracy
        assert attempt.operations == flops(given.network.architecture) * (3 * 64 + 40 + 20)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given.network).items())


def test_a_network_without_a_head_of_its_own_gets_one_for_the_repair(
    given: InitialModel, robbed: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """An empty network passed off as a release is repaired with a fresh head; a single step is for
    the thief's images.
    """
    for attempt in run_attack(
        repair, given.network, robbed, settings(AuditRecipe(), facts), Budget(1, 8), DRAW
    ):
        assert attempt.steps == 1


def test_without_source_images_there_is_no_repair(
    given: InitialModel, data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """The facts give the reason; asked for all the same, it is an error that says what is
    missing.
    """
    assert unfit(facts) == ""
    assert "none of the source's images" in unfit(replace(facts, source_images=False))
    with pytest.raises(DataError, match="needs images of the source"):
        run_attack(repair, given, data, settings(AuditRecipe(), facts), Budget(2, 8), DRAW)
