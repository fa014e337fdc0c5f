"""Drawn images: the answers can be read off, and knowing one says nothing about the others."""

import numpy as np
import pytest

from lockforge.data._synthetic import COLOURS, FIGURES, NAMES, TEXTURES, Answer, draw_images


def test_the_colour_can_be_read_off_without_noise(rng: np.random.Generator) -> None:
    """Among an image's pixels, the strongest tint has the channels of its colour: an independent
    rule with no mistake in 500 images.
    """
    drawn = draw_images(500, rng, noise=0)
    pixels = drawn.images.reshape(500, -1, 3).astype(int)
    tinted = pixels[np.arange(500), np.ptp(pixels, axis=2).argmax(1)]
    lit = tinted > tinted.mean(1, keepdims=True)
    names = {(1, 0, 0): 0, (0, 1, 0): 1, (0, 0, 1): 2, (1, 1, 0): 3, (1, 0, 1): 4, (0, 1, 1): 5}
    assert [names[tuple(row)] for row in lit.astype(int).tolist()] == drawn.answers[
        "colour"
    ].tolist()


def test_a_ring_has_a_hole_and_a_disc_is_rounder_than_a_square(rng: np.random.Generator) -> None:
    """Covered area in units of the figure's box tells the figures apart: cross < triangle < ring <
    disc < square at 64 pixels.
    """
    drawn = draw_images(400, rng, side=64, noise=0)
    tint = np.ptp(drawn.images.astype(int), axis=3) > 30
    rows, columns = tint.any(2).sum(1), tint.any(1).sum(1)
    filled = tint.sum((1, 2)) / (rows * columns)
    mean = {name: filled[drawn.answers["figure"] == at].mean() for at, name in enumerate(FIGURES)}
    assert mean["square"] == pytest.approx(1, abs=0.01)
    assert mean["disc"] == pytest.approx(np.pi / 4, abs=0.02)
    assert mean["ring"] == pytest.approx(np.pi / 4 * (1 - 0.55**2), abs=0.03)
    assert mean["triangle"] == pytest.approx(0.5, abs=0.04)
    assert mean["cross"] == pytest.approx(1 - 0.67**2, abs=0.04)


def test_the_texture_can_be_read_off_inside_a_square(rng: np.random.Generator) -> None:
    """Rows change down the image only, columns across only, checks both, and equal what lies two
    down and two across.
    """
    drawn = draw_images(400, rng, side=64, noise=0)
    squares = drawn.answers["figure"] == FIGURES.index("square")
    block = drawn.images.max(3).astype(int)[squares, 28:36, 28:36]
    down, across = np.ptp(block, axis=1).any(1), np.ptp(block, axis=2).any(1)
    diagonal = (block[:, 2:, 2:] == block[:, :-2, :-2]).all((1, 2))
    read = np.select(
        [~down & ~across, down & ~across, across & ~down, down & across & diagonal],
        [0, 1, 2, 3],
        -1,
    )
    assert read.tolist() == drawn.answers["texture"][squares].tolist()


def test_answers_are_independent_and_evenly_spread(rng: np.random.Generator) -> None:
    """All 120 combinations occur about equally often."""
    drawn = draw_images(12_000, rng, side=8)
    joint = np.zeros((len(FIGURES), len(COLOURS), len(TEXTURES)), int)
    np.add.at(joint, tuple(drawn.answers[answer] for answer in NAMES), 1)
    assert joint.min() > 60  # 100 expected, deviation 10
    assert joint.max() < 140


@pytest.mark.parametrize("answer", NAMES)
def test_the_same_images_make_three_tasks(answer: Answer, rng: np.random.Generator) -> None:
    """Each with its own classes."""
    asked = draw_images(50, rng).asked(answer)
    assert asked.classes == NAMES[answer]
    assert asked.labels.max() < len(asked.classes)
    assert asked.images.shape == (50, 16, 16, 3)


def test_the_generator_decides_everything() -> None:
    """The same seed gives the same images, another seed others."""
    one, again, other = (draw_images(5, np.random.default_rng(seed)).images for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
