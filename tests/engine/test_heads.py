"""Heads on frozen features."""

import torch

from lockforge.engine.evaluate import accuracy
from lockforge.engine.heads import fit_head
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

RECIPE = FitRecipe(steps=200, batch_size=32, optimizer="adam", learning_rate=0.01, select="last")


def test_a_head_separates_what_a_line_separates_in_any_unit() -> None:
    """Two classes apart in one of three features, which are far from zero and of very unlike size,
    one of them constant.
    """
    generator = torch_generator(0, "heads")
    labels = torch.randint(2, (256,), generator=generator)
    features = torch.randn(256, 3, generator=generator)
    features[:, 1] = (3 * (2 * labels - 1) + features[:, 1]) * 0.01 + 7
    features[:, 2] = 5
    head = fit_head(
        features * torch.tensor([10.0, 1.0, 1.0]), labels, 2, RECIPE, torch_generator(0, "batches")
    )
    assert accuracy(head(features * torch.tensor([10.0, 1.0, 1.0])), labels) > 0.97
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_the_global_random_state_is_left_alone() -> None:
    """And two heads of one generator's seed are equal."""
    features, labels = torch.eye(4).repeat(4, 1), torch.arange(4).repeat(4)
    before = torch.random.get_rng_state()
    one, other = (
        fit_head(features, labels, 4, RECIPE, torch_generator(0, "batches")) for _ in range(2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.weight, other.weight)
