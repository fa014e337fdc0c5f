"""An oracle answers and nothing else; numbered images keep their labels closed."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lockforge.audit._queries import (
    entropy_of_mean,
    fresh_head,
    numbered,
    oracle_of,
    phases,
    soft_cross_entropy,
    with_head,
)
from lockforge.audit._thief import AttackerData
from lockforge.audit.protocol import Budget, InitialModel
from lockforge.data.batches import Pool
from lockforge.engine.evaluate import logits_of
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell, Op

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))


def network() -> CellNetwork:
    """A random network for four classes."""
    shape = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 6, 6),
    )
    return build(shape, torch_generator(0, "asked"))


def test_an_oracle_gives_no_gradient_and_cannot_be_brought_into_train_mode() -> None:
    """Its outputs carry no graph, and asking in train mode changes no statistics."""
    oracle, _ = oracle_of(InitialModel(network()))
    before = state(oracle)
    oracle.train()
    images = torch.randn(8, 1, 6, 6, generator=torch_generator(0, "x"), requires_grad=True)
    assert not oracle(images).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(oracle).items())


def test_an_oracle_answers_with_the_head_that_came_with_the_network() -> None:
    """Seven source classes: seven outputs, the head's own; the given network stays as it is."""
    given = network()
    head = fresh_head(16, 7, torch_generator(0, "head"))
    images = torch.randn(5, 1, 6, 6, generator=torch_generator(0, "x"))
    oracle, outputs = oracle_of(InitialModel(given, source_head=head.state_dict()))
    with torch.no_grad():
        wanted = head(given.eval().features(images))
    assert outputs == 7
    assert torch.equal(oracle(images), wanted)
    assert given.head.out_features == 4
    assert all(parameter.requires_grad for parameter in given.parameters())
    assert torch.equal(with_head(given, head.state_dict()).eval()(images), wanted)


def test_numbered_images_have_rows_for_labels_and_the_true_ones_stay_closed(
    data: AttackerData, closed: Callable[[Pool], Pool]
) -> None:
    """The labels are not touched; a network sees the same images."""
    hidden = closed(data.train)
    with pytest.raises(AssertionError, match="a closed label was read"):
        hidden.take(torch.arange(2))
    outputs, rows = logits_of(network(), numbered(hidden))
    assert rows.tolist() == list(range(20))
    assert torch.equal(outputs, logits_of(network(), data.train)[0])


def test_soft_cross_entropy_of_sure_targets_is_cross_entropy() -> None:
    """One-hot targets: torch's own figure, whatever the order of the rows."""
    generator = torch_generator(0, "soft")
    outputs, labels = torch.randn(6, 3, generator=generator), torch.tensor([0, 2, 1, 1, 0, 2])
    rows = torch.tensor([5, 3, 1])
    value = soft_cross_entropy(nn.functional.one_hot(labels, 3).float())(outputs[rows], rows)
    torch.testing.assert_close(value, nn.functional.cross_entropy(outputs[rows], labels[rows]))


def test_the_entropy_of_the_mean_rewards_saying_all_classes() -> None:
    """- ln 2 for one image of each of two classes, 0 for the same class twice."""
    sure = 50 * torch.eye(2)
    torch.testing.assert_close(float(entropy_of_mean(sure)), -0.693147, atol=1e-5, rtol=0)
    assert abs(float(entropy_of_mean(sure[[0, 0]]))) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 7, 24])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_phases_spend_the_budget_and_no_more(steps: int, share: float) -> None:
    """Both together are the steps, and the last one is never empty."""
    first, second = phases(Budget(steps, 8), share)
    assert first.steps + second.steps == steps
    assert second.steps >= 1
