"""The values that travel between rooms: frozen, told apart by digest, JSON both ways.

Arrays never sit in JSON: a record names them by `FileRef`, the hash of a file in the runs folder.
Accuracies are in [0, 1]; shapes are (c channels, h, w pixels); digests are SHA-256 in hex.
"""

import hashlib
import json
import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from lockforge.errors import IntegrityError

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN; the text that digests are taken of.

    >>> canonical_json({"b": 1, "a": [0.5]})
    '{"a":[0.5],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    """SHA-256 of UTF-8 text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


class Record(BaseModel):
    """A frozen value that knows its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return sha256_text(self.to_json())

    def to_json(self) -> str:
        """The canonical JSON text; `from_json` gives the same record back."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record.

        Raises: IntegrityError: the text is not such a record; every fault is listed.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise IntegrityError(
                f"this is not a {cls.__name__} record",
                faults=fault_lines(error),
                hint="it was edited, cut short or written by another version",
            ) from error


def fault_lines(error: ValidationError) -> tuple[str, ...]:
    """One line a fault: where, which value, what was wanted."""
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "(the whole)"
        given = repr(fault["input"])
        shown = given if len(given) <= 60 else given[:57] + "..."
        lines.append(f"{where}: {fault['msg']} (given: {shown})")
    return tuple(lines)


class FileRef(Record):
    """A file named by its bytes."""

    sha256: Digest
    size: Count


# Data


class Splits(Record):
    """Images in each split."""

    train: Count
    val: Count
    test: Count

    @property
    def total(self) -> int:
        """All images."""
        return self.train + self.val + self.test


class ImageSet(Record):
    """One data set as decoded, resized and split: (c, h, w) pixels in 0..255, labels as indices into `classes`.

    `pixels` holds `images` u8 (n, c, h, w), `labels` i64 (n,), `content` u8 (n, 16) (hash of the picture before resizing) and
    `split` u8 (n,) (0 train, 1 val, 2 test). `mean` and `std` are of the training split, pixels scaled to [0, 1].
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: Splits
    pixels: FileRef

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"{self.shape[0]} channels, but {len(self.mean)} means and {len(self.std)} deviations")
        return self


class Roles(Record):
    """Who may see what: the lock may learn from source and auxiliary; a target is only ever seen by the audit."""

    source: ImageSet
    auxiliary: tuple[ImageSet, ...] = ()
    targets: tuple[ImageSet, ...] = ()
    names: tuple[str, ...]
    dropped: dict[str, Count] = {}
    unreadable: dict[str, Count] = {}

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        if len(self.names) != 1 + len(self.auxiliary) + len(self.targets):
            raise ValueError("one name for the source, one for each auxiliary set and one for each target")
        return self

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names of the targets, in order."""
        return self.names[1 + len(self.auxiliary) :]

    @property
    def auxiliary_names(self) -> tuple[str, ...]:
        """The names of the auxiliary sets, in order."""
        return self.names[1 : 1 + len(self.auxiliary)]


class TaskEmbedding(Record):
    """Diagonal Fisher information of a probe on one task: `vector` holds `fisher` f32 (d,), finite and >= 0."""

    images: Digest
    probe: Digest
    definition: str
    dimension: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    probe_accuracy: Share
    vector: FileRef


# Spaces


class Op(StrEnum):
    """What an edge of a cell does; the names are NAS-Bench-201's."""

    none = "none"
    skip = "skip_connect"
    conv1x1 = "nor_conv_1x1"
    conv3x3 = "nor_conv_3x3"
    pool3x3 = "avg_pool_3x3"


EDGES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_CELL_PART = re.compile(r"([a-z_0-9]+)~(\d)")


class Cell(Record):
    """Four nodes, six edges: `ops[i]` is on the edge `EDGES[i]`, node 0 is the input, node 3 the output.

    >>> cell = Cell(ops=(Op.conv3x3, Op.none, Op.skip, Op.skip, Op.conv1x1, Op.pool3x3))
    >>> str(cell)
    '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|'
    >>> Cell.parse(str(cell)) == cell
    True
    """

    ops: tuple[Op, Op, Op, Op, Op, Op]

    def __str__(self) -> str:
        """NAS-Bench-201's own spelling."""
        named = [f"{op.value}~{start}" for op, (start, _) in zip(self.ops, EDGES, strict=True)]
        return f"|{named[0]}|+|{'|'.join(named[1:3])}|+|{'|'.join(named[3:])}|"

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Read NAS-Bench-201's spelling.

        Raises: ValueError: not that spelling, or an unknown operation.
        """
        parts = _CELL_PART.findall(text)
        if len(parts) != len(EDGES):
            raise ValueError(f"not a cell: {text!r} has {len(parts)} edges where {len(EDGES)} are needed")
        ops = tuple(Op(name) for name, _ in parts)
        cell = cls(ops=ops)  # type: ignore[arg-type]  # six were counted above
        if str(cell) != text:
            raise ValueError(f"not a cell: {text!r} would be spelt {str(cell)!r}")
        return cell


class Architecture(Record):
    """Enough to rebuild a network: cell + macro skeleton + head."""

    space: Literal["nasbench201", "transnas101"]
    cell: Cell
    stem_channels: Annotated[int, Field(ge=1)]
    cells_per_stage: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
    shape: tuple[int, int, int]

    def __str__(self) -> str:
        """Space and cell."""
        return f"{self.space} {self.cell}"


TIMM, PYTHON = "timm:", "python:"


class NamedArchitecture(Record):
    """Enough to rebuild a network that others published: its name, classes and pictures (c, h, w).

    The name is one of `spaces.named.NAMES`; or `timm:NAME`, which timm rebuilds; or `python:package.module:function@DIGEST`, which only
    says which function of its owner's made it, and the first hex digits of the SHA-256 of its module's text.
    `widths`: channels of the layers that filters were taken out of, by name and sorted. As long as there are none they are not written, so
    that a record without them keeps its digest.
    """

    space: Literal["named"] = "named"
    name: Annotated[
        str, Field(pattern=r"^([a-z0-9_-]{1,64}|timm:[a-z0-9_.-]{1,96}|python:[A-Za-z0-9_.]{1,160}:[A-Za-z0-9_]{1,80}@[0-9a-f]{12})$")
    ]
    classes: Annotated[int, Field(ge=2)]
    shape: tuple[Side, Side, Side]
    widths: tuple[tuple[str, Side], ...] = ()

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        names = [name for name, _ in self.widths]
        if names != sorted(set(names)):
            raise ValueError(f"widths must be sorted by name, each name once: {names[:8]}")
        return self

    @model_serializer(mode="wrap")
    def _without_no_widths(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if not self.widths:
            del written["widths"]
        return written

    def __str__(self) -> str:
        """The name, and how many layers have become narrower."""
        return f"{self.name} with {len(self.widths)} narrower layer(s)" if self.widths else self.name


def origin_of(architecture: Architecture | NamedArchitecture) -> Literal["ours", "timm", "python"]:
    """Whose code makes the network: ours, timm's, or a function of its owner's.

    >>> origin_of(NamedArchitecture(name="timm:resnet18.a1_in1k", classes=2, shape=(3, 32, 32)))
    'timm'
    """
    name = architecture.name if isinstance(architecture, NamedArchitecture) else ""
    return "timm" if name.startswith(TIMM) else "python" if name.startswith(PYTHON) else "ours"


BLACK_BOX = "black-box"


def is_black_box(architecture: Architecture | NamedArchitecture) -> bool:
    """Whether only its answers are known: a network named `BLACK_BOX` is an ONNX file, and nothing can be built from that name."""
    return isinstance(architecture, NamedArchitecture) and architecture.name == BLACK_BOX


AnyArchitecture = Annotated[Architecture | NamedArchitecture, Field(discriminator="space")]


# Search


class Candidate(Record):
    """A cell of the short list and what it was judged by. Rank 0 is best; `rank_gap` = target_rank - weight * source_rank.

    `auxiliary_accuracy` is counted from chance (0) to all right (1), over all auxiliary sets by the recipe's `search.over`.
    """

    cell: Cell
    source_rank: Count
    target_rank: Count | None
    rank_gap: float
    judged_by: tuple[str, ...]
    source_accuracy: Share | None = None
    auxiliary_accuracy: Share | None = None


class SearchResult(Record):
    """What the search chose, what it would have chosen without the lock, and what each choice was allowed to know."""

    scheme: Literal["S", "TU", "TK"]
    chosen: Architecture
    reference: Architecture
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    questions: Count
    predictor: Digest
    source_cosines: tuple[float, ...]
    used: tuple[str, ...]

    @model_validator(mode="after")
    def _chosen_is_a_candidate(self) -> Self:
        cells = {candidate.cell for candidate in self.candidates}
        for name in ("chosen", "reference"):
            if getattr(self, name).cell not in cells:
                raise ValueError(f"the {name} cell is not among the candidates")
        return self


# Training


class Epoch(Record):
    """One line of a learning history."""

    epoch: Count
    loss: float
    train_accuracy: Share
    val_accuracy: Share | None
    learning_rate: float


HEADLESS = "adopt_encoder/1"  # made a checkpoint of an encoder that came without a head: the head was trained on the source


class Checkpoint(Record):
    """Trained weights and where they came from; accuracies are on the source's own splits. A black box's weights are its ONNX file."""

    architecture: AnyArchitecture
    weights: FileRef
    trained_on: Digest
    made_by: str
    val_accuracy: Share
    test_accuracy: Share
    test_samples: Count
    confusion: tuple[tuple[int, ...], ...]
    history: tuple[Epoch, ...]


# Pruning


Start = Annotated[str, Field(pattern=r"^(release|twin|reference|scratch_release|scratch_reference|dummy|public:[\w.-]+|ablation:[a-z-]+)$")]


class PruneRound(Record):
    """One round of pruning: means over its steps, then the state at its end.

    Losses are in nats and None where there was no such term; `between` and `within` are the traces of the auxiliary features' scatter.
    `primal` = |W - Z| / |W| and `dual` = |Z - Z_before| / |W|, Euclidean over all prunable weights; `sparsity` is the share of zeros in Z.
    """

    phase: Literal["rounds", "recovery"]
    source_loss: float
    auxiliary_loss: float | None = None
    between: float | None = None
    within: float | None = None
    penalty: float = 0.0
    primal: float = 0.0
    dual: float = 0.0
    sparsity: Share
    val_accuracy: Share


class LayerSparsity(Record):
    """Zeros of one prunable tensor."""

    name: str
    weights: Annotated[int, Field(ge=1)]
    zeros: Count


class Smaller(Record):
    """A network that whole filters were taken out of: its weights, and the operations of one picture, before and after."""

    parameters: tuple[Count, Count]
    flops: tuple[Count, Count]


class Pruning(Record):
    """How a network was pruned. `auxiliary` says what stood in for the thief's task: sets given, pictures made of the source, or nothing.

    `dense_bytes`, `sparse_bytes`: the weights as safetensors, with zeros written out and in the compact form. `source_drop`: accuracy on
    the source's validation split that the lock cost.
    """

    method: Literal["magnitude", "ntp"]
    fisher: bool
    auxiliary: Literal["given", "generated", "none"]
    layers: Annotated[tuple[LayerSparsity, ...], Field(min_length=1)]
    rounds: tuple[PruneRound, ...]
    source_drop: Annotated[float, Field(ge=-1, le=1)]
    dense_bytes: Count
    sparse_bytes: Count
    smaller: Smaller | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros among all prunable weights."""
        return sum(layer.zeros for layer in self.layers) / sum(layer.weights for layer in self.layers)


class PrunedModel(Record):
    """A pruned network and how it came about."""

    checkpoint: Checkpoint
    pruning: Pruning


class Ablation(Record):
    """A network that is audited beside the release to show what each part of the lock does, under the name of its start `ablation:NAME`."""

    name: Annotated[str, Field(pattern=r"^[a-z-]+$")]
    checkpoint: Checkpoint


class WeightLock(Record):
    """What pruning made of a model: the release, the networks that show what each part does, and how each was pruned, by its start.

    Without a weight lock the release is the model itself.
    """

    release: Checkpoint
    ablations: tuple[Ablation, ...] = ()
    pruned: dict[Start, Pruning] = {}


class PublicWeights(Record):
    """A network that anybody can have, under the name of its start `public:NAME`."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    architecture: AnyArchitecture
    weights: FileRef


class Subjects(Record):
    """The networks an audit compares: the release, the same without its weight lock, the one no lock was put on, and public ones.

    `stand_in` is what a thief starts over with where the release is a black box, whose architecture nobody knows.
    """

    release: Checkpoint
    twin: Checkpoint
    reference: Checkpoint
    ablations: tuple[Ablation, ...] = ()
    public: tuple[PublicWeights, ...] = ()
    stand_in: AnyArchitecture | None = None

    @model_validator(mode="after")
    def _can_be_attacked(self) -> Self:
        names = [public.name for public in self.public]
        if len(set(names)) < len(names):
            raise ValueError(f"two public networks have one name: {names}")
        names = [ablation.name for ablation in self.ablations]
        if len(set(names)) < len(names):
            raise ValueError(f"two ablations have one name: {names}")
        if any(is_black_box(public.architecture) for public in self.public):
            raise ValueError("a public network has weights: it is no black box")
        if any(is_black_box(one.architecture) for one in (self.release, self.reference)) and self.stand_in is None:
            raise ValueError("a black box needs a stand-in: its own architecture is not known")
        return self

    def empty(self, checkpoint: Checkpoint) -> AnyArchitecture:
        """The architecture of the empty network beside a checkpoint: its own, or the stand-in's."""
        known = not is_black_box(checkpoint.architecture)
        return checkpoint.architecture if known or self.stand_in is None else self.stand_in


# Audit


class AttackPoint(Record):
    """One fitted attacker. `test_accuracy` is set only where validation chose this setting: the test split is touched once.

    `budget` is in budgets of the audit: points with more than one belong to no curve and only show whether one is enough.
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
        if any(b <= a for a, b in zip(self.samples, self.samples[1:], strict=False)) or (self.samples and self.samples[0] < 1):
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
    """What a thief gets who may use `starts`: at each fraction and seed the choice is by validation."""

    name: str
    starts: tuple[Start, ...]
    curve: LearningCurve


class SlcArea(Record):
    """SLC-AUC of one attacker from one start, against scratch on the released architecture; natural log, and divided by ln(x_max/x_min)."""

    start: Start
    attacker: str
    area: Estimate
    normalised: Estimate


class BudgetCheck(Record):
    """What one attacker reaches with one budget and with `factor` of them: mean test accuracies over the seeds that tried both.

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
    """What one part of the lock does: a network of `Subjects.ablations`, or the twin as `architecture-lock`, attacked like the release.

    `curve` is what a thief gets who may start from it or start over; `kept` and `removed_vs_reference` are as the release's.
    `beyond_release` is the mean accuracy by which it puts him above where the release does, paired over seeds: above 0 the whole lock
    does more.
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

    `worth`, `kept`: mean accuracy by which the envelopes of the unlocked model and of the release lie above scratch. `image_sd`: what
    the finite test split adds to `kept`, as a standard deviation. `worth_beyond_public` is None where no public weights were given.
    `ablations` decide nothing.
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

    word: Literal["nothing to protect", "moot", "no protection", "delays", "protects under this suite", "indicative only"]
    reason: str


class TransferAudit(Record):
    """What a thief gets out of the release on one target: all raw points, and what follows from them.

    `same_as` names starts that are the same network as another and so have no points of their own, as the twin of an unpruned release.
    `skipped` names attackers that a thief could make and this audit could not, from any start, with the reason; each weakens the verdict.
    `dropped` is what was left out because nobody could have made it.
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


class TargetTest(Record):
    """Does the lock take anything away on this target? `p` is one-sided, `adjusted` controls the false discoveries over all targets."""

    target: str
    p: Share
    adjusted: Share


# Release


class Quantised(Record):
    """The network in 8-bit whole numbers: its file, how many pictures calibrated it, and its accuracy on the source's test split."""

    file: FileRef
    calibration: Annotated[int, Field(ge=1)]
    accuracy: Share
    test_samples: Count


class Report(Record):
    """What an owner signs: no times and no paths, so that the same answers give the same bytes.

    `digests` says whether digests of data are SHA-256, or made with the owner's key as a release has them (`evidence.keyed`).
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
