"""The terms of the loss against closed forms and laws."""

import math

import pytest
import torch
from torch.nn import functional

from lockforge.prune._loss import ClassMeans, bounded_ce, fisher_ratio, squared_mmd, unit_features
from lockforge.randomness import torch_generator


def test_scatter_of_points_on_the_axes() -> None:
    """Two classes of unit vectors, each on an axis: means are the axes, half of each class apart
    from the middle by 1/2, none within.
    """
    features = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    between, within = ClassMeans(2).scatter(features, torch.tensor([0, 0, 1, 1]))
    assert float(between) == pytest.approx(0.5)
    assert float(within) == pytest.approx(0.0)


def test_within_and_between_make_up_the_whole() -> None:
    """For one batch alone, S_b + S_w is the mean squared distance from the middle (analysis of
    variance).
    """
    generator = torch_generator(0, "scatter")
    features = torch.randn(40, 7, 3, 2, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)
    between, within = ClassMeans(4).scatter(features, labels)
    unit = unit_features(features)
    assert float(between + within) == pytest.approx(
        float((unit - unit.mean(0)).square().sum(1).mean()), rel=1e-5
    )


def test_a_class_that_a_batch_lacks_is_no_mean_at_zero() -> None:
    """Three classes known, one in the batch: nothing lies between, whatever the others were."""
    means = ClassMeans(3)
    generator = torch_generator(0, "lacking")
    means.scatter(torch.randn(30, 5, generator=generator), torch.arange(30) % 3)
    between, _ = means.scatter(torch.randn(6, 5, generator=generator), torch.full((6,), 1))
    assert float(between) == pytest.approx(0.0, abs=1e-9)


def test_running_means_take_the_noise_out_of_small_batches() -> None:
    """Classes that are all alike: with two images of each in a batch S_b is noise; kept means
    leave under a third of it.
    """
    generator = torch_generator(0, "small batches")
    kept = ClassMeans(5)
    fresh, running = [], []
    for _ in range(60):
        features, labels = torch.randn(10, 8, generator=generator), torch.arange(10) % 5
        fresh.append(float(ClassMeans(5).scatter(features, labels)[0]))
        running.append(float(kept.scatter(features, labels)[0]))
    assert sum(running[20:]) < sum(fresh[20:]) / 3


def test_scatter_has_a_gradient_through_the_batch_only() -> None:
    """The kept means are data: a second step does not reach back into the first one's graph."""
    means = ClassMeans(2)
    for _ in range(2):
        features = torch.randn(8, 3, generator=torch_generator(0, "graph"), requires_grad=True)
        between, within = means.scatter(features, torch.arange(8) % 2)
        fisher_ratio(between, within).backward()
        assert features.grad is not None
        assert bool(features.grad.abs().sum() > 0)


def test_going_down_the_ratio_brings_classes_together() -> None:
    """Plain descent on the points themselves: the ratio falls to a hundredth."""
    generator = torch_generator(0, "descent")
    labels = torch.arange(20) % 2
    points = torch.randn(20, 4, generator=generator) + 2.0 * functional.one_hot(labels, 4)
    points.requires_grad_()
    ratios = []
    for _ in range(300):
        ratio = fisher_ratio(*ClassMeans(2).scatter(points, labels))
        (gradient,) = torch.autograd.grad(ratio, points)
        points.data -= 0.5 * gradient
        ratios.append(float(ratio.detach()))
    assert ratios[-1] < ratios[0] / 100


def test_the_cross_entropy_is_bounded_with_no_gradient_beyond() -> None:
    """At the bound nothing more is gained by being more wrong."""
    logits = torch.tensor([[9.0, 0.0]], requires_grad=True)
    value = bounded_ce(logits, torch.tensor([1]), 2.0)
    value.backward()
    assert float(value.detach()) == 2.0
    assert logits.grad is not None
    assert not bool(logits.grad.any())
    assert float(bounded_ce(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 10.0)) == pytest.approx(
        math.log(4)
    )


def test_the_discrepancy_is_zero_for_one_sample_and_grows_with_the_distance() -> None:
    """Equal samples: 0. The farther one is moved away, the larger, up to 2."""
    a = torch.randn(30, 3, generator=torch_generator(0, "mmd"))
    found = [float(squared_mmd(a, a + shift)) for shift in (0.0, 0.5, 2.0, 8.0)]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found == sorted(found)
    assert found[-1] < 2
