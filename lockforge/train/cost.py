"""What a training, or the measuring of a network that came trained, will ask for, before it
does.
"""

from dataclasses import replace

from lockforge.engine.workload import Workload, fits_of
from lockforge.recipe import FitRecipe
from lockforge.records import ImageSet
from lockforge.train.stage import HEAD


def workload_of(source: ImageSet, recipe: FitRecipe) -> Workload:
    """One training, and one look at the test split."""
    return Workload(
        (fits_of(recipe, source.counts.train, source.counts.val),), {"network": source.counts.test}
    )


def adopting(source: ImageSet, *, headless: bool) -> Workload:
    """A network that came trained: its answers to the validation and test splits; before, a head
    where it came without one.
    """
    counts = source.counts
    if not headless:
        return Workload(passes={"network": counts.val + counts.test})
    head = replace(fits_of(HEAD, counts.train, 0), of="head")
    return Workload((head,), {"network": counts.train + counts.val + counts.test})
