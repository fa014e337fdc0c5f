"""SHOT and NRC adapt a network to shifted images and never read a label of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional

from lockforge.audit._source_free import hypothesis
from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._nrc import NRC, OTHERS, agreement, neighbours, wanted
from lockforge.audit.attackers._shot import SHOT, information, pseudo_labels
from lockforge.audit.protocol import Attacker, Attempt, Budget, Capabilities, InitialModel
from lockforge.data.batches import Pool, load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.files import Files
from lockforge.models.networks import load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Cell, Checkpoint, ImageSet, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "adapted")
SAME = Capabilities(same_classes=True, head_fits=True, source_images=True)
RECIPE = AuditRecipe(fine_tune_rates=(0.01,))
BOTH = pytest.mark.parametrize("attacker", [SHOT, NRC], ids=lambda one: one.name)

Run = Callable[..., Sequence[Attempt]]
Train = Callable[..., Checkpoint]


def shifted(pool: Pool) -> Pool:
    """Darker, black to the left and at the top: statistics of batch norm alone do not undo it."""
    fade = (
        torch.linspace(0, 1, pool.images.shape[-1])
        * torch.linspace(0, 1, pool.images.shape[-2])[:, None]
    )
    return replace(pool, images=(pool.images * fade).to(torch.uint8))


@pytest.fixture(scope="module")
def known(files: Files, target: ImageSet, train: Train) -> InitialModel:
    """A network that knows the four patterns, with the head that it was trained with and a new
    one.
    """
    checkpoint = train(CELL, target, 80)
    network = load(checkpoint.architecture, files.get_tensors(checkpoint.weights))
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    torch.nn.init.zeros_(network.head.weight)
    return InitialModel(network, old_head=head, source_head=head)


@pytest.fixture
def unlabelled(files: Files, target: ImageSet, closed: Callable[[Pool], Pool]) -> AttackerData:
    """Eighty shifted images whose labels raise, and forty to validate with."""
    train, val = (shifted(load_pool(target, split, files)) for split in ("train", "val"))
    return AttackerData(train=closed(train), val=val)


@BOTH
def test_shifted_images_are_learned_without_a_label(
    attacker: Attacker, known: InitialModel, unlabelled: AttackerData, run_attack: Run
) -> None:
    """The labels of the training images raise when touched; validation still rises above what
    statistics alone give.
    """
    tried = attacker.settings(RECIPE, SAME)
    before = max(
        accuracy(*logits_of(hypothesis(known, unlabelled.val, one, "cpu"), unlabelled.val))
        for one in tried
    )
    attempts = run_attack(attacker.attack, known, unlabelled, tried, Budget(40, 40), DRAW)
    after = max(attempt.val_accuracy for attempt in attempts)
    assert before < 0.8
    assert after > before + 0.02, (before, [one.val_accuracy for one in attempts])
    assert all(
        accuracy(*logits_of(one.network, unlabelled.val)) == one.val_accuracy for one in attempts
    )


@BOTH
def test_the_given_network_stays_and_shot_keeps_the_head(
    attacker: Attacker, known: InitialModel, unlabelled: AttackerData, run_attack: Run
) -> None:
    """The hypothesis is the old head: frozen by SHOT, trained by NRC."""
    before = state(known.network)
    assert known.old_head is not None
    for attempt in run_attack(
        attacker.attack, known, unlabelled, attacker.settings(RECIPE, SAME), Budget(4, 8), DRAW
    ):
        kept = all(
            torch.equal(attempt.network.head.state_dict()[name], tensor)
            for name, tensor in known.old_head.items()
        )
        assert kept == (attacker is SHOT)
        assert not torch.equal(state(attempt.network)["stem.0.weight"], before["stem.0.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(known.network).items())


@BOTH
@pytest.mark.parametrize("steps", [1, 6])
def test_rounds_spend_the_budget(
    attacker: Attacker, known: InitialModel, unlabelled: AttackerData, run_attack: Run, steps: int
) -> None:
    """Closed form: 3 passes for each of 8 images a step, 1 for each of 80 images and round, 1 for
    each whose statistics are taken.
    """
    tried = attacker.settings(RECIPE, SAME)
    pass_of_one, rounds = flops(known.network.architecture), min(steps, 4)
    for attempt in run_attack(attacker.attack, known, unlabelled, tried, Budget(steps, 8), DRAW):
        renewed = attempt.setting.batch_norm == "re-estimated"
        assert attempt.steps == steps
        assert attempt.operations == pass_of_one * (3 * 8 * steps + 80 * (rounds + renewed))


@BOTH
def test_other_classes_cannot_be_learned_without_labels(
    attacker: Attacker, facts: Capabilities
) -> None:
    """The reason is given where the target's classes are not the source's, four settings where they
    are.
    """
    assert "not the source's" in attacker.unfit(facts)
    assert attacker.unfit(SAME) == ""
    assert len(set(attacker.settings(RECIPE, SAME))) == 4


def test_pseudo_labels_follow_clusters_and_not_a_biased_head() -> None:
    """Two clear clusters, and a head that gives one image of the second to the first class: it is
    given back.
    """
    features = torch.tensor(
        [[5.0, 0.1], [5.0, 0.2], [4.0, 0.0], [0.1, 5.0], [0.0, 4.0], [0.2, 5.0]]
    )
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0], [0.5, 0.0]])
    assert logits.argmax(1).tolist() == [0, 0, 0, 1, 1, 0]
    assert pseudo_labels(features, logits).tolist() == [0, 0, 0, 1, 1, 1]


def test_shots_loss_is_the_papers() -> None:
    """Entropy, diversity and cross-entropy of three images by hand."""
    features, logits = torch.eye(3), 2 * torch.eye(3)
    outputs, rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([2, 1])
    p = functional.softmax(outputs, 1)
    mean = p.mean(0)
    by_hand = (
        -(p * p.log()).sum(1).mean()
        + (mean * mean.log()).sum()
        + 0.3 * -(p[0, 2].log() + p[1, 1].log()) / 2
    )
    torch.testing.assert_close(information(features, logits)(outputs, rows), by_hand)


def test_neighbours_are_the_nearest_others() -> None:
    """Against sorting all cosines, image by image; itself is never among them, and few images have
    few.
    """
    features = torch.randn(9, 4, generator=torch_generator(0, "near"))
    cosine = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    for row, found in enumerate(neighbours(features, 3).tolist()):
        ranked = sorted(
            (other for other in range(9) if other != row),
            key=lambda other: -float(cosine[row, other]),
        )
        assert found == ranked[:3]
    assert neighbours(features[:2], 3).tolist() == [[1], [0]]
    assert neighbours(features[:1], 3).shape == (1, 0)


def test_a_reciprocal_neighbour_counts_in_full() -> None:
    """Against loops over the definition: A_ik is 1 when i is among the nearest two of k, else a
    tenth; and so are neighbours beyond.
    """
    generator = torch_generator(0, "wanted")
    features, logits = (
        torch.randn(8, 4, generator=generator),
        torch.randn(8, 3, generator=generator),
    )
    p, near = logits.softmax(1), neighbours(features, 3).tolist()
    affinities = set()
    for i, found in enumerate(wanted(features, logits)):
        total = p[i].clone()
        for k in near[i]:
            affinity = 1.0 if i in near[k][:2] else OTHERS
            affinities.add(affinity)
            total += affinity * p[k] + OTHERS * sum(p[m] for m in near[k][:2])
        torch.testing.assert_close(found, total)
    assert len(affinities) == 2


def test_nrcs_loss_falls_as_predictions_agree_with_the_neighbourhood() -> None:
    """Saying what the neighbours say costs less than saying the opposite."""
    features = torch.tensor(
        [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]]
    )
    logits = 4 * functional.one_hot(torch.tensor([0, 0, 0, 1, 1, 1]), 2).float()
    loss, rows = agreement(features, logits), torch.tensor([0, 3])
    assert float(loss(logits[[0, 3]], rows)) < float(loss(logits[[3, 0]], rows)) - 1
