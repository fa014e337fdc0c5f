"""One split of a data set on a device, and batches of it: small images stay 8-bit on the device
and are augmented there.

Shapes: n images, c channels, h x w pixels, b images a batch. Normalised pixels are (pixel / 255
    - mean) / std of a channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lockforge.errors import IntegrityError
from lockforge.files import Files
from lockforge.records import ImageSet

MOST_ON_DEVICE = 8 * 2**30  # bytes of 8-bit images
_SPLITS = {"train": 0, "val": 1, "test": 2}
Batch = tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]


@dataclass(frozen=True)
class Pool:
    """One split: images, labels, and how pixels are normalised."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    classes: int

    def __len__(self) -> int:
        """Images."""
        return len(self.labels)

    def take(self, indices: Int64[Tensor, " k"]) -> "Pool":
        """Some images, in that order."""
        return Pool(
            self._images(indices),
            self.labels[indices.to(self.labels.device)],
            self.mean,
            self.std,
            self.classes,
        )

    def to(self, device: str) -> "Pool":
        """The same on another device. Images that are too many for it stay where they are, and go
        there batch by batch.
        """
        images = self.images if self.images.nbytes > MOST_ON_DEVICE else self.images.to(device)
        return Pool(
            images, self.labels.to(device), self.mean.to(device), self.std.to(device), self.classes
        )

    def pixels(self, indices: Int64[Tensor, " k"] | None = None) -> Float[Tensor, "k c h w"]:
        """Normalised pixels of some images, or of all."""
        return self._normalised(self.images if indices is None else self._images(indices))

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[Batch]:
        """One epoch.

        Args: batch_size: images a batch. generator: of the CPU; it shuffles and augments, and a
            last short batch is dropped unless it is the only one. None: all images in order, as
            they are. crop: pad with so many black pixels and cut the old size out anywhere. flip:
            mirror half of the images. balance: classes are drawn in proportion to (their
            images)^(1 - balance), so that 1 gives every class alike; above zero, images are
            drawn with replacement.
        """
        count = len(self)
        if generator is None:
            for start in range(0, count, batch_size):
                part = slice(start, start + batch_size)
                yield self._normalised(self.images[part]), self.labels[part]
            return
        order = (
            self._drawn(balance, generator)
            if balance
            else torch.randperm(count, generator=generator)
        ).to(self.images.device)
        used = count // batch_size * batch_size or count
        for start in range(0, used, batch_size):
            rows = order[start : start + batch_size]
            images = self._images(rows)
            if crop:
                images = random_crop(images, crop, generator)
            if flip:
                images = random_flip(images, generator)
            yield self._normalised(images), self.labels[rows.to(self.labels.device)]

    def _drawn(self, balance: float, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """As many images as there are, drawn with replacement: first a class, then one of its
        images.
        """
        labels = self.labels.cpu()
        counts = torch.bincount(labels, minlength=self.classes)
        shares = counts.double() ** (1 - balance) * (counts > 0)
        classes = torch.multinomial(shares, len(labels), replacement=True, generator=generator)
        within = (
            torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[classes]
        ).long()
        starts = counts.cumsum(0) - counts
        return torch.argsort(labels, stable=True)[starts[classes] + within]

    def _images(self, rows: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
        """On the labels' device."""
        return self.images[rows.to(self.images.device)].to(self.labels.device)

    def _normalised(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale = (1 / (255 * self.std)).view(-1, 1, 1)
        return (
            images.to(self.mean.device)
            .float()
            .mul_(scale)
            .sub_((self.mean / self.std).view(-1, 1, 1))
        )


def random_crop(
    images: UInt8[Tensor, "b c h w"], padding: int, generator: torch.Generator
) -> UInt8[Tensor, "b c h w"]:
    """Each image moved by -padding to padding pixels each way, uniformly; what comes in is black.
    The standard CIFAR augmentation.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (2, count), generator=generator).to(
        images.device, non_blocking=True
    )
    padded = functional.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # b c y x h w, a view
    return windows[torch.arange(count, device=images.device), :, offsets[0], offsets[1]]


def random_flip(
    images: UInt8[Tensor, "b c h w"], generator: torch.Generator
) -> UInt8[Tensor, "b c h w"]:
    """Each image mirrored left to right with probability one half."""
    mirrored = (
        torch.rand(len(images), generator=generator).to(images.device, non_blocking=True) < 0.5
    )
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def load_pool(
    images: ImageSet, split: Literal["train", "val", "test"], files: Files, *, device: str = "cpu"
) -> Pool:
    """One split of a stored data set on a device.

    Raises: IntegrityError: the stored images are gone, changed, or not as many as the record
        says.
    """
    stored = files.map_arrays(images.pixels)
    rows = np.flatnonzero(stored["split"] == _SPLITS[split])
    promised = getattr(images.counts, split)
    if len(rows) != promised or tuple(stored["images"].shape[1:]) != images.shape:
        raise IntegrityError(
            f"{files.path(images.pixels)} holds {len(rows)} {split} images of shape "
            f"{tuple(stored['images'].shape[1:])}, "
            f"not {promised} of shape {images.shape}",
            hint="the record belongs to other images: read the data again",
        )
    # A stored set is in the order of its splits, so that one of them is a part of the file and not
    # a copy.
    together = (
        slice(rows[0], rows[-1] + 1) if len(rows) and rows[-1] - rows[0] == len(rows) - 1 else rows
    )
    pixels, labels = (
        torch.from_numpy(stored["images"][together]),
        torch.from_numpy(stored["labels"][together]),
    )
    return Pool(
        pixels, labels, torch.tensor(images.mean), torch.tensor(images.std), len(images.classes)
    ).to(device)


def few(pool: Pool, per_class: int, generator: torch.Generator) -> Int64[Tensor, " k"]:
    """Indices of so many images of each class, drawn without replacement, class after class; a
    smaller class gives all it has.

    Args: per_class: 0 is all images, in order.
    """
    if per_class == 0:
        return torch.arange(len(pool))
    order = torch.randperm(len(pool), generator=generator)
    labels = pool.labels.cpu()[order]
    return torch.cat([order[labels == label][:per_class] for label in range(pool.classes)])
