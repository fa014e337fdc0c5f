"""Records of a release: the report, its provenance, the files, and the verdict of a check."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lockforge.records._base import Count, FileRef, Record, Share
from lockforge.records.audit import TransferAudit
from lockforge.records.data import Roles, TaskEmbedding
from lockforge.records.search import SearchResult
from lockforge.records.training import Pruning, Start, Subjects


class TargetTest(Record):
    """Does the lock take anything away on this target? `p` is one-sided, `adjusted` controls the
    false discoveries over all targets.
    """

    target: str
    p: Share
    adjusted: Share


class Quantised(Record):
    """The network in 8-bit whole numbers: its file, how many images calibrated it, and its
    accuracy on the source's test split.
    """

    file: FileRef
    calibration: Annotated[int, Field(ge=1)]
    accuracy: Share
    test_samples: Count


class Report(Record):
    """What an owner signs: no times and no paths, so that the same answers give the same bytes.

    `digests` says whether digests of data are SHA-256, or made with the owner's key as a release
    has them (`evidence.keyed`).
    """

    schema_version: Literal[1] = 1
    digests: Literal["open", "keyed"] = "open"
    recipe: dict[str, Any]
    roles: Roles
    embeddings: tuple[TaskEmbedding, ...]
    cosines: tuple[tuple[float, ...], ...]
    search: SearchResult | None
    pruned: dict[Start, Pruning] = {}
    subjects: Subjects
    audits: tuple[TransferAudit, ...]
    tests: tuple[TargetTest, ...] = ()
    parity: str
    int8: Quantised | None = None
    verdict: str


class Provenance(Record):
    """Circumstances: beside the report, never hashed into a key."""

    versions: dict[str, str]
    hardware: dict[str, str]
    seconds: dict[str, float]
    commit: str
    started: str


class Artifact(Record):
    """The files of a release before they are signed, by name."""

    report: FileRef
    files: dict[str, FileRef]

    required: ClassVar[tuple[str, ...]] = ("model.safetensors", "report.json")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [name for name in self.required if name not in self.files]
        if missing:
            raise ValueError(f"a release needs {', '.join(missing)}")
        return self


class Check(Record):
    """One comparison of a verdict."""

    name: str
    value: str
    bound: str
    passed: bool


class Verdict(Record):
    """All checks, and whether every one of them passed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True only when there is at least one check and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)
