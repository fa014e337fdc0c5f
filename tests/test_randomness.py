"""Named generators: the same name gives the same draw, another name another."""

import numpy as np
import torch

from lockforge.randomness import derive, numpy_generator, torch_generator


def test_a_name_decides_the_draw() -> None:
    """Equal names repeat; any other name, order or seed differs."""
    seeds = {
        derive(0),
        derive(1),
        derive(0, "a"),
        derive(0, "a", "b"),
        derive(0, "b", "a"),
        derive(0, "ab"),
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(
        torch.randn(3, generator=torch_generator(3, "x")),
        torch.randn(3, generator=torch_generator(3, "x")),
    )
    assert numpy_generator(3, "x").integers(0, 1 << 30) == numpy_generator(3, "x").integers(
        0, 1 << 30
    )


def test_global_random_state_is_left_alone() -> None:
    """Making and using a named generator moves neither torch's nor numpy's global stream."""
    # the point is to look at it
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.randn(5, generator=torch_generator(0, "y"))
    numpy_generator(0, "y").normal(size=5)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
