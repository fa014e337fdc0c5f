"""Meta-training: labels by majority, and a predictor that uses the embedding exactly when there is
something in it.
"""

from collections.abc import Callable

import numpy as np
import pytest

from lockforge.errors import DataError, IntegrityError
from lockforge.randomness import numpy_generator
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import Cell, ImageSet, Op, TaskEmbedding
from lockforge.runs import Work
from lockforge.search._proxies import PROXIES, preference
from lockforge.search.fit_predictor import (
    CellScores,
    FittedPredictor,
    fit_predictor,
    majority,
    score_cells,
)
from lockforge.search.predictor import load_predictor
from lockforge.search.tasks import draw_cells

MakeEmbedding = Callable[..., TaskEmbedding]
NETWORK = NetworkRecipe(space="transnas101", stem_channels=4, cells_per_stage=1)
FIT = FitRecipe(
    steps=300,
    batch_size=128,
    optimizer="adam",
    learning_rate=3e-3,
    schedule="cosine",
    select="last",
)
KINDS = ("training",) * 8 + ("new set",) * 4


def test_the_majority_table_is_the_vote_pair_by_pair() -> None:
    """The same as `preference` on every pair, with ties and missing proxies."""
    generator = numpy_generator(0, "table")
    table = generator.integers(3, size=(9, len(PROXIES))).astype(float)
    table[generator.random(table.shape) < 0.2] = np.nan
    rows = [
        {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(PROXIES, row, strict=True)
        }
        for row in table
    ]
    expected = [[np.sign(preference(a, b)) for b in rows] for a in rows]
    assert np.array_equal(majority(table), expected)


def test_scores_are_stored_with_what_is_missing(digits: ImageSet, work: Work) -> None:
    """One row a cell; a second time gives the same bytes; larger images are shrunk to `side`."""
    cells = draw_cells("transnas101", 3, (), numpy_generator(0, "cells"))
    found = score_cells(digits, NETWORK, cells, 8, 8, work=work)
    table = work.files.get_arrays(found.scores)["scores"]
    assert table.shape == (3, 7)
    assert found.missing == {
        name: int(n) for name, n in zip(PROXIES, np.isnan(table).sum(0), strict=True) if n
    }
    assert score_cells(digits, NETWORK, cells, 8, 8, work=work) == found
    shrunk = work.files.get_arrays(score_cells(digits, NETWORK, cells, 8, 4, work=work).scores)[
        "scores"
    ]
    assert (shrunk[:, PROXIES.index("flops")] < table[:, PROXIES.index("flops")]).all()


def lessons(
    embedding: MakeEmbedding, work: Work, *, task_matters: bool
) -> tuple[tuple[TaskEmbedding, ...], tuple[CellScores, ...]]:
    """Twelve tasks of two sorts that an embedding tells apart: one likes 3x3 convolutions; if the
    task matters, the other hates them.
    """
    generator = numpy_generator(0, "lessons")
    common = draw_cells("transnas101", 10, (), generator)
    embeddings, scores = [], []
    for number in range(12):
        sort = number % 2
        vector = generator.exponential(size=8) + np.repeat([5.0 * sort, 5.0 * (1 - sort)], 4)
        images = f"{number:02x}" * 32
        cells = (*common, *draw_cells("transnas101", 20, common, generator))
        sign = -1.0 if sort and task_matters else 1.0
        table = np.repeat(
            [[sign * cell.ops.count(Op.conv3x3)] for cell in cells], len(PROXIES), axis=1
        )
        embeddings.append(embedding(vector, images=images))
        scores.append(
            CellScores(
                images=images,
                cells=cells,
                missing={},
                scores=work.files.put_arrays({"scores": table}),
            )
        )
    return tuple(embeddings), tuple(scores)


def fitted(
    embedding: MakeEmbedding, work: Work, *, task_matters: bool, form: str = "pair"
) -> FittedPredictor:
    """A predictor fitted on `lessons`."""
    return fit_predictor(
        *lessons(embedding, work, task_matters=task_matters), KINDS, NETWORK, form, FIT, work=work
    )


@pytest.mark.parametrize("form", ["pair", "score"])
def test_an_embedding_that_matters_is_used(embedding: MakeEmbedding, work: Work, form: str) -> None:
    """Two sorts of tasks with opposite answers: right on new tasks and new cells, at chance with
    another task's embedding or none.
    """
    card = fitted(embedding, work, task_matters=True, form=form).card
    found = card["pair_accuracy"]["new set"]["held_out_cells"]
    assert found["real"] > 0.95
    assert found["shuffled"] < 0.7
    assert 0.3 < found["zero"] < 0.7
    assert card["agreement"] < 0.6
    assert min(card["pair_accuracy"]["new set"]["real_minus_shuffled"]) > 0.2


def test_an_embedding_that_does_not_matter_is_not_said_to(
    embedding: MakeEmbedding, work: Work
) -> None:
    """All tasks alike: agreement 1, and the real embedding is no better than another's."""
    card = fitted(embedding, work, task_matters=False).card
    found = card["pair_accuracy"]["new set"]
    assert card["agreement"] == 1
    assert found["held_out_cells"]["real"] > 0.95
    assert np.abs(found["real_minus_shuffled"]).max() < 0.05


def test_the_file_holds_the_training_tasks_and_the_card(
    embedding: MakeEmbedding, work: Work
) -> None:
    """Nothing of a task that only tests is in the file; what was fitted is what is loaded."""
    result = fitted(embedding, work, task_matters=True)
    embeddings, _ = lessons(embedding, work, task_matters=True)
    predictor = load_predictor("transnas101", work.files.get(result.file))
    bank = np.stack([work.files.get_arrays(one.vector)["fisher"] for one in embeddings[:8]])
    assert np.array_equal(predictor.tasks, bank.astype(np.float64))
    assert predictor.card == result.card
    good, bad = (Cell(ops=(op,) * 6) for op in (Op.conv3x3, Op.skip))
    assert (
        predictor.ask([good], [bad], bank[:1].astype(float))[0]
        > 0
        > predictor.ask([good], [bad], bank[1:2].astype(float))[0]
    )


def test_tasks_that_do_not_belong_together_are_refused(
    embedding: MakeEmbedding, work: Work
) -> None:
    """Swapped embeddings, another probe, too few tasks, no common cell."""
    embeddings, scores = lessons(embedding, work, task_matters=True)
    with pytest.raises(IntegrityError, match="do not belong together"):
        fit_predictor(embeddings[::-1], scores, KINDS, NETWORK, "pair", FIT, work=work)
    other = embeddings[0].model_copy(update={"probe": "ef" * 32})
    with pytest.raises(IntegrityError, match="do not belong together"):
        fit_predictor((other, *embeddings[1:]), scores, KINDS, NETWORK, "pair", FIT, work=work)
    with pytest.raises(DataError, match="too few"):
        fit_predictor(embeddings, scores, ("training",) * 12, NETWORK, "pair", FIT, work=work)
    alone = scores[0].model_copy(update={"cells": scores[0].cells[10:] + scores[0].cells[20:]})
    with pytest.raises(DataError, match="scored on every task"):
        fit_predictor(embeddings, (alone, *scores[1:]), KINDS, NETWORK, "pair", FIT, work=work)
