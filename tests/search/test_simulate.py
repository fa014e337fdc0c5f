"""Made-up targets: exact cosine and length, signs, and the least reachable cosine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockforge.errors import DataError
from lockforge.randomness import numpy_generator
from lockforge.search.simulate import cosines_to, isotropic, least_cosine, mixture


def tasks(count: int = 6, dimension: int = 20, seed: int = 0) -> np.ndarray:
    """Heavy-tailed non-negative vectors, as Fisher diagonals are."""
    return numpy_generator(seed, "tasks").exponential(size=(count, dimension)) ** 2


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000), st.integers(2, 60))
def test_isotropic_targets_have_the_cosine_and_the_length_asked_for(
    cosine: float, seed: int, dimension: int
) -> None:
    """cos(z_S, z_T) = d and |z_T| = |z_S|, for any d in [0, 1]."""
    source = tasks(1, dimension, seed)[0]
    found = isotropic(source, 5, cosine, numpy_generator(seed, "draw"))
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(source), rtol=1e-12)
    assert np.allclose(found @ source / np.linalg.norm(source) ** 2, cosine, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_mixture_targets_are_also_non_negative(share: float, seed: int) -> None:
    """The same cosine and length, and no entry below zero, for every cosine from the least
    reachable to 1.
    """
    source, others = tasks(1, 20, seed)[0], tasks(6, 20, seed + 1)
    least = least_cosine(source, others)
    cosine = least + share * (1 - least)
    found = mixture(source, others, 5, cosine, numpy_generator(seed, "draw"))
    assert (found >= 0).all()
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(source), rtol=1e-7)
    assert np.allclose(cosines_to(source, found), cosine, atol=1e-7)


def test_isotropic_targets_have_entries_no_fisher_diagonal_has() -> None:
    """Why the mixture is the default: at .9 a large share of the paper's entries is negative
    (methods: 16 to 44 %).
    """
    found = isotropic(tasks(1, 500)[0], 10, 0.9, numpy_generator(0, "draw"))
    assert 0.16 < (found < 0).mean() < 0.5


def test_no_mixture_is_farther_than_the_farthest_task() -> None:
    """`least_cosine` is a bound: 2,000 random non-negative mixtures stay above it."""
    source, others = tasks(1)[0], tasks(6, seed=3)
    weights = numpy_generator(0, "weights").dirichlet(np.full(6, 0.2), size=2000)
    assert min(cosines_to(source, weights @ others)) >= least_cosine(source, others) - 1e-12


def test_a_cosine_out_of_reach_names_the_least_reachable() -> None:
    """The error gives the figure, and its hint is a value that works."""
    source, others = tasks(1)[0], tasks(6, seed=3)
    least = least_cosine(source, others)
    with pytest.raises(DataError, match=f"{least:.4f}") as caught:
        mixture(source, others, 2, least - 0.01, numpy_generator(0, "draw"))
    hinted = float(caught.value.hint.split("at least ")[1].split(",")[0])
    assert mixture(source, others, 2, hinted, numpy_generator(0, "draw")).shape == (2, 20)


def test_a_source_that_is_itself_a_task_can_be_left() -> None:
    """A shipped task parallel to the source is no direction; the others are used."""
    others = tasks(6, seed=3)
    found = mixture(2 * others[0], others, 8, 0.95, numpy_generator(0, "draw"))
    assert np.isfinite(found).all()
    assert np.allclose(cosines_to(others[0], found), 0.95, atol=1e-7)


def test_targets_differ_from_one_another() -> None:
    """Ten draws are ten tasks."""
    found = mixture(tasks(1)[0], tasks(6, seed=3), 10, 0.9, numpy_generator(0, "draw"))
    assert len({row.tobytes() for row in found}) == 10


@pytest.mark.parametrize("cosine", [-0.1, 1.1, float("nan")])
def test_a_cosine_outside_zero_to_one_is_refused(cosine: float) -> None:
    """Both constructions say which."""
    for make in (
        lambda: isotropic(tasks()[0], 1, cosine, numpy_generator(0)),
        lambda: mixture(tasks()[0], tasks(), 1, cosine, numpy_generator(0)),
    ):
        with pytest.raises(DataError, match=f"{cosine:g}"):
            make()


def test_a_zero_source_is_refused() -> None:
    """It has no direction."""
    with pytest.raises(DataError, match="norm 0"):
        isotropic(np.zeros(4), 1, 0.9, numpy_generator(0))
