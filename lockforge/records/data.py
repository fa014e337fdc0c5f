"""Records of data: image sets, the roles they have, and task embeddings."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from lockforge.records._base import Count, Digest, FileRef, Record, Share


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
    """One data set as decoded, resized and split: (c, h, w) pixels in 0..255, labels as indices
    into `classes`.

    `pixels` holds `images` u8 (n, c, h, w), `labels` i64 (n,), `content` u8 (n, 16) (hash of the
    image before resizing) and `split` u8 (n,) (0 train, 1 val, 2 test). `mean` and `std` are of
    the training split, pixels scaled to [0, 1].
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
            raise ValueError(
                f"{self.shape[0]} channels, but {len(self.mean)} means and {len(self.std)} "
                "deviations"
            )
        return self


class Roles(Record):
    """Who may see what: the lock may learn from source and auxiliary; a target is only ever seen by
    the audit.
    """

    source: ImageSet
    auxiliary: tuple[ImageSet, ...] = ()
    targets: tuple[ImageSet, ...] = ()
    names: tuple[str, ...]
    dropped: dict[str, Count] = {}
    unreadable: dict[str, Count] = {}

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        if len(self.names) != 1 + len(self.auxiliary) + len(self.targets):
            raise ValueError(
                "one name for the source, one for each auxiliary set and one for each target"
            )
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
    """Diagonal Fisher information of a probe on one task: `vector` holds `fisher` f32 (d,), finite
    and >= 0.
    """

    images: Digest
    probe: Digest
    definition: str
    dimension: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    probe_accuracy: Share
    vector: FileRef
