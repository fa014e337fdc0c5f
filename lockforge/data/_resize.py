r"""One resize for arrays, the same to the last bit on every machine, and the same as Pillow's
bilinear resize of one image.

An output pixel is a weighted mean of input pixels under a triangle whose half-width is one input
pixel, or one output pixel where that is larger (so that a smaller image is smoothed, not
sampled). Columns first, then rows; weights are whole numbers of 2^-22 and each pass rounds to 8
bits, so no floating-point sum depends on the machine.

Shapes: n images, h x w pixels, c channels, k output pixels, t taps (input pixels under a
    triangle).
"""

import math

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from lockforge.data._memory import hold

_BITS = 22  # of the weights: 255 * 2^22 still fits 32 bits
_CHUNK_BYTES = 2**22
_LUMA = (19595, 38470, 7471)  # ITU-R BT.601: .299, .587, .114 in units of 2^-16


def taps(before: int, after: int) -> tuple[Int64[np.ndarray, "k t"], Int32[np.ndarray, "k t"]]:
    """Which input pixels each output pixel is a mean of, and their weights in units of 2^-22.

    >>> where, weight = taps(4, 2)
    >>> where[0].tolist(), (weight[0] / 2**22).round(3).tolist()
    ([0, 1, 2, 3, 3], [0.429, 0.429, 0.143, 0.0, 0.0])
    """
    scale = before / after
    reach = max(scale, 1.0)
    width = 2 * math.ceil(reach) + 1
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), before)
    where = first[:, None] + np.arange(width)
    weight = np.maximum(1 - np.abs((where - centre[:, None] + 0.5) / reach), 0)
    weight[where >= last[:, None]] = 0
    weight /= weight.sum(1, keepdims=True)
    return np.minimum(where, before - 1), np.floor(weight * 2**_BITS + 0.5).astype(np.int32)


def _along(images: UInt8[np.ndarray, "..."], axis: int, after: int) -> UInt8[np.ndarray, "..."]:
    before = images.shape[axis]
    if before == after:
        return images
    where, weight = taps(before, after)
    spread = [1] * images.ndim
    spread[axis] = after
    total = np.full(
        (*images.shape[:axis], after, *images.shape[axis + 1 :]), 1 << (_BITS - 1), np.int32
    )
    for tap in range(where.shape[1]):
        if weight[:, tap].any():
            total += images.take(where[:, tap], axis=axis).astype(np.int32) * weight[
                :, tap
            ].reshape(spread)
    made: UInt8[np.ndarray, "..."] = np.clip(total >> _BITS, 0, 255).astype(np.uint8)
    return made


def resize(
    images: UInt8[np.ndarray, "n h w c"], height: int, width: int
) -> UInt8[np.ndarray, "n {height} {width} c"]:
    """Every image stretched to height x width; nothing is cut off."""
    return _along(_along(images, 2, width), 1, height)


def to_grey(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 1"]:
    """Luma, .299 red + .587 green + .114 blue (ITU-R BT.601), rounded; grey stays exactly what it
    is.

    >>> to_grey(np.full((1, 1, 1, 3), 77, np.uint8)).item()
    77
    """
    red, green, blue = (
        images[..., at].astype(np.uint32) * weight for at, weight in enumerate(_LUMA)
    )
    return ((red + green + blue + 2**15) >> 16).astype(np.uint8)[..., None]


def bring_to(
    images: UInt8[np.ndarray, "n h w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n c2 h2 w2"]:
    """Images in the shape (channels, height, width), channels first; worked through in small
    chunks to stay modest with memory.
    """
    channels, height, width = shape
    out = hold((len(images), channels, height, width))
    step = max(1, _CHUNK_BYTES // max(1, math.prod(images.shape[1:]), channels * height * width))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        if channels == 1 and part.shape[-1] == 3:
            part = to_grey(part)
        out[start : start + step] = resize(part, height, width).transpose(0, 3, 1, 2)
    return out
