"""Plain tensors as a feed."""

import pytest
import torch

from lockforge.engine.feed import TensorFeed


@pytest.fixture
def numbered() -> TensorFeed:
    """Ten examples: the input of number i is (i, -i), its label i."""
    numbers = torch.arange(10)
    return TensorFeed(torch.stack([numbers, -numbers], 1).float(), numbers)


def test_without_a_generator_all_examples_come_in_order(numbered: TensorFeed) -> None:
    """Batches of 4, 4 and 2 that put together are the feed itself."""
    inputs, labels = zip(*numbered.batches(4, None), strict=True)
    assert [len(part) for part in labels] == [4, 4, 2]
    assert torch.cat(inputs).equal(numbered.inputs)
    assert torch.cat(labels).equal(numbered.labels)


def test_a_shuffled_pass_gives_no_example_twice_and_drops_the_short_batch(
    numbered: TensorFeed, generator: torch.Generator
) -> None:
    """Two batches of 4 of the ten, each input with its own label, in another order each pass."""
    passes = [list(numbered.batches(4, generator)) for _ in range(2)]
    orders = [torch.cat([labels for _, labels in batches]) for batches in passes]
    assert all(len(order) == len(order.unique()) == 8 for order in orders)
    assert not orders[0].equal(orders[1])
    assert all(
        inputs[:, 0].equal(labels.float()) for batches in passes for inputs, labels in batches
    )


def test_a_short_batch_is_kept_when_it_is_the_only_one(
    numbered: TensorFeed, generator: torch.Generator
) -> None:
    """Ten examples in batches of 64: one batch of ten."""
    ((_, labels),) = numbered.batches(64, generator)
    assert sorted(labels.tolist()) == list(range(10))


def test_plain_tensors_refuse_to_be_augmented(numbered: TensorFeed) -> None:
    """A recipe that crops features is a mistake of the caller, not silently something else."""
    with pytest.raises(ValueError, match="cannot be cropped"):
        next(numbered.batches(4, None, crop=1))
