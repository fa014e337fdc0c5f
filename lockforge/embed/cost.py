"""What an embedding will ask for, before it does."""

from dataclasses import replace

from lockforge.embed.stage import HEAD
from lockforge.engine.workload import Workload, fits_of
from lockforge.recipe import EmbedRecipe
from lockforge.records import ImageSet


def workload_of(images: ImageSet, recipe: EmbedRecipe) -> Workload:
    """A head on the probe's features, its accuracy, and the Fisher information of as many
    images.
    """
    train, val = (min(recipe.samples, count) for count in (images.counts.train, images.counts.val))
    head = fits_of(HEAD.model_copy(update={"steps": recipe.head_steps}), train, 0)
    return Workload((replace(head, of="head"),), {"probe": train + val, "fisher": train})
