"""Embeddings of targets nobody has seen: vectors at a given cosine from the source's embedding, and
as long.

Shapes: d entries of an embedding, t real tasks, m made-up targets. Norms and cosines are computed
    in float64.
"""

import numpy as np
from jaxtyping import Float

from lockforge.errors import DataError

_HALVINGS = 40  # of the step towards an admissible task: by then nothing of the mixture is left


def isotropic(
    source: Float[np.ndarray, " d"], count: int, cosine: float, generator: np.random.Generator
) -> Float[np.ndarray, "m d"]:
    r"""The paper's construction: z_T = cos z_S + sin(arccos cos) |z_S| e, e a random unit vector
    orthogonal to z_S.

    ArchLock, equation 4 (there z_T = d z_S + ...). Cosine and norm are exact, but many entries are
    negative, which no Fisher diagonal is.
    Differs: the authors' code also scales the length by the cosine; |z_T| = |z_S| here, as their
        equation says.

    Args: source: z_S. count: m. cosine: in [0, 1].
    Raises: DataError: a cosine outside [0, 1], or a source that is zero.
    """
    along, length = _direction(source, cosine)
    draws = generator.standard_normal((count, len(along)))
    return _at_cosine(along, length, draws, cosine)


def mixture(
    source: Float[np.ndarray, " d"],
    tasks: Float[np.ndarray, "t d"],
    count: int,
    cosine: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "m d"]:
    r"""Non-negative targets: z_T = |z_S| (cos t z_S/|z_S| + sin t e), t = arccos cosine.

    e is the unit part orthogonal to z_S of u, a random non-negative mixture of real tasks with
    cos(u, z_S) <= cosine: then z_T is a non-negative combination of z_S and u. A mixture that is
    too close is moved towards an admissible task, half of the way at a time.

    Args: source: z_S, >= 0. tasks: embeddings of real tasks, >= 0. count: m. cosine: in [0, 1].
    Raises: DataError: a cosine outside [0, 1], or below the least reachable one, which is named.
    """
    along, length = _direction(source, cosine)
    if cosine == 1:
        return np.repeat(length * along[None], count, axis=0)
    units = _units(tasks)
    near = units @ along
    admissible = np.flatnonzero(near <= cosine)
    if len(admissible) == 0:
        raise DataError(
            f"no mixture of {len(units)} real tasks is as far as cosine {cosine:g} from this "
            f"source: the least is {near.min():.4f}",
            hint=f"set search.cosine to at least {np.ceil(near.min() * 1000) / 1000:g}, or "
            "search.construction to isotropic",
        )
    mixtures = np.empty((count, len(along)))
    for row in range(count):
        u = generator.dirichlet(np.full(len(units), 0.3)) @ units
        anchor = units[generator.choice(admissible)]
        for _ in range(_HALVINGS):
            if u @ along <= cosine * np.linalg.norm(u):
                break
            u = (u + anchor) / 2
        else:
            u = anchor
        mixtures[row] = u
    found: Float[np.ndarray, "m d"] = np.maximum(
        _at_cosine(along, length, mixtures, cosine), 0
    )  # rounding: entries are >= -1e-16 |z_S|
    return found


def least_cosine(source: Float[np.ndarray, " d"], tasks: Float[np.ndarray, "t d"]) -> float:
    """The least cosine that `mixture` can reach: that of the farthest single task, because no
    mixture is farther than all its parts.

    >>> round(least_cosine(np.array([1.0, 0.0]), np.array([[1.0, 1.0], [3.0, 4.0]])), 6)
    0.6
    """
    return float((_units(tasks) @ _direction(source, 1.0)[0]).min())


def cosines_to(
    source: Float[np.ndarray, " d"], others: Float[np.ndarray, "m d"]
) -> tuple[float, ...]:
    """The cosine of each of the others to the source."""
    return tuple(
        float(value) for value in np.clip(_units(others) @ _direction(source, 1.0)[0], -1, 1)
    )


def _direction(
    source: Float[np.ndarray, " d"], cosine: float
) -> tuple[Float[np.ndarray, " d"], float]:
    if not 0 <= cosine <= 1:
        raise DataError(
            f"a cosine of {cosine:g} was asked for",
            hint="give one from 0 (unlike the source) to 1 (the source)",
        )
    z = np.asarray(source, np.float64)
    length = float(np.linalg.norm(z))
    if not np.isfinite(length) or length == 0:
        raise DataError(f"the source's embedding has norm {length}", hint="embed the source again")
    return z / length, length


def _units(rows: Float[np.ndarray, "t d"]) -> Float[np.ndarray, "t d"]:
    rows = np.asarray(rows, np.float64)
    units: Float[np.ndarray, "t d"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def _at_cosine(
    along: Float[np.ndarray, " d"], length: float, draws: Float[np.ndarray, "m d"], cosine: float
) -> Float[np.ndarray, "m d"]:
    """Each draw's part orthogonal to `along`, turned so that the cosine is exact (Gram-Schmidt,
    twice against rounding).
    """
    for _ in range(2):
        draws = draws - np.outer(draws @ along, along)
    aside = _units(draws)
    turned: Float[np.ndarray, "m d"] = length * (cosine * along + np.sqrt(1 - cosine**2) * aside)
    return turned
