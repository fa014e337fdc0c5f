"""What a network answers, and batch-norm statistics of other data."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lockforge.engine.evaluate import accuracy, confusion, logits_of, reestimate_batch_norm
from lockforge.engine.feed import TensorFeed
from lockforge.errors import DataError


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_answers_come_in_order_whatever_the_batch_size(
    make_net: Callable[[], nn.Module], val: TensorFeed, batch_size: int
) -> None:
    """The same logits as one pass over all examples in eval mode."""
    net = make_net()
    logits, labels = logits_of(net, val, batch_size=batch_size)
    torch.testing.assert_close(logits, net.eval()(val.inputs).detach())
    assert labels.equal(val.labels)
    assert not logits.requires_grad


def test_images_come_in_order_however_many_go_through_at_once(generator: torch.Generator) -> None:
    """Images of 64 px go through 32 at a time on the CPU; the answers are those of one pass over
    all, and none is lost.
    """
    seen: list[int] = []
    images = torch.randn(75, 1, 64, 64, generator=generator)

    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return x[:, 0, 0, :3]

    logits, _ = logits_of(Corner(), TensorFeed(images, torch.zeros(75, dtype=torch.int64)))
    assert seen == [32, 32, 11]
    assert logits.equal(images[:, 0, 0, :3])


def test_a_module_keeps_its_modes_and_statistics(
    make_net: Callable[[], nn.Module], val: TensorFeed
) -> None:
    """A network in train mode with its batch norm in eval mode is still so afterwards, and no
    statistic moved.
    """
    net = make_net().train()
    net[1].eval()
    before = net[1].running_mean.clone()
    logits_of(net, val)
    assert [part.training for part in net] == [True, False, True, True, True]
    assert net.training
    assert net[1].running_mean.equal(before)


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Three of four by the largest logit; two of three by the sign of a single one."""
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 3], [5, 0, 0]])
    assert accuracy(logits, torch.tensor([0, 1, 2, 2])) == 0.75
    assert accuracy(torch.tensor([1.0, -1, -1]), torch.tensor([1.0, 0, 1])) == pytest.approx(2 / 3)


def test_a_confusion_table_has_the_true_class_in_its_row(generator: torch.Generator) -> None:
    """Rows sum to the classes' counts, the diagonal to the right answers; one known confusion is
    where it should be.
    """
    logits, labels = (
        torch.randn(50, 4, generator=generator),
        torch.randint(4, (50,), generator=generator),
    )
    table = torch.tensor(confusion(logits, labels, 4))
    assert table.sum(1).equal(torch.bincount(labels, minlength=4))
    assert float(table.diag().sum()) / 50 == pytest.approx(accuracy(logits, labels))
    assert confusion(torch.tensor([[0.0, 0, 1]]), torch.tensor([1]), 3) == (
        (0, 0, 0),
        (0, 0, 1),
        (0, 0, 0),
    )


def test_statistics_become_those_of_the_feed(generator: torch.Generator) -> None:
    """One batch: exactly its mean and unbiased variance, whatever they were before; momentum and
    mode are as they were.
    """
    norm = nn.BatchNorm2d(2, momentum=0.03).train()
    norm.running_mean.fill_(9)
    images = 3 + 2 * torch.randn(20, 2, 3, 3, generator=generator)
    reestimate_batch_norm(norm, TensorFeed(images, torch.zeros(20)))
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, images.var((0, 2, 3)))
    assert (norm.momentum, norm.training) == (0.03, True)


def test_no_batch_is_so_short_that_it_counts_too_much(generator: torch.Generator) -> None:
    """Nine examples, at most eight a batch: 5 and 4, where 8 and a single outlier would put the
    mean near half of the outlier.
    """
    values = torch.cat([torch.randn(8, 1, generator=generator), torch.full((1, 1), 100.0)])
    norm = nn.BatchNorm1d(1)
    reestimate_batch_norm(norm, TensorFeed(values, torch.zeros(9)), batch_size=8)
    assert float(norm.running_mean) == pytest.approx(
        (float(values[:5].mean()) + float(values[5:].mean())) / 2
    )


def test_a_batch_norm_that_is_not_used_keeps_its_statistics() -> None:
    """A dead branch of a cell is left as it was."""

    class HalfUsed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dead = nn.BatchNorm1d(1), nn.BatchNorm1d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    module = HalfUsed()
    module.dead.running_mean.fill_(4)
    reestimate_batch_norm(module, TensorFeed(torch.tensor([[1.0], [3.0]]), torch.zeros(2)))
    assert float(module.dead.running_mean) == 4
    assert float(module.used.running_mean) == 2


def test_nothing_to_evaluate_on_is_a_data_error() -> None:
    """An empty split is named as the fault."""
    empty = TensorFeed(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
    for ask in (logits_of, reestimate_batch_norm):
        with pytest.raises(DataError, match="no examples"):
            ask(nn.BatchNorm1d(1), empty)
