"""Records of trained and locked networks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lockforge.records._base import Count, Digest, FileRef, Record, Share
from lockforge.records.cells import AnyArchitecture, is_black_box


class Epoch(Record):
    """One line of a learning history."""

    epoch: Count
    loss: float
    train_accuracy: Share
    val_accuracy: Share | None
    learning_rate: float


# made a checkpoint of an encoder that came without a head: the head was trained on the source
HEADLESS = "adopt_encoder/1"


class Checkpoint(Record):
    """Trained weights and where they came from; accuracies are on the source's own splits. A black
    box's weights are its ONNX file.
    """

    architecture: AnyArchitecture
    weights: FileRef
    trained_on: Digest
    made_by: str
    val_accuracy: Share
    test_accuracy: Share
    test_samples: Count
    confusion: tuple[tuple[int, ...], ...]
    history: tuple[Epoch, ...]


Start = Annotated[
    str,
    Field(
        pattern=r"^(release|twin|reference|scratch_release|scratch_reference|dummy|public:[\w.-]+|ablation:[a-z-]+)$"
    ),
]


class PruneRound(Record):
    """One round of pruning: means over its steps, then the state at its end.

    Losses are in nats and None where there was no such term; `between` and `within` are the traces
    of the auxiliary features' scatter. `primal` = |W - Z| / |W| and `dual` = |Z - Z_before| / |W|,
    Euclidean over all prunable weights; `sparsity` is the share of zeros in Z.
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
    """A network that whole filters were taken out of: its weights, and the operations of one
    image, before and after.
    """

    parameters: tuple[Count, Count]
    flops: tuple[Count, Count]


class Pruning(Record):
    """How a network was pruned. `auxiliary` says what stood in for the thief's task: sets given,
    images made of the source, or nothing.

    `dense_bytes`, `sparse_bytes`: the weights as safetensors, with zeros written out and in the
    compact form. `source_drop`: accuracy on the source's validation split that the lock cost.
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
        return sum(layer.zeros for layer in self.layers) / sum(
            layer.weights for layer in self.layers
        )


class PrunedModel(Record):
    """A pruned network and how it came about."""

    checkpoint: Checkpoint
    pruning: Pruning


class Ablation(Record):
    """A network that is audited beside the release to show what each part of the lock does, under
    the name of its start `ablation:NAME`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z-]+$")]
    checkpoint: Checkpoint


class WeightLock(Record):
    """What pruning made of a model: the release, the networks that show what each part does, and
    how each was pruned, by its start.

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
    """The networks an audit compares: the release, the same without its weight lock, the one no
    lock was put on, and public ones.

    `stand_in` is what a thief starts over with where the release is a black box, whose architecture
    nobody knows.
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
        if (
            any(is_black_box(one.architecture) for one in (self.release, self.reference))
            and self.stand_in is None
        ):
            raise ValueError("a black box needs a stand-in: its own architecture is not known")
        return self

    def empty(self, checkpoint: Checkpoint) -> AnyArchitecture:
        """The architecture of the empty network beside a checkpoint: its own, or the stand-in's."""
        known = not is_black_box(checkpoint.architecture)
        return checkpoint.architecture if known or self.stand_in is None else self.stand_in
