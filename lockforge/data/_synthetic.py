"""Drawn images with a known answer: one figure in one colour with one texture on a plain ground,
and labels for any of the three.

The three answers are drawn independently, so a network that learned one of them knows nothing about
the others, and the same images make three different tasks. Difficulty is set by `noise`; without
noise each answer can be read off exactly.

Shapes: n images, side x side pixels, 3 colours.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8

from lockforge.data._raw_images import UNDECIDED, Decoded

Answer = Literal["figure", "colour", "texture"]
FIGURES = ("disc", "square", "triangle", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
TEXTURES = ("plain", "rows", "columns", "checks")
NAMES: dict[Answer, tuple[str, ...]] = {"figure": FIGURES, "colour": COLOURS, "texture": TEXTURES}
_RGB = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], np.float64)


@dataclass(frozen=True)
class Drawn:
    """Images and all three answers."""

    images: UInt8[np.ndarray, "n side side 3"]
    answers: dict[Answer, Int64[np.ndarray, " n"]]

    def asked(self, answer: Answer) -> Decoded:
        """The data set that asks for one of the answers."""
        return Decoded(
            self.images,
            self.answers[answer],
            np.full(len(self.images), UNDECIDED, np.uint8),
            NAMES[answer],
        )


def draw_images(
    count: int, generator: np.random.Generator, *, side: int = 16, noise: float = 0.05
) -> Drawn:
    """Draw labelled images: figure, colour, texture, place, size, brightness and ground are
    uniform and independent.

    Args: count: images. side: in pixels, at least 8. noise: standard deviation of Gaussian noise,
        where 1.0 is black to white.
    """
    answers = {
        answer: generator.integers(len(names), size=count) for answer, names in NAMES.items()
    }
    place = generator.uniform(-0.25, 0.25, (2, count))
    size = generator.uniform(0.5, 0.7, count)
    bright = generator.uniform(0.7, 1.0, (count, 1, 1, 1))
    ground = generator.uniform(0.0, 0.25, (count, 1, 1, 1))
    mask = _figures(answers["figure"], place, size, side)
    ink = (
        _RGB[answers["colour"]][:, None, None, :]
        * bright
        * _textures(answers["texture"], side)[..., None]
    )
    images = (
        ground
        + mask[..., None] * (ink - ground)
        + noise * generator.standard_normal((count, side, side, 3))
    )
    return Drawn(np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8), answers)


def _figures(
    kind: Int64[np.ndarray, " n"],
    place: Float[np.ndarray, "2 n"],
    size: Float[np.ndarray, " n"],
    side: int,
) -> Float[np.ndarray, "n side side"]:
    """1 inside the figure, 0 outside; coordinates run from -1 to 1 across the image, y down."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    x = (steps[None, None, :] - place[0][:, None, None]) / size[:, None, None]
    y = (steps[None, :, None] - place[1][:, None, None]) / size[:, None, None]
    radius, far, near = np.hypot(x, y), np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    inside = (
        radius <= 1,
        far <= 0.9,
        (abs(x) <= (y + 1) / 2) & (y <= 0.9),
        (far <= 1) & (near <= 0.33),
        (radius <= 1) & (radius >= 0.55),
    )
    return np.choose(kind[:, None, None], inside).astype(np.float64)


def _textures(kind: Int64[np.ndarray, " n"], side: int) -> Float[np.ndarray, "n side side"]:
    """Brightness: 1, or 0.4 where every second pair of rows, columns or checks is darkened."""
    stripe = np.arange(side) // 2 % 2 == 1
    rows, columns = (
        np.broadcast_to(stripe[:, None], (side, side)),
        np.broadcast_to(stripe[None], (side, side)),
    )
    dark = np.stack([np.zeros((side, side), bool), rows, columns, rows ^ columns])
    bright: Float[np.ndarray, "4 side side"] = np.where(dark, 0.4, 1.0)
    chosen: Float[np.ndarray, "n side side"] = bright[kind]
    return chosen
