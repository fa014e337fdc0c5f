"""`metatrain` and `metabench`: what the options ask for is what the sentence is told, and the file
and its card come out.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lockforge import pipeline
from lockforge.recipe import Recipe
from lockforge.runs import Runs
from lockforge.search.fit_predictor import FittedPredictor
from lockforge.search.meta_bench import GatheredBench

Outputs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the sentences were told; instead of minutes of training they give a file of four
    bytes.
    """
    told: list[tuple[object, ...]] = []

    def metatrain(
        places: Sequence[str], unseen: Sequence[str], plan: pipeline.MetaPlan, _: Recipe, do: Runs
    ) -> FittedPredictor:
        told.append((places, unseen, plan))
        return FittedPredictor(file=do.files.put(b"pair"), card={"form": plan.form})

    def metabench(places: Sequence[str], count: int, _: Recipe, do: Runs) -> GatheredBench:
        told.append((places, count))
        return GatheredBench(file=do.files.put(b"list"), card={"cells": count})

    monkeypatch.setattr(pipeline, "metatrain", metatrain)
    monkeypatch.setattr(pipeline, "metabench", metabench)
    return told


@pytest.mark.parametrize(
    ("options", "form"),
    [((), "pair"), (("--form", "pair"), "pair"), (("--form", "score"), "score")],
)
def test_the_form_reaches_the_plan(
    options: tuple[str, ...], form: str, outputs: Outputs, asked: list[tuple[object, ...]]
) -> None:
    """Nothing else of the plan changes; the file is written, the card is the whole answer."""
    code, out, err = outputs(
        "metatrain", "a", "b", "--unseen", "c", *options, "--out", "there/p.safetensors"
    )
    assert code == 0, err
    assert asked == [
        (
            ["a", "b"],
            ("c",),
            pipeline.MetaPlan(form="score") if form == "score" else pipeline.MetaPlan(),
        )
    ]
    assert json.loads(out) == {"form": form}
    assert Path("there/p.safetensors").read_bytes() == b"pair"


def test_a_form_that_does_not_exist_is_refused(
    outputs: Outputs, asked: list[tuple[object, ...]]
) -> None:
    """Exit 2 with the two that do; nothing is trained in its place."""
    code, _, err = outputs("metatrain", "a", "--form", "triple")
    assert (code, asked) == (2, [])
    assert all(word in err for word in ("triple", "pair", "score"))


def test_a_meta_bench_is_written_with_its_card(
    outputs: Outputs, asked: list[tuple[object, ...]]
) -> None:
    """The number of cells reaches the sentence."""
    code, out, err = outputs("metabench", "a", "--cells", "99")
    assert code == 0, err
    assert asked == [(["a"], 99)]
    assert json.loads(out) == {"cells": 99}
    assert Path("metabench.safetensors").read_bytes() == b"list"
