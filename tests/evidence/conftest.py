"""A thief without networks: attack points drawn from known true accuracies, so that every figure
has a known answer.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from lockforge.evidence.curves import choose, measure, verdict
from lockforge.randomness import numpy_generator
from lockforge.records import AttackPoint, Start, TransferAudit

GRID: tuple[tuple[int, int], ...] = (
    (1, 10),
    (10, 100),
    (0, 10_000),
)  # images per class, images in all; ln span = ln 1000
ATTACKERS: tuple[str, ...] = ("fine_tune", "linear_probe")
RATES: tuple[str, ...] = ("rate=0.01", "rate=0.1")
Truth = Mapping[Start, Sequence[float]]
Simulate = Callable[..., tuple[AttackPoint, ...]]

FLAT: Truth = {
    "release": (0.6,) * 3,
    "reference": (0.8,) * 3,
    "twin": (0.7,) * 3,
    "scratch_release": (0.4,) * 3,
    "scratch_reference": (0.4,) * 3,
    "dummy": (0.4,) * 3,
}


def simulate_points(
    truth: Truth,
    rng: np.random.Generator,
    *,
    noise: float = 0.0,
    seeds: int = 3,
    attackers: Sequence[str] = ATTACKERS,
    rates: Sequence[str] = RATES,
    budget: int = 1,
) -> tuple[AttackPoint, ...]:
    """One point for each start, attacker, setting, grid value and seed: validation and test are the
    truth plus independent normal noise.

    As in a real audit, test accuracies stand only where validation chose.
    """

    def seen(accuracy: float) -> float:
        return float(np.clip(accuracy + rng.normal(0, noise), 0, 1)) if noise else accuracy

    points = [
        AttackPoint(
            start=start,
            attacker=attacker,
            setting=setting,
            images_per_class=images,
            samples=samples,
            seed=seed,
            budget=budget,
            steps=100 * budget,
            flops=1e9 * budget,
            val_accuracy=seen(curve[i]),
            test_accuracy=seen(curve[i]),
        )
        for start, curve in truth.items()
        for attacker in attackers
        for setting in rates
        for i, (images, samples) in enumerate(GRID)
        for seed in range(seeds)
    ]
    chosen = set(choose(points))
    return tuple(
        point if point in chosen else point.model_copy(update={"test_accuracy": None})
        for point in points
    )


@pytest.fixture
def rng() -> np.random.Generator:
    """The draw of this test."""
    return numpy_generator(20240607, "a thief without networks")


@pytest.fixture
def simulate() -> Simulate:
    """`simulate_points`, as a fixture."""
    return simulate_points


@pytest.fixture
def flat() -> Truth:
    """Accuracies that do not depend on the images: release .6, reference .8, twin .7, empty
    networks .4. So R is 1/2 and 1/3.
    """
    return FLAT


@pytest.fixture
def audited(rng: np.random.Generator) -> TransferAudit:
    """A faultless audit of `FLAT` without noise; accuracies are tenths, so ten test images can show
    them.
    """
    points = simulate_points(FLAT, rng)
    measures = measure(points, test_samples=10)
    return TransferAudit(
        target="0" * 64,
        suite="quick",
        suite_version=1,
        classes=10,
        grid=tuple(images for images, _ in GRID),
        samples=tuple(samples for _, samples in GRID),
        seeds=(0, 1, 2),
        validation_samples=10,
        test_samples=10,
        points=points,
        measures=measures,
        verdict=verdict(measures, "quick"),
    )
