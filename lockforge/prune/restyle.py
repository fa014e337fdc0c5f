r"""Auxiliary images made of the source's own, for an owner who has no images of a thief's task.

Each kind moves the images away from the source in its own way. What a lock learns on them reaches
a thief's task only as far as that task looks like one of the kinds, so this is weaker than real
images of a similar task: docs/prune.md has figures.

    closer, farther   the figure fills the frame, or shrinks in it; turned, sheared, bent
    mixed             two classes in one image: as many new classes as there are old ones
    convolved, recoloured, textured   other filters, other colours, other grounds

Every image is also deformed, because colours alone leave a network on the source's own shapes.
Labels stay learnable: class k holds images of the source's class k, or of class k mixed with one
other class that is always the same.

Shapes: n images, c channels, h x w pixels in [0, 1], 1.0 is white. Generators are of the CPU, and
    all work is done there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lockforge.data.batches import Pool
from lockforge.errors import DataError, RecipeError

Kind = Literal["closer", "farther", "mixed", "convolved", "recoloured", "textured"]
Style = Callable[[Float[Tensor, "n c h w"], torch.Generator], Float[Tensor, "n c h w"]]
SETS: tuple[tuple[Kind, ...], ...] = (
    ("closer",),
    ("farther",),
    ("mixed", "convolved", "recoloured", "textured"),
)
KINDS: tuple[Kind, ...] = tuple(kind for kinds in SETS for kind in kinds)
# images of a source that stand-ins are made of: measured were 8,000
# (`tests/benchmarks/restyle.py`)
MOST = 10_000
# root mean square distance of an image from the one it was made of, in the source's standard
# deviations
LEAST = 0.5
_VALUES = 2**21  # pixels at a time
_WIDEST = 7  # pixels of a random kernel
_COARSE = 4  # rows and columns of the drawn displacements


def restyled(
    pool: Pool, generator: torch.Generator, *, kinds: Sequence[Kind] = KINDS, copies: int = 1
) -> Pool:
    """Images made of a source's: `copies` of each in other draws, the kinds in equal shares in
    every class.

    A set of one kind locks better than a set of many, where differences of kind drown those of
    class: `SETS` is a good division.

    Args: pool: the source. kinds: of `KINDS`.
    Returns: 8-bit images of the same shape on the same device, normalised alike; copy after copy
        in the pool's order, each class as often as in the source. Every image is at least `LEAST`
        away from the one it was made of.
    Raises: DataError: the pool is empty. RecipeError: no kind, an unknown one, or no copy is asked
        for.
    """
    _check(pool, kinds, copies)
    source, labels = pool.images.cpu(), pool.labels.cpu()
    partner = partners(labels, generator)
    step = max(1, _VALUES // max(1, source[0].numel()))
    images = torch.empty((copies * len(labels), *source.shape[1:]), dtype=torch.uint8)
    for copy in range(copies):
        with_whom, kind = partner(), shares(labels, len(kinds), generator)
        for part in torch.split(torch.arange(len(labels)), step):
            originals, others = _pixels(source[part]), _pixels(source[with_whom[part]])
            changed = torch.empty_like(originals)
            for at, name in enumerate(kinds):
                rows = (kind[part] == at).nonzero()[:, 0]
                if not len(rows):
                    continue
                base = (
                    mixed(originals[rows], others[rows], generator)
                    if name == "mixed"
                    else originals[rows]
                )
                changed[rows] = STYLES[name](base, generator)
            far = apart(changed, originals, pool.std.cpu())
            images[copy * len(labels) + part] = (far * 255).round().to(torch.uint8)
    return Pool(
        images.to(pool.images.device), pool.labels.repeat(copies), pool.mean, pool.std, pool.classes
    )


def some_of(pool: Pool, generator: torch.Generator) -> Pool:
    """At most `MOST` images, drawn without replacement, in the pool's order; a pool that is not
    larger as it is, without a draw.
    """
    if len(pool) <= MOST:
        return pool
    return pool.take(torch.randperm(len(pool), generator=generator)[:MOST].sort().values)


def _check(pool: Pool, kinds: Sequence[str], copies: int) -> None:
    if not len(pool):
        raise DataError(
            "there are no source images to make auxiliary ones of",
            hint="give a source whose training split is not empty",
        )
    faults = [f"{kind!r} is no kind of restyling" for kind in kinds if kind not in STYLES]
    faults += [] if kinds else ["no kind is asked for"]
    faults += [] if copies > 0 else [f"{copies} copies are asked for"]
    if faults:
        raise RecipeError(
            "the source cannot be restyled so",
            faults=faults,
            hint=f"give kinds of {', '.join(KINDS)} and at least one copy",
        )


def _pixels(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return images.float() / 255


def _uniform(
    generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _either(count: int, generator: torch.Generator) -> Tensor:
    """Heads or tails for each image."""
    return torch.rand((count, 1, 1, 1), generator=generator) < 0.5


def stretched(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image from 0 at its darkest to 1 at its brightest value; one that is flat becomes
    black.
    """
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)


def shares(
    labels: Int64[Tensor, " n"], kinds: int, generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """Which kind each image becomes: equal shares of every class and of all, as far as they
    divide.
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.argsort(labels[order], stable=True)]
    kind = torch.empty(len(labels), dtype=torch.int64)
    kind[order] = (
        torch.arange(len(labels)) + int(torch.randint(kinds, (), generator=generator))
    ) % kinds
    return kind


def partners(
    labels: Int64[Tensor, " n"], generator: torch.Generator
) -> Callable[[], Int64[Tensor, " n"]]:
    """Draws of an image of another class for each image; which class is drawn once: one cycle
    through all classes that occur.

    Where there is one class, its images are each other's partners.
    """
    present, place = torch.unique(labels, return_inverse=True)
    cycle = torch.randperm(len(present), generator=generator)
    follows = torch.empty_like(cycle)
    follows[cycle] = cycle.roll(-1)
    counts = torch.bincount(place)
    first = counts.cumsum(0) - counts
    by_class, other = torch.argsort(place, stable=True), follows[place]

    def draw() -> Int64[Tensor, " n"]:
        within = (
            torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[other]
        ).long()
        return by_class[first[other] + within]

    return draw


def mixed(
    images: Float[Tensor, "n c h w"], others: Float[Tensor, "n c h w"], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Two images in one: blended (Zhang et al. 2018, arXiv:1710.09412), cut along a line, or the
    lighter of each pixel.

    Differs: the blend is between .3 and .7, so that both are seen, and the pair is a class of its
    own instead of two shares of a label; the cut is a line through the middle instead of a box (Yun
    et al. 2019, arXiv:1905.04899).
    """
    count, _, height, width = images.shape
    blended = torch.lerp(images, others, _uniform(generator, count, 1, 1, 1, low=0.3, high=0.7))
    angle = _uniform(generator, count, 1, 1, 1, high=2 * math.pi)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    cut = torch.where(x * angle.cos() + y * angle.sin() > 0, images, others)
    way = torch.randint(3, (count, 1, 1, 1), generator=generator)
    return torch.where(way == 0, blended, torch.where(way == 1, cut, torch.maximum(images, others)))


def deformed(
    images: Float[Tensor, "n c h w"],
    generator: torch.Generator,
    *,
    zoom: Literal["closer", "farther", "either"] = "either",
) -> Float[Tensor, "n c h w"]:
    r"""Affine and elastic deformation (Simard, Steinkraus, Platt 2003, ICDAR, section 2): pixel p
    shows what was at A p + t + u(p).

    A scales each axis by e^-z (closer) or e^z (farther), z uniform in [.25, .6], turns (deviation
    .1 rad) and shears (.15); t and u have a deviation of .05, where the image is 2 wide. What
    comes in from outside repeats the edge.
    Differs: u is interpolated (cubic) from a 4 x 4 grid of normal draws instead of smoothing a draw
    in every pixel; the scale leaves out what is near 1, because such images would be the source's
    own.
    """
    count, channels, height, width = images.shape
    closer = _either(count, generator).view(-1, 1)
    inward = closer if zoom == "either" else torch.full_like(closer, zoom == "closer")
    scale = torch.where(inward, -1.0, 1.0) * _uniform(generator, count, 2, low=0.25, high=0.6)
    turn, shear = (
        0.1 * torch.randn(count, generator=generator),
        0.15 * torch.randn(count, generator=generator),
    )
    sx, sy = scale.exp().unbind(1)
    rows = torch.stack(
        [sx * turn.cos(), shear - sx * turn.sin(), sy * turn.sin(), sy * turn.cos()], 1
    ).view(-1, 2, 2)
    affine = torch.cat([rows, 0.05 * torch.randn((count, 2, 1), generator=generator)], 2)
    grid = functional.affine_grid(affine, [count, channels, height, width], align_corners=False)
    coarse = 0.05 * torch.randn((count, 2, _COARSE, _COARSE), generator=generator)
    bend = functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return functional.grid_sample(
        images, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    ).clamp(0, 1)


def convolved(
    images: Float[Tensor, "n c h w"], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Random convolutions (Xu et al. 2021, arXiv:2007.13003, section 3): a normal kernel from all
    channels to all, 3, 5 or 7 pixels wide.

    Differs: a kernel for each image instead of one for a batch; none of 1 pixel, which keeps
    every shape; what comes out is stretched to [0, 1] and not mixed with what went in, because it
    is stored as an image and must be far from the source.
    """
    count, channels, height, width = images.shape
    reach = torch.randint(1, _WIDEST // 2 + 1, (count, 1, 1, 1, 1), generator=generator)
    step = (torch.arange(_WIDEST) - _WIDEST // 2).abs()
    kernels = torch.randn((count, channels, channels, _WIDEST, _WIDEST), generator=generator)
    kernels = kernels * (torch.maximum(step[:, None], step) <= reach)
    padded = functional.pad(images, (_WIDEST // 2,) * 4, mode="replicate")
    answer = torch.zeros_like(images)
    for i in range(_WIDEST):
        for j in range(_WIDEST):
            window = padded[:, :, i : i + height, j : j + width]
            for into in range(channels):
                for of in range(channels):
                    answer[:, into].addcmul_(
                        window[:, of], kernels[:, into, of, i, j].view(-1, 1, 1)
                    )
    return stretched(answer)


def recoloured(
    images: Float[Tensor, "n c h w"], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Channels mixed by random shares, then a random curve for each: five levels in [0, 1] with
    straight lines between, so also negatives.

    In the manner of the colour steps of random augmentation (Cubuk et al. 2020, arXiv:1909.13719:
    invert, solarise, posterise, contrast).
    Differs: one family of curves holds them all, and images of one channel have it too.
    """
    count, channels, height, width = images.shape
    parts = torch.rand((count, channels, channels), generator=generator).square() + 1e-6
    mixture = torch.einsum("nod,ndhw->nohw", parts / parts.sum(2, keepdim=True), images)
    levels = torch.rand((count, channels, 5), generator=generator)
    at = mixture.clamp(0, 1).flatten(2) * 4
    below = at.long().clamp_max(3)
    curve = torch.lerp(levels.gather(2, below), levels.gather(2, below + 1), at - below)
    return stretched(curve.view(count, channels, height, width))


def textured(
    images: Float[Tensor, "n c h w"], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    r"""A texture behind what is bright, or over everything: noise of all sizes, amplitude |f|^-s at
    frequency f, s uniform in [.5, 2.5].

    As in learning from noise (Baradad et al. 2021, arXiv:2106.05963) and in mixes of Fourier
    amplitudes (Xu et al. 2021, arXiv:2105.11120).
    Differs: the amplitude is drawn and not another image's, because those would be the source's.
    """
    count, channels, height, width = images.shape
    slope = _uniform(generator, count, 1, 1, 1, low=0.5, high=2.5)
    fy, fx = torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width)[None] * width
    noise = (
        torch.fft.rfft2(torch.randn(images.shape, generator=generator))
        * (fy**2 + fx**2).sqrt().clamp_min(0.5) ** -slope
    )
    texture = stretched(torch.fft.irfft2(noise, s=(height, width)))
    ink = torch.rand((count, channels, 1, 1), generator=generator)
    behind = torch.lerp(texture, ink.expand_as(texture), images)
    over = torch.lerp(images, texture, _uniform(generator, count, 1, 1, 1, low=0.3, high=0.6))
    return torch.where(
        _either(count, generator), behind, torch.where(_either(count, generator), over, 1 - over)
    )


def apart(
    images: Float[Tensor, "n c h w"],
    source: Float[Tensor, "n c h w"],
    std: Float[Tensor, " c"],
    *,
    least: float = LEAST,
) -> Float[Tensor, "n c h w"]:
    """Images nearer than `least` to their own are inverted; those still near become their own's
    opposite: white where it is dark.

    Nothing is nearer than .5 to its opposite in any pixel, so a `least` of up to .5 / std is kept
    exactly.

    >>> grey = torch.full((1, 1, 2, 2), 0.45)
    >>> apart(grey, grey, torch.tensor([0.3])).unique().tolist()
    [1.0]
    """
    for change in (1 - images, (source < 0.5).float()):
        distance = ((images - source) / std.view(-1, 1, 1)).square().mean((1, 2, 3)).sqrt()
        images = torch.where((distance < least).view(-1, 1, 1, 1), change, images)
    return images


def _deformed_then(style: Style) -> Style:
    return lambda images, generator: style(deformed(images, generator), generator)


STYLES: Mapping[Kind, Style] = {
    "closer": partial(deformed, zoom="closer"),
    "farther": partial(deformed, zoom="farther"),
    "mixed": deformed,
    "convolved": _deformed_then(convolved),
    "recoloured": _deformed_then(recoloured),
    "textured": _deformed_then(textured),
}
