"""Every random draw comes from a generator made here, from a seed and a name that says what the
draw is for.

No global random state: two stages that draw at the same time cannot disturb each other, and a draw
can be pointed at by its name.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and on every name in order.

    Args: seed: the recipe's. names: what the draw is for, for instance `"audit", "subset", 3`.

    >>> derive(0, "a", 1) == derive(0, "a", 1), derive(0, "a", 1) == derive(0, "a1")
    (True, False)
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: object) -> "torch.Generator":
    """A CPU generator for torch draws; see `derive`."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


def numpy_generator(seed: int, *names: object) -> "np.random.Generator":
    """A generator for numpy draws; see `derive`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *names))
