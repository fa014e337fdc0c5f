"""A map of tasks: near on the page is near by Task2Vec's distance, as far as two dimensions allow.
One SVG file, no script.

Classical multidimensional scaling (Torgerson 1952): double-centred squared distances, the two
largest eigenvalues.

Shapes: t tasks.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float

_WIDTH, _HEIGHT, _MARGIN = 720, 480, 70
_STYLE = (
    ":root{color-scheme:light dark}svg{background:#fcfcfb;font:14px "
    "system-ui,sans-serif}circle{fill:#0b62a8}text{fill:#1b1f24}"
    ".soft{fill:#5b6470;font-size:12px}line{stroke:#5b6470;stroke-opacity:.25}"
    "@media(prefers-color-scheme:dark){svg{background:#14171b}circle{fill:#6cb6ff}text{fill:#e8eaed}.soft{fill:#9aa4b2}}"
)


def places(distances: Float[np.ndarray, "t t"]) -> tuple[Float[np.ndarray, "t 2"], float]:
    """Where to draw each task, and the share of the squared distances' spread that the two
    dimensions hold, in [0, 1].

    >>> points, held = places(np.array([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]]))
    >>> bool(np.isclose(np.ptp(points[:, 0]), 2)), round(held, 3)
    (True, 1.0)
    """
    count = len(distances)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ distances**2 @ centre)
    order = np.argsort(values)[::-1][:2]
    kept = np.maximum(values[order], 0)
    points = np.zeros((count, 2))
    points[:, : len(order)] = vectors[:, order] * np.sqrt(kept)
    flipped = np.sign(
        points[np.abs(points).argmax(axis=0), [0, 1]]
    )  # an eigenvector's sign is anybody's guess: the longest goes right and up
    return points * np.where(flipped == 0, 1, flipped), float(
        kept.sum() / max(np.abs(values).sum(), 1e-30)
    )


def draw_map(names: Sequence[str], distances: Float[np.ndarray, "t t"]) -> str:
    """The SVG. Each task is joined to its nearest neighbour."""
    points, held = places(distances)
    span = max(float(np.ptp(points, axis=0).max()), 1e-9)
    scale = min(_WIDTH, _HEIGHT) - 2 * _MARGIN
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    spots = [
        (_WIDTH / 2 + (x - middle[0]) / span * scale, _HEIGHT / 2 - (y - middle[1]) / span * scale)
        for x, y in points
    ]
    others = distances + np.diag(np.full(len(names), np.inf))
    nearest = others.argmin(axis=1) if len(names) > 1 else []
    parts = [
        f'<line x1="{spots[a][0]:.1f}" y1="{spots[a][1]:.1f}" x2="{spots[b][0]:.1f}" '
        f'y2="{spots[b][1]:.1f}"/>'
        for a, b in enumerate(nearest)
    ]
    for name, (x, y) in zip(names, spots, strict=True):
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/><text x="{x:.1f}" y="{y - 12:.1f}" '
            f'text-anchor="middle">{escape(name)}</text>'
        )
    told = (
        f"{len(names)} tasks by Task2Vec's symmetric distance; the page holds {100 * held:.0f} % "
        "of the spread; lines lead to the nearest"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img"><title>{escape(told)}: '
        f"{escape(', '.join(names))}</title><style>{_STYLE}</style>{''.join(parts)}"
        f'<text class="soft" x="{_WIDTH / 2}" y="{_HEIGHT - 12}" '
        f'text-anchor="middle">{escape(told)}</text></svg>\n'
    )
