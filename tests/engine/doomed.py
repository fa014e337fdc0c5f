"""Not collected by itself: `test_resume.py` runs it in a process of its own, which it kills."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from lockforge.engine.fit import Fitted
from lockforge.recipe import FitRecipe


def test_killed_at_the_fourth_report(run: Callable[..., tuple[Fitted, Tensor]]) -> None:
    """In the third epoch, between two writes."""
    steps = iter(range(1000))
    recipe = FitRecipe(epochs=5, batch_size=16, warmup=0.1)
    folder = Path(os.environ["LOCKFORGE_TEST_DOOMED_FOLDER"])
    run(
        recipe,
        folder,
        lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(steps) == 3 else None,
    )
    raise AssertionError("nobody was killed")
