"""Search: evolve cells under the predictor's judgement, train a short list briefly on the source, choose on what was measured.

Nothing here reads a benchmark table, a target's pictures or labels, or the source's test split.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from lockforge.errors import IntegrityError, OutcomeError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import NetworkRecipe, SearchRecipe
from lockforge.records import Candidate, Cell, ImageSet, SearchResult, TaskEmbedding
from lockforge.runs import Work, stage
from lockforge.search.by_measuring import search_by_measuring
from lockforge.search.evolution import Judgement, evolve, judge_by
from lockforge.search.predictor import Predictor, load_predictor
from lockforge.search.short_training import ShortTrainings, architecture_of
from lockforge.search.simulate import cosines_to, isotropic, mixture
from lockforge.spaces.isomorphism import network_key

_SHARE_EVOLVED = 0.2  # of the progress bar; the rest is the measured finish


@stage(version=2)
def search_cell(
    source: ImageSet,
    auxiliary: tuple[ImageSet, ...],
    embeddings: tuple[TaskEmbedding, ...],
    network: NetworkRecipe,
    recipe: SearchRecipe,
    *,
    work: Work,
) -> SearchResult:
    """Choose the cell to release, and the reference that a search without any lock (S) would have chosen with the same means.

    Args: embeddings: the source's, then one for each auxiliary set. network: space and skeleton.
    Raises: RecipeError: TK without auxiliary sets. IntegrityError: embeddings the predictor cannot read, or of other pictures.
        DataError: a cosine that no mixture reaches. OutcomeError: every short training of a list diverged.
    """
    scheme = recipe.scheme or ("TK" if auxiliary else "TU")
    if scheme == "TK" and not auxiliary:
        raise RecipeError("search.scheme is TK, but there is no auxiliary set", hint="give --auxiliary PLACE, or search.scheme: TU")
    _check_images((source, *auxiliary), embeddings)
    predictor = load_predictor(network.space)
    if recipe.method == "measured":
        return search_by_measuring(scheme, source, auxiliary, predictor, network, recipe, work)
    vectors = np.stack([predictor.vector_of(embedding, work.files) for embedding in embeddings])
    targets = _targets(scheme, vectors, predictor, recipe, work.seed)

    lock = judge_by(predictor, vectors[:1], targets, recipe.source_weight)
    alone = judge_by(predictor, vectors[:1], None, recipe.source_weight)
    evolved = [
        evolve(judge, network.space, recipe, numpy_generator(work.seed, "search", "evolve"), tick=_ticker(work, part, recipe.steps))
        for part, judge in enumerate((lock, alone))
    ]
    locked, unlocked = (_shortlist(found.history, network.space, recipe.shortlist.cells) for found in evolved)

    accuracy = _measure(tuple(dict.fromkeys((*locked, *unlocked))), source, network, recipe, work)
    remembered = tuple(dict.fromkeys(cell for found in evolved for cell in found.history))
    judged = lock(remembered)
    questions = sum(found.questions for found in evolved) + judged.questions
    lists = {"lock": locked, "source only": unlocked}
    return SearchResult(
        scheme=scheme,
        chosen=architecture_of(_best(locked, accuracy), source, network),
        reference=architecture_of(_best(unlocked, accuracy), source, network),
        candidates=_candidates(remembered, judged, lists, accuracy),
        questions=questions,
        predictor=predictor.digest,
        source_cosines=() if targets is None else cosines_to(vectors[0], targets),
        used=_used(scheme, recipe, predictor, len(accuracy), _differing(predictor, remembered, vectors[:1], targets)),
    )


def _check_images(sets: Sequence[ImageSet], embeddings: Sequence[TaskEmbedding]) -> None:
    wanted, given = [images.digest for images in sets], [embedding.images for embedding in embeddings]
    if wanted != given:
        raise IntegrityError(
            f"{len(given)} task embeddings do not belong to these {len(wanted)} data sets",
            faults=[
                f"data set {at}: {a[:12]}, embedding of {b[:12]}" for at, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b
            ],
            hint="embed the source first, then each auxiliary set in order",
        )


def _shortlist(history: Sequence[Cell], space: str, count: int) -> tuple[Cell, ...]:
    """The first cells of a history that are different networks: another spelling of the same one would be trained for nothing."""
    kept: dict[str, Cell] = {}
    for cell in history:
        kept.setdefault(network_key(cell, space), cell)
    return tuple(kept.values())[:count]


def _best(cells: Sequence[Cell], accuracy: Mapping[Cell, float | None]) -> Cell:
    """The cell with the highest measured accuracy; of equals the fitter one, which comes first."""
    measured = {cell: value for cell in cells if (value := accuracy[cell]) is not None}
    if not measured:
        raise OutcomeError(
            f"all {len(cells)} cells of the short list diverged in the short training", hint="lower search.shortlist.fit.learning_rate"
        )
    return max(measured, key=lambda cell: measured[cell])


def _candidates(
    remembered: Sequence[Cell], judged: Judgement, lists: Mapping[str, Sequence[Cell]], accuracy: Mapping[Cell, float | None]
) -> tuple[Candidate, ...]:
    """The measured cells; their ranks are among all cells that either search remembered."""
    return tuple(
        Candidate(
            cell=cell,
            source_rank=int(judged.source_ranks[i]),
            target_rank=None if judged.target_ranks is None else int(judged.target_ranks[i]),
            rank_gap=float(judged.fitness[i]),
            judged_by=(*(f"predictor, {name}" for name, cells in lists.items() if cell in cells), "short training"),
            source_accuracy=accuracy[cell],
        )
        for i, cell in enumerate(remembered)
        if cell in accuracy
    )


def _differing(
    predictor: Predictor, cells: Sequence[Cell], source: Float[np.ndarray, "1 d"], targets: Float[np.ndarray, "t d"] | None
) -> float | None:
    """The share of pairs that the predictor answers differently for the source and for a target: how task-aware this search was."""
    if targets is None or len(cells) < 2:
        return None
    pairs = np.triu_indices(len(cells), 1)
    of_source = predictor.ask_all(cells, source)[0][pairs] > 0
    of_targets = predictor.ask_all(cells, targets)[(slice(None), *pairs)] > 0
    return float((of_targets != of_source).mean())


def _targets(
    scheme: str, vectors: Float[np.ndarray, "a d"], predictor: Predictor, recipe: SearchRecipe, seed: int
) -> Float[np.ndarray, "t d"] | None:
    """The embeddings on which a cell should be poor: none in S, made up in TU, the auxiliary sets' in TK."""
    if scheme == "S":
        return None
    if scheme == "TK":
        return vectors[1:]
    generator = numpy_generator(seed, "search", "simulate", recipe.construction)
    if recipe.construction == "isotropic":
        return isotropic(vectors[0], recipe.simulated, recipe.cosine, generator)
    return mixture(vectors[0], predictor.tasks, recipe.simulated, recipe.cosine, generator)


def _measure(cells: Sequence[Cell], source: ImageSet, network: NetworkRecipe, recipe: SearchRecipe, work: Work) -> dict[Cell, float | None]:
    def told(count: int, said: str) -> None:
        share = _SHARE_EVOLVED + (1 - _SHARE_EVOLVED) * count / len(cells)
        work.report(share, 1, f"short training {count} of {len(cells)}: {said}")

    measured = ShortTrainings(source, network, recipe.shortlist.fit, work, told).measure(cells)
    return dict(zip(cells, measured, strict=True))


def _ticker(work: Work, part: int, steps: int) -> Callable[[int], None]:
    def tick(step: int) -> None:
        work.report(_SHARE_EVOLVED * (part + step / steps) / 2, 1, "evolving cells")

    return tick


def _used(scheme: str, recipe: SearchRecipe, predictor: Predictor, cells: int, differing: float | None) -> tuple[str, ...]:
    """What the choice was allowed to know, in words."""
    bank = f" from {len(predictor.tasks)} shipped task embeddings" if recipe.construction == "mixture" else ""
    of_targets = {
        "S": (),
        "TU": (f"{recipe.simulated} made-up task embeddings ({recipe.construction}{bank}, cosine {recipe.cosine:g})",),
        "TK": ("the auxiliary sets' embeddings",),
    }
    aware = () if differing is None else (f"of which the predictor answers {differing:.1%} of the pairs otherwise than for the source",)
    return (
        "the source's embedding",
        *of_targets[scheme],
        *aware,
        "the packaged predictor, trained on zero-cost proxies of other tasks",
        f"the source's train and validation pictures ({cells} short trainings)",
    )
