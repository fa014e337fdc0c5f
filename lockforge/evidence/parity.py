"""Does the exported network answer like the trained one? The inputs both are asked, and what counts
as the same answer.

Inputs are made from the recipe's seed, never from anyone's images, so that whoever holds a
release asks the same question again.
Shapes: n inputs, k classes, (c, h, w) as the network takes them; numbers are normalised pixels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from lockforge.randomness import numpy_generator

ABSOLUTE = 1e-5
RELATIVE = 1e-5


@dataclass(frozen=True)
class Parity:
    """The largest difference of two logits, and whether each is within `ABSOLUTE` + `RELATIVE` x
    its size.
    """

    largest: float
    inputs: int
    same: bool

    def __str__(self) -> str:
        """In one line, as reports have it."""
        word = "same logits" if self.same else "OTHER LOGITS"
        return (
            f"{word}: largest difference {self.largest:.1e} on {self.inputs} seeded inputs "
            f"(allowed {ABSOLUTE:g} + {RELATIVE:g} x size)"
        )


def probe_inputs(
    seed: int, samples: int, shape: tuple[int, int, int]
) -> Float32[np.ndarray, "n c h w"]:
    """Standard normal inputs from the recipe's seed.

    >>> probe_inputs(0, 2, (1, 3, 3)).shape
    (2, 1, 3, 3)
    """
    return numpy_generator(seed, "parity", samples, *shape).standard_normal(
        (samples, *shape), dtype=np.float32
    )


def compare(ours: Float32[np.ndarray, "n k"], theirs: Float32[np.ndarray, "n k"]) -> Parity:
    """Hold two networks' logits against each other; other shapes and anything that is no number are
    never the same.
    """
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Parity(largest=float("inf"), inputs=len(ours), same=False)
    difference = np.abs(ours.astype(np.float64) - theirs)
    largest = float(difference.max(initial=0.0))
    return Parity(
        largest=largest,
        inputs=len(ours),
        same=bool((difference <= ABSOLUTE + RELATIVE * np.abs(ours)).all()),
    )
