"""The map of tasks: plane figures come back, and the file is sound whatever the names are."""

from xml.etree import ElementTree as ET

import numpy as np

from lockforge.embed.map import draw_map, places


def test_points_of_a_plane_come_back(rng: np.random.Generator) -> None:
    """Their distances, that is: turned and mirrored is the same map."""
    points = rng.normal(size=(7, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found, held = places(distances)
    assert np.allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), distances)
    assert held > 1 - 1e-9


def test_the_drawing_is_sound_and_names_every_task(rng: np.random.Generator) -> None:
    """Names that look like markup are text; one task and two equal ones are drawn too."""
    names = ["<script>", "a & b", "c"]
    # - our own text
    tree = ET.fromstring(draw_map(names, np.abs(np.subtract.outer([0, 1, 3], [0, 1, 3])) / 4))  # noqa: S314
    words = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert words[:3] == names
    assert sum(element.tag.endswith("circle") for element in tree.iter()) == 3
    for alone in (np.zeros((1, 1)), np.zeros((2, 2))):
        assert "nan" not in draw_map([str(at) for at in range(len(alone))], alone)
    assert places(np.abs(rng.normal(size=(3, 3))) * (1 - np.eye(3)))[0].shape == (3, 2)
