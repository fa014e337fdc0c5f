"""Ridge regression's leave-one-out error is the one of refitting, and its linear map the one that
is wanted.
"""

import torch

from lockforge.audit._closed_form import PENALTIES, left_out_error, ridge, standardised, targets_of
from lockforge.randomness import torch_generator


def test_leaving_out_in_closed_form_equals_refitting_without_each_image() -> None:
    """Twelve ridge regressions on eleven images each, with the means left as they are."""
    generator = torch_generator(0, "left out")
    z, _, _ = standardised(torch.randn(12, 3, generator=generator))
    y, _ = targets_of(torch.randint(4, (12,), generator=generator), 4)
    errors = []
    for out in range(12):
        kept = torch.arange(12) != out
        ones = torch.cat([z, torch.ones(12, 1, dtype=z.dtype)], 1)  # the mean, without penalty
        ballast = 12 * 0.1 * torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=z.dtype))
        coefficients = torch.linalg.solve(
            ones[kept].mT @ ones[kept] + ballast, ones[kept].mT @ y[kept]
        )
        errors.append((y[out] - ones[out] @ coefficients).square().mean())
    both = left_out_error(torch.stack([z, 2 * z]), y, 0.1)
    torch.testing.assert_close(both[0], torch.stack(errors).mean())
    assert both[1] != both[0]


def test_ridge_finds_a_linear_rule_on_features_of_any_scale() -> None:
    """Classes that differ along one line are read off raw features far from zero; a constant
    feature does no harm.
    """
    features = torch.randn(200, 4, generator=torch_generator(0, "rule")) * 300 + 1000
    features[:, 3] = 5
    labels = (features[:, 0] - features[:, 1] > 0).long()
    head = ridge(features, labels, 2)
    assert float((head(features).argmax(1) == labels).double().mean()) > 0.95


def test_ridge_takes_the_penalty_that_leaves_the_least_error() -> None:
    """On noise the largest penalty, on a clean rule the smallest: the weights shrink or do not."""
    generator = torch_generator(0, "penalty")
    features = torch.randn(30, 10, generator=generator)
    noise, clean = torch.randint(2, (30,), generator=generator), (features[:, 0] > 0).long()
    z, _, _ = standardised(features)
    for labels in (noise, clean):
        y, mean = targets_of(labels, 2)
        best = min(PENALTIES, key=lambda penalty: float(left_out_error(z[None], y, penalty)))
        wanted = torch.linalg.solve(z.mT @ z / 30 + best * torch.eye(10), z.mT @ y / 30)
        torch.testing.assert_close(
            ridge(features, labels, 2)(features).double(), z @ wanted + mean, atol=1e-5, rtol=1e-4
        )
