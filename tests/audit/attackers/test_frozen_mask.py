"""Pruned weights stay zero, the rest is trained, and who does not honour the mask does better."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._frozen_mask import FROZEN_MASK, frozen_mask, mask_of
from lockforge.audit.attackers._full import full
from lockforge.audit.attackers._regrow import regrow
from lockforge.audit.protocol import (
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    Trained,
    Training,
    in_step,
    train_all,
)
from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Cell, Checkpoint, ImageSet, Op

Run = Callable[..., Sequence[Attempt]]
Small = Callable[..., CellNetwork]
Prune = Callable[[CellNetwork, float], CellNetwork]
DRAW = partial(torch_generator, 0, "frozen")
PLAIN = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))


def test_zeros_stay_and_everything_else_moves(
    small: Small, prune: Prune, data: AttackerData, run_attack: Run, facts: Capabilities
) -> None:
    """After the attack the zeros of every kernel are where they were; all other weights, biases and
    the head have changed.
    """
    given = prune(small(), 0.5)
    (one,) = run_attack(
        frozen_mask, given, data, FROZEN_MASK.settings(AuditRecipe(), facts), Budget(5, 8), DRAW
    )
    before = state(given)
    for name, after in one.network.named_parameters():
        pruned = (before[name] == 0) & (after.dim() > 1)
        assert torch.equal(after == 0, pruned), name
        assert bool((after != before[name])[~pruned].all()), name


def test_the_mask_is_of_kernels_that_have_zeros(small: Small) -> None:
    """A batch norm's shifts are zero in every new network and are no pruned weights, nor is a zero
    of the head.
    """
    network = small()
    assert not bool(network.stem[1].bias.any())  # type: ignore[operator,union-attr]
    with torch.no_grad():
        network.head.weight[0] = 0
        network.stem[0].weight[1] = 0  # type: ignore[operator,union-attr]
    (name,) = found = mask_of(network)
    assert name == "stem.0.weight"
    assert found[name].flatten(1).mean(1).tolist() == [1, 0, 1, 1]


def test_it_is_trained_as_published(small: Small, data: AttackerData, facts: Capabilities) -> None:
    """One setting: Adam at a constant 1e-4 on all the budget's steps, last weights."""
    asked: list[Training] = []

    def train(wanted: Sequence[Training]) -> list[Trained]:
        asked.extend(wanted)
        return train_all(wanted, Budget(7, 8))

    in_step(
        [
            frozen_mask(
                InitialModel(small()),
                data,
                FROZEN_MASK.settings(AuditRecipe(), facts),
                Budget(7, 8),
                DRAW,
            )
        ],
        train,
    )
    (recipe,) = (one.recipe for one in asked)
    assert (
        recipe.optimizer,
        recipe.learning_rate,
        recipe.schedule,
        recipe.select,
        recipe.steps,
    ) == ("adam", 1e-4, "constant", "last", 7)


def test_a_mask_holds_a_thief_back_and_regrowing_does_not(
    train: Callable[..., Checkpoint], prune: Prune, files: Files, target: ImageSet, run_attack: Run
) -> None:
    """A network that knew the thief's task until its largest weights were zeroed: at one rate and
    budget, on each of three seeds, full fine-tuning and regrowing beat the frozen mask by at least
    a fifth of the test images.
    """
    pools = [load_pool(target, split, files) for split in ("train", "val", "test")]
    knowing = train(PLAIN, target, 60)
    locked = prune(load(knowing.architecture, files.get_tensors(knowing.weights)), 0.97)
    assert accuracy(*logits_of(locked, pools[2])) <= 0.3
    scores: dict[str, list[float]] = {"mask": [], "full": [], "regrow": []}
    for seed in range(3):
        for name, attack, also in (
            ("mask", frozen_mask, ()),
            ("full", full, (("head", "new"),)),
            ("regrow", regrow, (("share", 0.0), ("scale", 1.0))),
        ):
            setting = Setting("adam", 0.01, "re-estimated", also)
            (one,) = run_attack(
                attack,
                locked,
                AttackerData(*pools[:2]),
                [setting],
                Budget(25, 16),
                partial(torch_generator, seed),
            )
            scores[name].append(accuracy(*logits_of(one.network, pools[2])))
    for held, trained, grown in zip(*scores.values(), strict=True):
        assert held <= min(trained, grown) - 0.2, scores
