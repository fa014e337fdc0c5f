"""The verdict follows from the figures by rules, and each rule holds at its edge."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pytest

from lockforge.evidence.curves import WORST_FIRST, measure, overall, verdict
from lockforge.records import AttackPoint, AuditVerdict, BudgetCheck, Estimate, Measures, Start

Simulate = Callable[..., tuple[AttackPoint, ...]]
Truth = Mapping[Start, Sequence[float]]


@pytest.fixture
def measures(flat: Truth, simulate: Simulate, rng: np.random.Generator) -> Measures:
    """Measures of `FLAT`: the release's envelope is at .6 at every grid value."""
    return measure(simulate(flat, rng), test_samples=1000)


def interval(low: float, high: float) -> Estimate:
    """An estimate in the middle of its interval."""
    return Estimate(mean=(low + high) / 2, low=low, high=high, per_seed=(low, high))


def with_r(measures: Measures, low: float, dummy: float = 1.0, **changes: Any) -> Measures:
    """The same measures with another R, another R of the dummy, and what else is given."""
    figures = {
        "removed_vs_reference": interval(low, low + 0.2),
        "removed_by_dummy": interval(dummy - 0.01, dummy + 0.01),
    }
    return measures.model_copy(update={**figures, **changes})


@pytest.mark.parametrize(
    ("low", "dummy", "suite", "word"),
    [
        (0.0, 1.0, "standard", "no protection"),
        (-0.2, 1.0, "quick", "no protection"),
        (0.1, 1.0, "standard", "delays"),
        (0.749, 1.0, "standard", "delays"),
        (0.75, 1.0, "standard", ("protects under this suite")),
        (0.99, 1.0, "quick", "indicative only"),
        (0.9, 0.95, "standard", ("protects under this suite")),
        (0.9, 0.9, "standard", "indicative only"),
        (0.9, 1.1, "full", "indicative only"),
        (-0.1, 0.5, "full", "no protection"),
    ],
)
def test_the_verdict_follows_the_lower_end_of_r(
    low: float, dummy: float, suite: str, word: str, measures: Measures
) -> None:
    """Every rule at its edge; `quick` never says that anything protects or delays; a dummy far from
    1 takes the word away.
    """
    said = verdict(with_r(measures, low, dummy), suite)
    assert said.word == word
    assert f"{low:.3f} to {low + 0.2:.3f}" in said.reason


@pytest.mark.parametrize(
    ("low", "word"), [(-0.1, "no protection"), (0.1, "indicative only"), (0.9, "indicative only")]
)
def test_a_skipped_attacker_leaves_an_indication_at_best(
    low: float, word: str, measures: Measures
) -> None:
    """In the fullest suite too; the reason names who was skipped and why."""
    said = verdict(
        with_r(measures, low),
        "full",
        ("fine-tune: an ONNX file has no weights to train", "regrow: the same"),
    )
    assert said.word == word
    assert ("fine-tune: an ONNX file has no weights to train; regrow: the same" in said.reason) == (
        word == "indicative only"
    )


@pytest.mark.parametrize("suite", ["quick", "full"])
@pytest.mark.parametrize("low", [-0.5, 0.9])
def test_public_weights_as_good_as_the_model_make_the_lock_moot(
    low: float, suite: str, measures: Measures
) -> None:
    """Whatever R is; as soon as the lower end is above 0 the other rules hold again; without public
    weights nobody can say moot.
    """
    beyond = {"worth_beyond_public": interval(0.0, 0.2)}
    said = verdict(with_r(measures, low, **beyond), suite)
    assert said.word == "moot"
    assert "0.100 (95 % interval 0.000 to 0.200" in said.reason
    better = with_r(measures, low, worth_beyond_public=interval(0.001, 0.2))
    assert verdict(better, suite) == verdict(with_r(measures, low), suite)
    assert verdict(better, suite).word != "moot"


def test_nothing_to_protect_comes_before_moot(measures: Measures) -> None:
    """A model that gives no head start over an empty network gives none over public weights either:
    the first says more.
    """
    undefined = with_r(
        measures,
        0.5,
        worth_beyond_public=interval(-0.1, 0.1),
        removed_vs_reference=Estimate(mean=None, reason="too little"),
    )
    assert verdict(undefined, "full") == AuditVerdict(
        word="nothing to protect", reason="too little"
    )


def test_who_was_skipped_is_said_where_it_would_make_the_model_worth_more(
    measures: Measures,
) -> None:
    """Nothing to protect, and moot, rest on what the unlocked model was seen to be worth."""
    moot = with_r(measures, 0.9, worth_beyond_public=interval(-0.1, 0.1))
    worthless = moot.model_copy(
        update={"removed_vs_reference": Estimate(mean=None, reason="too little")}
    )
    for found, word in ((moot, "moot"), (worthless, "nothing to protect")):
        said = verdict(found, "full", ("regrow: it needs weights",))
        assert said.word == word
        assert said.reason.endswith(
            "; attackers that a thief could make were skipped: regrow: it needs weights"
        )


def check(start: Start, with_more: float, samples: int = 100) -> BudgetCheck:
    """An attacker with four budgets beside what he reached with one."""
    return BudgetCheck(
        start=start,
        attacker="regrow",
        samples=samples,
        factor=4,
        reached=0.5,
        with_more=with_more,
        share=0.5 / with_more,
    )


@pytest.mark.parametrize(
    ("start", "with_more", "word"),
    [("release", 0.631, ("protects under this "
                        "suite")), ("release", 0.632, "delays"), ("scratch_release", 0.7, "delays"),
     ("reference", 0.9, "protects under this suite")],
)  # fmt: skip
def test_a_budget_that_is_too_small_cannot_protect(
    start: Start, with_more: float, word: str, measures: Measures
) -> None:
    """.6 / .95 = .6316: above it the best attack was stopped too early, and R says more than it
    should. Another's start is no matter.

    An attacker that needs more budget but stays below the envelope (here .5 of .55) changes
    nothing.
    """
    checks = (check(start, 0.55), check(start, with_more), check(start, 0.4, samples=10))
    said = verdict(with_r(measures, 0.8, budget_checks=checks), "standard")
    assert said.word == word
    assert (
        f"{start}:regrow with 4 budgets reaches {with_more:.3f} at 100 images" in said.reason
    ) == (word == "delays")
    assert verdict(with_r(measures, 0.3, budget_checks=checks), "standard").word == "delays"
    assert verdict(with_r(measures, -0.3, budget_checks=checks), "standard").word == "no protection"


def test_over_several_targets_the_worst_word_counts() -> None:
    """Every word has its place in the order, and none of them is "secure"."""
    words = get_args(AuditVerdict.model_fields["word"].annotation)
    assert sorted(words) == sorted(WORST_FIRST)
    assert not any("secure" in word for word in words)
    for at, word in enumerate(WORST_FIRST):
        said = [AuditVerdict(word=other, reason="") for other in reversed(WORST_FIRST[at:])]  # type: ignore[arg-type]
        assert overall(said) == word
