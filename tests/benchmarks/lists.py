"""A complete TU search without the measured finish, on 2 cores: both short lists, by ranking the
space and by the paper's evolution.

The embedding is one of the predictor's own tasks; embedding images is `embed`'s time. The aim is
30 s.
"""

from lockforge.randomness import numpy_generator
from lockforge.recipe import SearchRecipe
from lockforge.search._lists import by_evolution, by_ranking
from lockforge.search.meta_bench import load_meta_bench
from lockforge.search.predictor import load_predictor
from lockforge.search.simulate import mixture
from lockforge.spaces.isomorphism import different_networks
from tests.benchmarks.line import arguments, by_turns, write_line

WAYS = ("general", "simulated", "evolution")


def main() -> None:
    """Time each way in each space, print the line."""
    given = arguments(__doc__, repeats=3, ways=WAYS)
    recipe = SearchRecipe()
    seconds: dict[str, object] = {}
    for space in ("nasbench201", "transnas101"):
        predictor = load_predictor(space)
        source = predictor.tasks[:1]
        targets = mixture(
            source[0],
            predictor.tasks,
            recipe.simulated,
            recipe.cosine,
            numpy_generator(0, "benchmark", "lists"),
        )

        def general(
            space: str = space, predictor: object = predictor, source: object = source
        ) -> object:
            prior = load_meta_bench(space).good_in_general(different_networks(space))
            return by_ranking(predictor, source, None, space, recipe, general=prior)  # type: ignore[arg-type]

        ways = {
            f"{space}_general_s": general,
            f"{space}_simulated_s": lambda p=predictor, s=source, t=targets, n=space: by_ranking(
                p, s, t, n, recipe
            ),
            f"{space}_evolution_s": lambda p=predictor, s=source, t=targets, n=space: by_evolution(
                p, s, t, n, recipe, 0, tick=lambda _share: None
            ),
        }
        timed = {f"{space}_{name}_s" for name in WAYS if name not in given.without}
        seconds |= by_turns(
            {name: way for name, way in ways.items() if name in timed}, given.repeats, given.device
        )
    slowest = max(float(value) for name, value in seconds.items() if name.endswith("_s"))  # type: ignore[arg-type]
    left_out = {"left_out": given.without} if given.without else {}
    write_line("lists", given, {**seconds, "slowest_s": slowest, "aim_s": 30.0, **left_out})


if __name__ == "__main__":
    main()
