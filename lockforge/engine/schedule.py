"""The learning rate as a function of the step."""

import math

from lockforge.recipe import FitRecipe


def learning_rate(step: int, total: int, recipe: FitRecipe) -> float:
    """The rate of one optimiser step of a run.

    With w = round(warmup * total) steps of warm-up: rate * (step + 1) / w before step w. After it
    `constant` stays at the rate, and `cosine` is rate * (1 + cos(pi t)) / 2 with t = (step - w) /
    (total - w) (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5).
    Differs: the cosine falls at each step, not at each epoch, so that a run of few epochs or of
        steps has no stairs.

    Args: step: from 0. total: steps of the whole run.

    >>> recipe = FitRecipe(steps=10, learning_rate=0.8, warmup=0.2)
    >>> [round(learning_rate(step, 10, recipe), 2) for step in (0, 1, 2, 6)]
    [0.4, 0.8, 0.8, 0.4]
    """
    rising = round(recipe.warmup * total)
    if step < rising:
        return recipe.learning_rate * (step + 1) / rising
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
