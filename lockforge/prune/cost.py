"""What a pruning will train, before it does."""

import json
from collections.abc import Sequence
from pathlib import Path

from lockforge.engine.workload import Workload, fits_of
from lockforge.prune.restyle import SETS
from lockforge.prune.stage import ROUND
from lockforge.recipe import PruneRecipe
from lockforge.records import ImageSet


def workload_of(source: ImageSet, auxiliary: Sequence[ImageSet], recipe: PruneRecipe) -> Workload:
    """Rounds and recovery of one pruning. A step has a batch of the source and one of every
    stranger.

    What a refusal looks for by bisection is not in it.
    """
    made = recipe.method == "ntp" and not auxiliary
    strangers = 0 if recipe.method != "ntp" else len(auxiliary) or len(SETS)
    train, val = source.counts.train, source.counts.val
    rounds = fits_of(recipe.fit, train, val, trainings=recipe.rounds, gradients=1.0 + strangers)
    recovery = fits_of(recipe.recovery, train, val, gradients=1.0 + strangers)
    return Workload(
        (rounds, recovery),
        {"network": source.counts.test, "restyled": train * len(SETS) if made else 0},
    )


def rounds_done(folder: Path) -> int:
    """Rounds that an interrupted pruning has stored in its folder; 0 where none can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / ROUND, "pt") as file:
            return len(json.loads((file.metadata() or {})["rounds"]))
    except (SafetensorError, KeyError, ValueError, OSError):
        return 0
