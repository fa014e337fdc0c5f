"""Records of pruning with one thing wrong: each wrong thing is named."""

from collections.abc import Callable

import numpy as np
import pytest

from lockforge.evidence.zeros import pruning_faults, zero_faults
from lockforge.records import LayerSparsity, Pruning, Report
from tests.report import made_up

Edit = Callable[[Report], Report]


@pytest.fixture(scope="module")
def report() -> Report:
    """A pruned release with its ablations, not audited."""
    return made_up.pruned_report(targets={})


def with_release(report: Report, **changes: object) -> Report:
    """The report with an edited record of the release's pruning."""
    return report.model_copy(
        update={
            "pruned": report.pruned
            | {"release": report.pruned["release"].model_copy(update=changes)}
        }
    )


def with_layers(report: Report, *layers: LayerSparsity) -> Report:
    """The same with other layers."""
    return with_release(report, layers=layers)


def test_honest_records_have_no_fault(report: Report) -> None:
    """A pruned release, and one that was not pruned."""
    assert set(report.pruned) == {
        "release",
        "ablation:magnitude",
        "ablation:no-fisher",
        "ablation:weight-lock",
    }
    assert pruning_faults(report) == ()
    assert pruning_faults(made_up.report(targets={})) == ()


LAYER = LayerSparsity(name="a", weights=10, zeros=9)
EDITS: dict[str, tuple[Edit, str]] = {
    "more zeros than weights": (
        lambda r: with_layers(r, LAYER.model_copy(update={"zeros": 11})),
        "a has 11 zeros among 10 weights",
    ),
    "a layer twice": (lambda r: with_layers(r, LAYER, LAYER), "the layer a is told 2 times"),
    "a loss below 0": (
        lambda r: with_release(
            r, rounds=(r.pruned["release"].rounds[0].model_copy(update={"between": -1.0}),)
        ),
        "pruned.release.rounds.0.between: -1 is below 0",
    ),
    "a network that is not there": (
        lambda r: r.model_copy(
            update={"pruned": r.pruned | {"ablation:other": r.pruned["release"]}}
        ),
        "pruned.ablation:other: the report has no such network",
    ),
    "a pruned twin": (
        lambda r: r.model_copy(update={"pruned": r.pruned | {"twin": r.pruned["release"]}}),
        "pruned.twin",
    ),
    "an ablation that nobody tells of": (
        lambda r: r.model_copy(update={"pruned": {"release": r.pruned["release"]}}),
        "ablation:magnitude was audited, but it is not told how it was pruned",
    ),
    "a release that is its own twin": (
        lambda r: r.model_copy(
            update={"subjects": r.subjects.model_copy(update={"twin": r.subjects.release})}
        ),
        "its own twin, which was not",
    ),
}


@pytest.mark.parametrize("case", EDITS)
def test_every_edit_is_named(case: str, report: Report) -> None:
    """One thing edited, one line that names it."""
    edit, said = EDITS[case]
    faults = pruning_faults(edit(report))
    assert any(said in fault for fault in faults), faults


def test_zeros_are_counted_in_the_weights(report: Report) -> None:
    """Nine zeros among ten weights, -0 is one too; another count, size or name is a fault."""
    pruning: Pruning = with_layers(report, LAYER).pruned["release"]
    tensor = np.zeros((2, 5), dtype=np.float32)
    tensor[0, 0], tensor[0, 1] = 1.0, -0.0
    assert zero_faults(pruning, {"a": tensor, "b": np.ones(3)}) == ()
    assert zero_faults(pruning, {"b": tensor}) == ("there is no tensor a",)
    assert zero_faults(pruning, {"a": tensor + 1}) == (
        "a has 0 zeros among 10 weights, the report says 9 among 10",
    )
    assert zero_faults(pruning, {"a": tensor[:1]}) == (
        "a has 4 zeros among 5 weights, the report says 9 among 10",
    )
