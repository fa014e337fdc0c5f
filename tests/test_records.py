"""Records: frozen, strict, one JSON spelling, invariants held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lockforge.errors import IntegrityError
from lockforge.records import (
    Architecture,
    Candidate,
    Cell,
    Check,
    Checkpoint,
    FileRef,
    ImageSet,
    LearningCurve,
    NamedArchitecture,
    Op,
    SearchResult,
    Splits,
    Verdict,
    canonical_json,
)

A = "a" * 64
cells = st.builds(Cell, ops=st.tuples(*[st.sampled_from(list(Op))] * 6))


@given(cells)
def test_a_cell_is_read_back_from_its_spelling(cell: Cell) -> None:
    """parse(str(c)) == c for every cell."""
    assert Cell.parse(str(cell)) == cell


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~1|",
        "|nose~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
)
def test_a_cell_that_is_not_spelt_so_is_refused(text: str) -> None:
    """Missing edges, wrong nodes and unknown operations are errors."""
    with pytest.raises(ValueError, match=r"cell|Op"):
        Cell.parse(text)


@given(cells, st.integers(1, 64), st.integers(2, 100))
def test_a_record_comes_back_from_json_with_the_same_digest(
    cell: Cell, stem: int, classes: int
) -> None:
    """JSON both ways loses nothing, and the digest depends on the content alone."""
    first = Architecture(
        space="nasbench201",
        cell=cell,
        stem_channels=stem,
        cells_per_stage=1,
        classes=classes,
        shape=(1, 8, 8),
    )
    again = Architecture.from_json(first.to_json())
    assert again == first
    assert again.digest == first.digest
    assert first.model_copy(update={"classes": classes + 1}).digest != first.digest


def test_an_architecture_is_spelt_as_it_always_was() -> None:
    """Keys of finished questions rest on these bytes; a checkpoint may hold a network by name
    instead.
    """
    cell = Architecture(
        space="nasbench201",
        cell=Cell(ops=(Op.skip,) * 6),
        stem_channels=2,
        cells_per_stage=1,
        classes=3,
        shape=(1, 8, 8),
    )
    ops = ",".join(['"skip_connect"'] * 6)
    assert cell.to_json() == (
        f'{{"cell":{{"ops":[{ops}]}},"cells_per_stage":1,"classes":3,"shape":[1,8,8],"space":"nasbench201","stem_channels":2}}'
    )
    named = NamedArchitecture(name="resnet18-cifar", classes=3, shape=(1, 8, 8))
    assert (
        named.to_json() == '{"classes":3,"name":"resnet18-cifar","shape":[1,8,8],"space":"named"}'
    )
    rest = {
        "weights": FileRef(sha256=A, size=1),
        "trained_on": A,
        "made_by": "t/1",
        "val_accuracy": 1,
        "test_accuracy": 1,
    }
    for architecture in (cell, named):
        kept = Checkpoint(
            architecture=architecture, test_samples=1, confusion=((1,),), history=(), **rest
        )  # type: ignore[arg-type]
        assert Checkpoint.from_json(kept.to_json()).architecture == architecture


def test_a_record_is_frozen_and_refuses_unknown_fields_and_nan() -> None:
    """Values cannot be changed after they were made, and a typo is no field."""
    ref = FileRef(sha256=A, size=1)
    with pytest.raises(ValidationError):
        ref.size = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        FileRef(sha256=A, size=1, colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_a_record_that_cannot_be_read_names_every_fault() -> None:
    """An edited record is an IntegrityError with a line a fault."""
    with pytest.raises(IntegrityError) as caught:
        FileRef.from_json('{"sha256": "xyz", "size": -1}')
    assert len(caught.value.faults) == 2
    with pytest.raises(IntegrityError):
        FileRef.from_json("{")


def test_what_was_chosen_is_among_the_candidates() -> None:
    """A search result cannot name a cell that it did not consider."""
    cell, other = Cell(ops=(Op.skip,) * 6), Cell(ops=(Op.conv3x3,) * 6)
    make = {
        "space": "nasbench201",
        "stem_channels": 1,
        "cells_per_stage": 1,
        "classes": 2,
        "shape": (1, 8, 8),
    }
    inside, outside = Architecture(cell=cell, **make), Architecture(cell=other, **make)  # type: ignore[arg-type]
    candidate = Candidate(
        cell=cell, source_rank=0, target_rank=0, rank_gap=0.0, judged_by=("predictor",)
    )
    rest = {
        "scheme": "S",
        "candidates": (candidate,),
        "questions": 1,
        "predictor": A,
        "source_cosines": (),
        "used": ("source",),
    }
    assert SearchResult(chosen=inside, reference=inside, **rest).chosen == inside  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="not among the candidates"):
        SearchResult(chosen=outside, reference=inside, **rest)  # type: ignore[arg-type]


def test_a_learning_curve_rises_in_samples() -> None:
    """Repeated or falling sample counts and ragged seeds are refused."""
    assert LearningCurve(samples=(1, 2), accuracy=((0.1, 0.2), (0.3, 0.4))).samples == (1, 2)
    for samples, accuracy in (
        ((2, 2), ((0.1,), (0.1,))),
        ((0, 1), ((0.1,), (0.1,))),
        ((1, 2), ((0.1,), (0.1, 0.2))),
        ((1,), ((1.1,),)),
    ):
        with pytest.raises(ValidationError):
            LearningCurve(samples=samples, accuracy=accuracy)


def test_means_and_channels_of_an_image_set_agree() -> None:
    """One mean and one deviation for each channel."""
    rest = {
        "classes": ("a", "b"),
        "counts": Splits(train=1, val=1, test=1),
        "pixels": FileRef(sha256=A, size=1),
    }
    with pytest.raises(ValidationError, match="3 channels"):
        ImageSet(shape=(3, 8, 8), mean=(0.5,), std=(0.5,), **rest)  # type: ignore[arg-type]


def test_a_verdict_without_checks_has_not_passed() -> None:
    """No evidence is no pass."""
    good = Check(name="a", value="1", bound="1", passed=True)
    assert not Verdict(checks=()).passed
    assert Verdict(checks=(good,)).passed
    assert not Verdict(checks=(good, good.model_copy(update={"passed": False}))).passed


def test_widths_of_a_named_network_are_written_only_where_there_are_some() -> None:
    """A record without them is the JSON it was before there were widths; with them it comes back,
    and has one spelling.
    """
    full = NamedArchitecture(name="resnet18", classes=10, shape=(3, 32, 32))
    assert full.to_json() == '{"classes":10,"name":"resnet18","shape":[3,32,32],"space":"named"}'
    narrow = NamedArchitecture(
        name="resnet18", classes=10, shape=(3, 32, 32), widths=(("a", 3), ("b", 1))
    )
    assert NamedArchitecture.from_json(narrow.to_json()) == narrow
    assert narrow.digest != full.digest
    assert str(narrow) == "resnet18 with 2 narrower layer(s)"
    for wrong in ([["b", 1], ["a", 3]], [["a", 1], ["a", 1]], [["a", 0]]):
        with pytest.raises(IntegrityError, match="widths"):
            NamedArchitecture.from_json(
                canonical_json({**full.model_dump(mode="json"), "widths": wrong})
            )
