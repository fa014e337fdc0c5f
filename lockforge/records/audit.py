"""Records of an audit: what each attacker reached, and the figures derived from it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lockforge.records._base import Count, Digest, Record, Share
from lockforge.records.training import Start


class AttackPoint(Record):
    """One fitted attacker. `test_accuracy` is set only where validation chose this setting: the
    test split is touched once.

    `budget` is in budgets of the audit: points with more than one belong to no curve and only show
    whether one is enough.
    """

    start: Start
    attacker: str
    setting: str
    images_per_class: Count
    samples: Count
    seed: Count
    budget: Annotated[int, Field(ge=1)] = 1
    steps: Count
    flops: float
    val_accuracy: Share
    test_accuracy: Share | None = None


class LearningCurve(Record):
    """Sample-wise learning curve: `accuracy[i][s]` after `samples[i]` images, seed s."""

    samples: tuple[int, ...]
    accuracy: tuple[tuple[Share, ...], ...]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(b <= a for a, b in zip(self.samples, self.samples[1:], strict=False)) or (
            self.samples and self.samples[0] < 1
        ):
            raise ValueError(f"samples must rise strictly from at least 1: {self.samples}")
        if len(self.accuracy) != len(self.samples) or len({len(row) for row in self.accuracy}) > 1:
            raise ValueError("one row of accuracies for each sample count, the same seeds in each")
        return self


class Estimate(Record):
    """A mean over seeds with its 95 % interval; undefined with a reason where it cannot be said."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    per_seed: tuple[float, ...] = ()
    reason: str = ""

    @property
    def defined(self) -> bool:
        """Whether there is a figure at all."""
        return self.mean is not None


class Envelope(Record):
    """What a thief gets who may use `starts`: at each fraction and seed the choice is by
    validation.
    """

    name: str
    starts: tuple[Start, ...]
    curve: LearningCurve


class SlcArea(Record):
    """SLC-AUC of one attacker from one start, against scratch on the released architecture; natural
    log, and divided by ln(x_max/x_min).
    """

    start: Start
    attacker: str
    area: Estimate
    normalised: Estimate


class BudgetCheck(Record):
    """What one attacker reaches with one budget and with `factor` of them: mean test accuracies
    over the seeds that tried both.

    `share` = reached / with_more; 1 where more budget reaches nothing either.
    """

    start: Start
    attacker: str
    samples: Count
    factor: Annotated[int, Field(ge=2)]
    reached: Share
    with_more: Share
    share: Annotated[float, Field(ge=0)]


class AblationMeasure(Record):
    """What one part of the lock does: a network of `Subjects.ablations`, or the twin as
    `architecture-lock`, attacked like the release.

    `curve` is what a thief gets who may start from it or start over; `kept` and
    `removed_vs_reference` are as the release's. `beyond_release` is the mean accuracy by which it
    puts him above where the release does, paired over seeds: above 0 the whole lock does more.
    """

    name: str
    start: Start
    curve: LearningCurve
    kept: Estimate
    removed_vs_reference: Estimate
    beyond_release: Estimate
    worst_attacker: str


class Measures(Record):
    """Everything derived from the raw points; `verify` computes it again.

    `worth`, `kept`: mean accuracy by which the envelopes of the unlocked model and of the release
    lie above scratch. `image_sd`: what the finite test split adds to `kept`, as a standard
    deviation. `worth_beyond_public` is None where no public weights were given. `ablations` decide
    nothing.
    """

    envelopes: tuple[Envelope, ...]
    slc: tuple[SlcArea, ...]
    worth: Estimate
    kept: Estimate
    worth_beyond_public: Estimate | None = None
    removed_vs_reference: Estimate
    removed_vs_twin: Estimate
    removed_by_dummy: Estimate
    worst_attacker: str
    accuracy_gap: Estimate
    samples_to_90: dict[str, float | None]
    flops_to_90: dict[str, float | None]
    budget_checks: tuple[BudgetCheck, ...] = ()
    ablations: tuple[AblationMeasure, ...] = ()
    image_sd: Annotated[float, Field(ge=0)]


class AuditVerdict(Record):
    """The verdict in words; `quick` suites can only indicate."""

    word: Literal[
        "nothing to protect",
        "moot",
        "no protection",
        "delays",
        "protects under this suite",
        "indicative only",
    ]
    reason: str


class TransferAudit(Record):
    """What a thief gets out of the release on one target: all raw points, and what follows from
    them.

    `same_as` names starts that are the same network as another and so have no points of their own,
    as the twin of an unpruned release. `skipped` names attackers that a thief could make and this
    audit could not, from any start, with the reason; each weakens the verdict. `dropped` is what
    was left out because nobody could have made it.
    """

    target: Digest
    suite: str
    suite_version: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
    grid: tuple[int, ...]
    samples: tuple[int, ...]
    seeds: tuple[int, ...]
    dropped: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    validation_samples: Count
    test_samples: Count
    same_as: dict[Start, Start] = {}
    points: tuple[AttackPoint, ...]
    measures: Measures
    verdict: AuditVerdict
