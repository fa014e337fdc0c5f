"""The predictor: opposite answers by construction, batches that agree with single questions, and a
file that is checked when loaded.
"""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from lockforge.errors import IntegrityError
from lockforge.randomness import numpy_generator
from lockforge.records import TaskEmbedding
from lockforge.runs import Work
from lockforge.search.predictor import Predictor, load_predictor, log_shape
from lockforge.spaces import NAMES, random_cell
from lockforge.spaces.encoding import one_hot

MakePredictor = Callable[..., Predictor]
MakeEmbedding = Callable[..., TaskEmbedding]


def cells_of(space: str, count: int) -> list:
    """Random cells."""
    generator = numpy_generator(0, "cells", space)
    return [random_cell(space, generator) for _ in range(count)]


@pytest.mark.parametrize("form", ["pair", "score"])
@pytest.mark.parametrize("space", NAMES)
def test_asking_the_other_way_round_gives_the_opposite_answer(
    toy: MakePredictor, vectors: np.ndarray, space: str, form: str
) -> None:
    """Exactly: h(a, b, z) - h(b, a, z) changes its sign and nothing else; a cell beside itself is
    0.
    """
    predictor, cells = toy(space, form), cells_of(space, 4)
    there, back = (
        predictor.ask(cells, cells[::-1], vectors),
        predictor.ask(cells[::-1], cells, vectors),
    )
    assert np.array_equal(there, -back)
    assert np.any(there != 0)
    assert not predictor.ask(cells, cells, vectors).any()


@pytest.mark.parametrize("form", ["pair", "score"])
def test_all_pairs_at_once_are_the_single_answers(
    toy: MakePredictor, vectors: np.ndarray, form: str
) -> None:
    """The split first layer only orders the additions otherwise; the matrix is antisymmetric with a
    zero diagonal.
    """
    predictor, cells = toy("nasbench201", form), cells_of("nasbench201", 7)
    logits = predictor.ask_all(cells, vectors)
    assert np.array_equal(logits, -logits.transpose(0, 2, 1))
    i, j = np.divmod(np.arange(49), 7)
    for z, vector in enumerate(vectors):
        single = predictor.ask(
            [cells[a] for a in i], [cells[b] for b in j], np.repeat(vector[None], 49, axis=0)
        )
        assert np.allclose(logits[z].ravel(), single, atol=1e-5)


def test_a_score_predictor_is_transitive_and_a_pair_predictor_need_not_be(
    toy: MakePredictor, vectors: np.ndarray
) -> None:
    """s(a) - s(b) + s(b) - s(c) = s(a) - s(c); the pair form is free of that."""
    cells = cells_of("nasbench201", 5)
    for form, adds_up in (("score", True), ("pair", False)):
        x = toy("nasbench201", form).ask_all(cells, vectors[:1])[0]
        assert np.allclose(x[0, 1] + x[1, 2], x[0, 2], atol=1e-5) == adds_up


def test_only_the_shape_of_an_embedding_counts(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Twice the information in every filter is the same task; another shape is another answer."""
    predictor, cells = toy(), cells_of("nasbench201", 4)
    assert np.allclose(
        predictor.ask_all(cells, vectors), predictor.ask_all(cells, 2 * vectors), atol=1e-5
    )
    assert not np.allclose(
        predictor.ask_all(cells, vectors[:1]), predictor.ask_all(cells, vectors[1:2]), atol=1e-2
    )


def test_entries_below_zero_count_as_zero() -> None:
    """The paper's made-up targets have them; the logarithm stays finite."""
    assert torch.equal(
        log_shape(np.array([[-1.0, 2.0, 2.0]])), log_shape(np.array([[0.0, 2.0, 2.0]]))
    )


def test_a_far_away_task_is_held_at_the_edge(toy: MakePredictor, vectors: np.ndarray) -> None:
    """Entries a million times larger than in training move the input by at most four spreads."""
    extreme = vectors[:1].copy()
    extreme[0, 0] *= 1e6
    assert float(toy().see(extreme).abs().max()) <= 4


def test_the_typical_task_is_an_embedding_at_the_centre(toy: MakePredictor) -> None:
    """No embedding means the mean of the training's log shapes."""
    predictor, cells = toy(), cells_of("nasbench201", 4)
    answers = predictor.ask_typical(cells)
    zeros = torch.zeros(1, 12)
    with torch.no_grad():
        by_hand = predictor.network(
            *(torch.from_numpy(one_hot([cells[at]], "nasbench201")) for at in (0, 1)), zeros
        )
    assert answers[0, 1] == pytest.approx(float(by_hand), abs=1e-5)


def test_an_embedding_is_read_whatever_the_head_training(
    toy: MakePredictor, embedding: MakeEmbedding, vectors: np.ndarray, work: Work
) -> None:
    """The toy was trained with 300 head steps, the embedding made with 200: the same kind of
    numbers.
    """
    read = toy().vector_of(embedding(vectors[0]), work.files)
    assert np.allclose(read, vectors[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"probe": "ef" * 32}, "probe"), ({"definition": "other layers"}, "definition")],
)
def test_an_embedding_from_another_probe_is_refused(
    toy: MakePredictor,
    embedding: MakeEmbedding,
    vectors: np.ndarray,
    work: Work,
    change: dict,
    said: str,
) -> None:
    """The error names what differs and says how to go on."""
    with pytest.raises(IntegrityError, match=f"{said}: the predictor was trained on") as caught:
        toy().vector_of(embedding(vectors[0], **change), work.files)
    assert "embed.probe: packaged" in caught.value.hint


@pytest.mark.parametrize("bad", [np.full(12, np.nan), -np.ones(12)])
def test_values_no_fisher_diagonal_has_are_refused(
    toy: MakePredictor, embedding: MakeEmbedding, work: Work, bad: np.ndarray
) -> None:
    """Not finite, or below zero."""
    with pytest.raises(IntegrityError, match="12 finite numbers >= 0"):
        toy().vector_of(embedding(bad), work.files)


def test_an_embedding_of_another_length_is_refused(
    toy: MakePredictor, embedding: MakeEmbedding, work: Work
) -> None:
    """Thirteen numbers where twelve were learnt."""
    with pytest.raises(
        IntegrityError, match="dimension: the predictor was trained on 12, this embedding has 13"
    ):
        toy().vector_of(embedding(np.ones(13)), work.files)


def altered(data: bytes, change: Callable[[dict], None]) -> bytes:
    """A predictor's file with other tensors under the same card."""
    length = int.from_bytes(data[:8], "little")
    card = json.loads(data[8 : 8 + length])["__metadata__"]["card"]
    tensors = dict(load(data))
    change(tensors)
    return save(tensors, {"card": card})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.update({"layers.0.weight": torch.zeros(128, 71)}),
            r"layers.0.weight: \(128, 71\) where \(128, 72\)",
        ),
        (lambda t: t.pop("layers.4.bias"), "layers.4.bias: missing"),
        (lambda t: t.update(extra=torch.zeros(1)), r"extra: \(1,\) where nothing"),
        (lambda t: t.update(centre=torch.zeros(11)), "do not fit together"),
        (lambda t: t.pop("tasks"), "do not fit together"),
        (lambda t: t["layers.0.weight"].__setitem__((0, 0), torch.nan), "not finite"),
    ],
)
def test_a_file_with_other_tensors_is_refused(
    toy_data: bytes, change: Callable[[dict], None], said: str
) -> None:
    """Names, shapes and values are checked, and the fault is named."""
    with pytest.raises(IntegrityError, match="is not a predictor") as caught:
        load_predictor("nasbench201", altered(toy_data, change))
    assert any(re.search(said, fault) for fault in caught.value.faults)


def test_bytes_that_are_no_predictor_are_refused(toy_data: bytes) -> None:
    """Nothing, a part, a file without a card, a predictor of the other space."""
    for data in (
        b"",
        toy_data[:1000],
        save({"a": torch.zeros(1)}),
        save({"a": torch.zeros(1)}, {"card": "{}"}),
    ):
        with pytest.raises(IntegrityError):
            load_predictor("nasbench201", data)
    with pytest.raises(IntegrityError, match="for nasbench201, not for transnas101"):
        load_predictor("transnas101", toy_data)
