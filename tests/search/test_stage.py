"""The whole search on real digits with a predictor of random weights: what it chooses, what it may
see, how it resumes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lockforge.errors import DataError, IntegrityError, OutcomeError, RecipeError
from lockforge.randomness import numpy_generator
from lockforge.recipe import FitRecipe, NetworkRecipe, SearchRecipe, ShortlistRecipe
from lockforge.records import Candidate, ImageSet, SearchResult, TaskEmbedding
from lockforge.runs import Work
from lockforge.search import _short_training as short_training
from lockforge.search import stage as room
from lockforge.search.predictor import Predictor
from lockforge.search.stage import search_cell
from lockforge.spaces.isomorphism import network_key

NETWORK = NetworkRecipe(space="nasbench201", stem_channels=4, cells_per_stage=1)
SHORT = ShortlistRecipe(cells=2, rounds=1, fit=FitRecipe(steps=4, batch_size=32))
RECIPE = SearchRecipe(
    method="evolution", steps=6, history=8, simulated=4, cosine=0.97, guard=0.0, shortlist=SHORT
)
WHOLE = RECIPE.model_copy(update={"method": "exhaustive", "panel": 16})


@pytest.fixture(autouse=True)
def packaged(monkeypatch: pytest.MonkeyPatch, toy: Callable[..., Predictor]) -> None:
    """The toy stands in for the shipped predictor."""
    monkeypatch.setattr(room, "load_predictor", toy)


@pytest.fixture
def embeddings(
    digits: ImageSet, other_digits: ImageSet, embedding: Callable[..., TaskEmbedding]
) -> tuple[TaskEmbedding, TaskEmbedding]:
    """Of the source and of an auxiliary set."""
    vectors = numpy_generator(0, "stage").exponential(size=(2, 12))
    return embedding(vectors[0], images=digits.digest), embedding(
        vectors[1], images=other_digits.digest
    )


Embeddings = tuple[TaskEmbedding, TaskEmbedding]


def unknown(
    digits: ImageSet, embeddings: Embeddings, recipe: SearchRecipe, work: Work
) -> SearchResult:
    """A search that knows nothing but the source."""
    return search_cell(digits, (), embeddings[:1], NETWORK, recipe, work=work)


def listed(found: SearchResult, name: str) -> list[Candidate]:
    """The candidates of one list."""
    return [
        candidate for candidate in found.candidates if f"predictor, {name}" in candidate.judged_by
    ]


@pytest.mark.parametrize("recipe", [RECIPE, WHOLE], ids=["evolution", "exhaustive"])
def test_the_fittest_within_the_guard_is_chosen(
    digits: ImageSet, embeddings: Embeddings, work: Work, recipe: SearchRecipe
) -> None:
    """Reference is the most accurate of the list made without the lock; with a guard of 1 the
    fittest of the lock's list is the choice.
    """
    found = unknown(digits, embeddings, recipe.model_copy(update={"guard": 1.0}), work)
    assert found.scheme == "TU"
    assert found.chosen.cell == listed(found, "lock")[0].cell
    others = listed(found, "source only")
    picked = next(candidate for candidate in others if candidate.cell == found.reference.cell)
    assert picked.source_accuracy == max(candidate.source_accuracy or 0 for candidate in others)
    for some in (listed(found, "lock"), others):
        assert (
            len({network_key(candidate.cell, "nasbench201") for candidate in some})
            == len(some)
            == 2
        )
    assert (
        len(list(work.folder.glob("measured-*.json")))
        == len(found.candidates)
        == len({c.cell for c in found.candidates})
    )
    assert all(c.rank_gap == (c.target_rank or 0) - 2 * c.source_rank for c in found.candidates)
    assert found.questions > 0


def test_half_goes_on_with_twice_the_training(
    digits: ImageSet, embeddings: Embeddings, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four of each list the two best are trained for eight steps instead of four; the choice is
    one of them.
    """
    steps: list[int] = []
    real = short_training.fit

    def watch(module: torch.nn.Module, feed: Any, recipe: FitRecipe, **options: Any) -> Any:
        steps.append(recipe.steps or 0)
        return real(module, feed, recipe, **options)

    monkeypatch.setattr(short_training, "fit", watch)
    short = ShortlistRecipe(cells=4, rounds=2, fit=FitRecipe(steps=4, batch_size=32))
    found = unknown(
        digits, embeddings, WHOLE.model_copy(update={"shortlist": short, "guard": 1.0}), work
    )
    twice = [
        candidate
        for candidate in found.candidates
        if "short training, 2 round(s)" in candidate.judged_by
    ]
    assert steps.count(4) == len(found.candidates)
    assert steps.count(8) == len(twice) == len({candidate.cell for candidate in twice})
    assert all(
        len([c for c in listed(found, name) if c in twice]) >= 2 for name in ("lock", "source only")
    )
    assert {found.chosen.cell, found.reference.cell} <= {candidate.cell for candidate in twice}


def test_the_whole_space_is_ranked(digits: ImageSet, embeddings: Embeddings, work: Work) -> None:
    """Source ranks of the reference's list are 0 and 1 among all different networks; no lock's cell
    could have a higher fitness.
    """
    found = unknown(digits, embeddings, WHOLE, work)
    assert [
        candidate.source_rank
        for candidate in sorted(listed(found, "source only"), key=lambda c: c.source_rank)
    ] == [0, 1]
    assert all(c.rank_gap == (c.target_rank or 0) - 2 * c.source_rank for c in found.candidates)
    assert any("the packaged meta-bench" in line for line in found.used)
    simulated = unknown(digits, embeddings, WHOLE.model_copy(update={"poor": "simulated"}), work)
    assert np.allclose(simulated.source_cosines, 0.97, atol=1e-6)
    with pytest.raises(RecipeError, match="different networks"):
        unknown(digits, embeddings, WHOLE.model_copy(update={"panel": 99_999}), work)


def test_the_same_question_has_the_same_answer(
    digits: ImageSet, embeddings: Embeddings, work: Work
) -> None:
    """Byte for byte, also when global random states differ."""
    first = unknown(digits, embeddings, RECIPE, work)
    for path in work.folder.glob("measured-*.json"):
        path.unlink()
    torch.manual_seed(99)
    assert unknown(digits, embeddings, RECIPE, work).to_json() == first.to_json()


def test_source_only_has_no_lock(digits: ImageSet, embeddings: Embeddings, work: Work) -> None:
    """In S both lists are one, chosen is the reference, and there is no target to have a rank or a
    cosine.
    """
    found = unknown(digits, embeddings, RECIPE.model_copy(update={"scheme": "S"}), work)
    assert found.chosen == found.reference
    assert found.source_cosines == ()
    assert all(candidate.target_rank is None for candidate in found.candidates)


def test_known_targets_are_the_auxiliary_sets(
    digits: ImageSet, other_digits: ImageSet, embeddings: Embeddings, work: Work
) -> None:
    """With auxiliary sets the scheme is TK, and the target's cosine is theirs."""
    found = search_cell(digits, (other_digits,), embeddings, NETWORK, RECIPE, work=work)
    a, b = (
        work.files.get_arrays(embedding.vector)["fisher"].astype(float) for embedding in embeddings
    )
    assert found.scheme == "TK"
    assert found.source_cosines == pytest.approx((a @ b / np.linalg.norm(a) / np.linalg.norm(b),))
    assert "the auxiliary sets' embeddings" in found.used


def test_known_targets_need_auxiliary_sets(
    digits: ImageSet, embeddings: Embeddings, work: Work
) -> None:
    """TK without any is a recipe that cannot be meant."""
    with pytest.raises(RecipeError, match="no auxiliary set"):
        unknown(digits, embeddings, RECIPE.model_copy(update={"scheme": "TK"}), work)


def test_embeddings_of_other_images_are_refused(
    digits: ImageSet, other_digits: ImageSet, embeddings: Embeddings, work: Work
) -> None:
    """Swapped, missing or too many: each embedding must be of its data set."""
    for given in (embeddings[::-1], embeddings[:1], (*embeddings, embeddings[0])):
        with pytest.raises(IntegrityError, match="do not belong to these 2 data sets"):
            search_cell(digits, (other_digits,), given, NETWORK, RECIPE, work=work)


def test_only_source_and_auxiliary_are_opened_and_never_a_test_split(
    digits: ImageSet,
    other_digits: ImageSet,
    embeddings: Embeddings,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In TK the search loads train and val of both and nothing else, chooses the poorest on the
    auxiliary data, and says what it used.
    """
    opened = []
    real = short_training.load_pool

    def watch(images: ImageSet, split: Any, *rest: Any, **options: Any) -> Any:
        opened.append((images.digest, split))
        return real(images, split, *rest, **options)

    monkeypatch.setattr(short_training, "load_pool", watch)
    found = search_cell(
        digits,
        (other_digits,),
        embeddings,
        NETWORK,
        RECIPE.model_copy(update={"guard": 1.0}),
        work=work,
    )
    assert set(opened) == {
        (images.digest, split) for images in (digits, other_digits) for split in ("train", "val")
    }
    assert any(
        f"source's train and validation images ({len(found.candidates)} short trainings)" in line
        for line in found.used
    )
    within = [
        candidate for candidate in found.candidates if candidate.auxiliary_accuracy is not None
    ]
    assert (
        found.chosen.cell
        == min(within, key=lambda candidate: candidate.auxiliary_accuracy or 0).cell
    )
    assert any("otherwise than for the source" in line for line in found.used)


def test_an_interrupted_search_measures_no_cell_twice(
    digits: ImageSet, embeddings: Embeddings, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second training and started again: the first is not repeated, and the result
    is that of an unbroken run.
    """
    trained = []
    real = short_training.fit

    def stop_once(module: torch.nn.Module, *rest: Any, **options: Any) -> Any:
        trained.append(str(module.architecture.cell))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(module, *rest, **options)

    monkeypatch.setattr(short_training, "fit", stop_once)
    with pytest.raises(KeyboardInterrupt):
        unknown(digits, embeddings, RECIPE, work)
    resumed = unknown(digits, embeddings, RECIPE, work)
    assert trained.count(trained[0]) == 1
    assert trained.count(trained[1]) == 2
    assert len(trained) == len(resumed.candidates) + 1


def test_a_cell_that_diverges_is_not_chosen(
    digits: ImageSet, embeddings: Embeddings, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays among the candidates without an accuracy; when all diverge the search says so."""
    real = short_training.fit
    calls = []

    def diverge_first(module: torch.nn.Module, *rest: Any, **options: Any) -> Any:
        calls.append(module)
        if len(calls) == 1:
            raise OutcomeError("training diverged: made up")
        return real(module, *rest, **options)

    monkeypatch.setattr(short_training, "fit", diverge_first)
    found = unknown(digits, embeddings, RECIPE, work)
    broken = [candidate.cell for candidate in found.candidates if candidate.source_accuracy is None]
    assert len(broken) == 1
    assert found.chosen.cell not in broken
    assert found.reference.cell not in broken
    for path in work.folder.glob("measured-*.json"):
        path.write_text("null")
    with pytest.raises(OutcomeError, match="all 2 cells of the short list diverged"):
        unknown(digits, embeddings, RECIPE, work)


def test_a_cosine_out_of_reach_is_named(
    digits: ImageSet, embeddings: Embeddings, work: Work
) -> None:
    """The mixture cannot be orthogonal to a non-negative source; the paper's construction can."""
    with pytest.raises(DataError, match="the least is"):
        unknown(digits, embeddings, RECIPE.model_copy(update={"cosine": 0.0}), work)
    paper = RECIPE.model_copy(update={"cosine": 0.0, "construction": "isotropic"})
    assert np.allclose(unknown(digits, embeddings, paper, work).source_cosines, 0, atol=1e-6)


@pytest.mark.parametrize("scheme", ["S", "TU", "TK"])
def test_measuring_alone_reads_what_its_scheme_allows(
    scheme: str,
    digits: ImageSet,
    other_digits: ImageSet,
    embeddings: Embeddings,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Source in S and TU, source and auxiliary in TK, never a test split; the budget holds; the
    reference is the best on the source.
    """
    opened = []
    real = short_training.load_pool

    def watch(images: ImageSet, split: Any, *rest: Any, **options: Any) -> Any:
        opened.append((images.digest, split))
        return real(images, split, *rest, **options)

    monkeypatch.setattr(short_training, "load_pool", watch)
    recipe = RECIPE.model_copy(
        update={"scheme": scheme, "method": "measured", "measurements": 6, "guard": 1.0}
    )
    auxiliary = (other_digits,) if scheme == "TK" else ()
    found = search_cell(
        digits, auxiliary, embeddings[: 1 + len(auxiliary)], NETWORK, recipe, work=work
    )
    wanted = [digits.digest, *(images.digest for images in auxiliary)]
    assert set(opened) == {(digest, split) for digest in wanted for split in ("train", "val")}
    assert len(found.candidates) == 6
    assert sum("measured, lock" in candidate.judged_by for candidate in found.candidates) == 2
    assert {found.chosen.cell, found.reference.cell} <= {
        candidate.cell for candidate in found.candidates
    }
    assert (found.chosen == found.reference) or scheme != "S"
    assert any(
        "(6 short trainings)" in line for line in found.used
    )  # the short list's were made already
    assert (len(list(work.folder.glob("measured-*.json"))) >= 12) == (scheme == "TK")
    again = search_cell(
        digits, auxiliary, embeddings[: 1 + len(auxiliary)], NETWORK, recipe, work=work
    )
    assert again.to_json() == found.to_json()
