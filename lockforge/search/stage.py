"""Search: rank cells under the predictor's judgement, train short lists briefly, choose on what was
measured.

Nothing here reads a benchmark table, a target's images or labels, or the source's test split.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lockforge.errors import IntegrityError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import NetworkRecipe, SearchRecipe
from lockforge.records import Candidate, ImageSet, SearchResult, TaskEmbedding
from lockforge.runs import Work, stage
from lockforge.search._by_measuring import by_measuring
from lockforge.search._finish import Finish, finish
from lockforge.search._lists import Lists, by_evolution, by_ranking
from lockforge.search._short_training import architecture_of
from lockforge.search.meta_bench import load_meta_bench
from lockforge.search.predictor import Predictor, load_predictor
from lockforge.search.simulate import cosines_to, isotropic, mixture
from lockforge.spaces.isomorphism import different_networks

_SHARE_RANKED, _SHARE_MEASURED = 0.2, 0.7  # of the progress bar; the rest is the measured finish


@stage(version=4)
def search_cell(
    source: ImageSet,
    auxiliary: tuple[ImageSet, ...],
    embeddings: tuple[TaskEmbedding, ...],
    network: NetworkRecipe,
    recipe: SearchRecipe,
    *,
    work: Work,
) -> SearchResult:
    """Choose the cell to release, and the reference that a search without any lock (S) would have
    chosen with the same means.

    Args: embeddings: the source's, then one for each auxiliary set. network: space and skeleton.
    Raises: RecipeError: TK without auxiliary sets. IntegrityError: embeddings the predictor cannot
        read, or of other images. DataError: a cosine that no mixture reaches. OutcomeError: every
        short training of a list diverged.
    """
    scheme = recipe.scheme or ("TK" if auxiliary else "TU")
    if scheme == "TK" and not auxiliary:
        raise RecipeError(
            "search.scheme is TK, but there is no auxiliary set",
            hint="give --auxiliary PLACE, or search.scheme: TU",
        )
    _check_images((source, *auxiliary), embeddings)
    predictor = load_predictor(network.space)
    vectors = np.stack([predictor.vector_of(embedding, work.files) for embedding in embeddings])
    known = auxiliary if scheme == "TK" else ()
    targets = None
    if recipe.method == "measured":
        share = _SHARE_MEASURED

        def tick(done: float, said: str) -> None:
            work.report(share * done, 1, said)

        lists = by_measuring(scheme, source, known, network, recipe, work, tick=tick)
    else:
        share = _SHARE_RANKED
        targets = _targets(scheme, vectors, predictor, recipe, work.seed)
        lists = _by_predictor(scheme, vectors, targets, predictor, network.space, recipe, work)
    found = finish(lists, source, known, network, recipe, work, begun=share, locks=scheme != "S")
    return SearchResult(
        scheme=scheme,
        chosen=architecture_of(found.chosen, source, network),
        reference=architecture_of(found.reference, source, network),
        candidates=_candidates(lists, found),
        questions=lists.questions,
        predictor=predictor.digest,
        source_cosines=() if targets is None else cosines_to(vectors[0], targets),
        used=(
            *_knew(
                scheme, recipe, predictor, lists, _differing(predictor, lists, vectors[:1], targets)
            ),
            *_trained(scheme, found),
        ),
    )


def _by_predictor(
    scheme: str,
    vectors: Float[np.ndarray, "a d"],
    targets: Float[np.ndarray, "t d"] | None,
    predictor: Predictor,
    space: str,
    recipe: SearchRecipe,
    work: Work,
) -> Lists:
    """Lists by the predictor's word alone."""
    if recipe.method == "exhaustive":
        prior = scheme == "TU" and targets is None
        general = (
            load_meta_bench(space).good_in_general(different_networks(space)) if prior else None
        )
        return by_ranking(predictor, vectors[:1], targets, space, recipe, general=general)

    def tick(done: float) -> None:
        work.report(_SHARE_RANKED * done, 1, "evolving cells")

    return by_evolution(predictor, vectors[:1], targets, space, recipe, work.seed, tick=tick)


def _check_images(sets: Sequence[ImageSet], embeddings: Sequence[TaskEmbedding]) -> None:
    wanted, given = (
        [images.digest for images in sets],
        [embedding.images for embedding in embeddings],
    )
    if wanted != given:
        raise IntegrityError(
            f"{len(given)} task embeddings do not belong to these {len(wanted)} data sets",
            faults=[
                f"data set {at}: {a[:12]}, embedding of {b[:12]}"
                for at, (a, b) in enumerate(zip(wanted, given, strict=False))
                if a != b
            ],
            hint="embed the source first, then each auxiliary set in order",
        )


def _candidates(lists: Lists, found: Finish) -> tuple[Candidate, ...]:
    """The cells that were trained, fittest first."""
    accuracy = {**lists.accuracy, **found.accuracy}
    judge = "measured" if lists.accuracy else "predictor"
    names = {"lock": lists.locked, "source only": lists.unlocked}
    return tuple(
        Candidate(
            cell=cell,
            source_rank=lists.said[cell][0],
            target_rank=lists.said[cell][1],
            rank_gap=lists.said[cell][2],
            judged_by=(
                *(f"{judge}, {name}" for name, cells in names.items() if cell in cells),
                f"short training, {found.rounds.get(cell, 1)} round(s)",
                *(["short training on the auxiliary data"] if cell in found.auxiliary else []),
            ),
            source_accuracy=accuracy[cell],
            auxiliary_accuracy=found.auxiliary.get(cell),
        )
        for cell in sorted(accuracy, key=lambda cell: -lists.said[cell][2])
    )


def _differing(
    predictor: Predictor,
    lists: Lists,
    source: Float[np.ndarray, "1 d"],
    targets: Float[np.ndarray, "t d"] | None,
) -> float | None:
    """The share of pairs of the short lists that the predictor answers differently for the source
    and for a target.
    """
    cells = tuple(dict.fromkeys((*lists.locked, *lists.unlocked)))
    if targets is None or len(cells) < 2:
        return None
    pairs = np.triu_indices(len(cells), 1)
    of_source = predictor.ask_all(cells, source)[0][pairs] > 0
    of_targets = predictor.ask_all(cells, targets)[(slice(None), *pairs)] > 0
    return float((of_targets != of_source).mean())


def _targets(
    scheme: str,
    vectors: Float[np.ndarray, "a d"],
    predictor: Predictor,
    recipe: SearchRecipe,
    seed: int,
) -> Float[np.ndarray, "t d"] | None:
    """The embeddings on which a cell should be poor: none in S or in general, made up in TU, the
    auxiliary sets' in TK.
    """
    if scheme == "S" or (
        scheme == "TU" and recipe.poor == "general" and recipe.method == "exhaustive"
    ):
        return None
    if scheme == "TK":
        return vectors[1:]
    generator = numpy_generator(seed, "search", "simulate", recipe.construction)
    if recipe.construction == "isotropic":
        return isotropic(vectors[0], recipe.simulated, recipe.cosine, generator)
    return mixture(vectors[0], predictor.tasks, recipe.simulated, recipe.cosine, generator)


def _knew(
    scheme: str, recipe: SearchRecipe, predictor: Predictor, lists: Lists, differing: float | None
) -> tuple[str, ...]:
    """What the short lists were made from, in words."""
    bank = (
        f" from {len(predictor.tasks)} shipped task embeddings"
        if recipe.construction == "mixture"
        else ""
    )
    general = (
        "the packaged meta-bench (short trainings of cells on "
        f"{', '.join(load_meta_bench(predictor.space).card['tasks'])})"
        if scheme == "TU"
        else ""
    )
    made_up = (
        f"{recipe.simulated} made-up task embeddings ({recipe.construction}{bank}, cosine "
        f"{recipe.cosine:g})"
    )
    if recipe.method == "measured":
        other = {
            "S": (),
            "TU": (general,),
            "TK": (
                (
                    f"{lists.among} short trainings on each auxiliary set's train and validation "
                    "images"
                ),
            ),
        }
        return (f"{lists.among} cells measured, chosen by what was measured before", *other[scheme])
    of_targets = {
        "S": (),
        "TU": (general if recipe.method == "exhaustive" and recipe.poor == "general" else made_up,),
        "TK": ("the auxiliary sets' embeddings",),
    }
    aware = (
        ()
        if differing is None
        else (
            (
                f"of which the predictor answers {differing:.1%} of the pairs otherwise than for "
                "the "
                "source"
            ),
        )
    )
    ranked = (
        "every network of the space ranked" if recipe.method == "exhaustive" else "cells evolved"
    )
    judge = f"the packaged predictor, trained on zero-cost proxies of other tasks; {ranked}"
    return ("the source's embedding", *of_targets[scheme], *aware, judge)


def _trained(scheme: str, found: Finish) -> tuple[str, ...]:
    """What the choice was made on, in words."""
    of_source, of_others = found.trainings
    guarded = (
        ""
        if found.kept or scheme == "S"
        else "; no cell of the lock's list was within the guard, so the reference was chosen"
    )
    return (
        f"the source's train and validation images ({of_source} short trainings){guarded}",
        *(
            (f"the auxiliary sets' train and validation images ({of_others} short trainings)",)
            if of_others
            else ()
        ),
    )
