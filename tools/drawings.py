r"""Images drawn by code, in classes that are formulas: what the packaged probe is trained on.

No photograph, no handwriting and no font goes in, so the probe's weights carry nobody's rights and
every data set is new to it. A class is a point in a space of drawing rules (Kataoka et al. 2020,
arXiv:2101.08515, classes that are formulas); an image of the class is that rule under jitter. Four
families, each `PROTOTYPES` classes:

    glyphs    characters of an invented script: two or three Bezier strokes; pen, slant, size,
              colours and background vary
    shapes    filled outlines r(t) = 1 + sum_k a_k cos(k t + f_k); colour, texture, light and
              background vary
    textures  noise with a spectrum of its own (slope, frequency band, direction) and a
              nonlinearity; colours vary
    scenes    dead leaves (Lee, Mumford, Huang 2001; Baradad et al. 2021, arXiv:2106.05963):
              outline, size law and palette are the class

Shapes: n images, side x side pixels, 3 colours in [0, 1]; coordinates run from -1 to 1 across the
    image.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lockforge.randomness import torch_generator

PROTOTYPES = 32
SIDE = 32
_CHUNK = 2048
_STROKES = 3
_CURVE_POINTS = 14


def _uniform(
    generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _grid() -> tuple[Float[Tensor, "side side"], Float[Tensor, "side side"]]:
    steps = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y


def _over(
    mask: Float[Tensor, "n side side"],
    front: Float[Tensor, "n 3 side side"],
    back: Float[Tensor, "n 3 side side"],
) -> Tensor:
    """Paint `front` over `back` where the mask is 1."""
    return back + mask[:, None] * (front - back)


def _noise(
    generator: torch.Generator,
    slope: Float[Tensor, " n"],
    frequency: Float[Tensor, " n"],
    direction: Float[Tensor, " n"],
    band: Float[Tensor, " n"],
) -> Float[Tensor, "n side side"]:
    r"""Gaussian noise, mean 0, deviation 1: amplitudes |f|^-slope plus `band` times a ring part at
    one frequency (cycles an image).
    """
    n = len(slope)
    fy = torch.fft.fftfreq(SIDE)[:, None] * SIDE
    fx = torch.fft.rfftfreq(SIDE)[None] * SIDE
    radius = torch.sqrt(fx**2 + fy**2).clamp_min(0.5)
    broad = radius[None] ** -slope[:, None, None]
    broad = broad / broad.square().mean((1, 2), keepdim=True).sqrt()
    cx, cy = (
        (frequency * torch.cos(direction))[:, None, None],
        (frequency * torch.sin(direction))[:, None, None],
    )
    width = (0.6 + 0.15 * frequency)[:, None, None]
    ring = torch.exp(-((fx - cx) ** 2 + (fy - cy) ** 2) / (2 * width**2)) + torch.exp(
        -((fx + cx) ** 2 + (fy + cy) ** 2) / (2 * width**2)
    )
    ring = ring / ring.square().mean((1, 2), keepdim=True).sqrt()
    white = torch.fft.rfft2(torch.randn((n, SIDE, SIDE), generator=generator))
    field = torch.fft.irfft2(white * (broad + band[:, None, None] * ring), s=(SIDE, SIDE))
    field = field - field.mean((1, 2), keepdim=True)
    scaled: Tensor = field / field.std((1, 2), keepdim=True).clamp_min(1e-6)
    return scaled


def _two_colours(
    generator: torch.Generator, n: int
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Two colours at least 0.9 apart in summed absolute difference: the second is moved away from
    the first where it is not.
    """
    one, two = torch.rand((n, 3), generator=generator), torch.rand((n, 3), generator=generator)
    near = (one - two).abs().sum(1, keepdim=True) < 0.9
    return one, torch.where(near, (one + 0.5).remainder(1.0), two)


def _coloured(
    field: Float[Tensor, "n side side"], generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """A field shown between two colours."""
    one, two = _two_colours(generator, len(field))
    mixed = torch.sigmoid(1.2 * field)
    return one[:, :, None, None] + mixed[:, None] * (two - one)[:, :, None, None]


def _outline(
    radius: Float[Tensor, "n terms"],
    phase: Float[Tensor, "n terms"],
    centre: Float[Tensor, "n 2"],
    size: Float[Tensor, " n"],
    angle: Float[Tensor, " n"],
) -> Float[Tensor, "n side side"]:
    """A soft mask of r(t) = size (1 + sum_k radius_k cos(k (t - angle) + phase_k)), k = 2, 3, ...;
    one pixel of softness.
    """
    x, y = _grid()
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    turn = torch.atan2(dy, dx) - angle[:, None, None]
    edge = torch.ones_like(turn)
    for term in range(radius.shape[1]):
        edge = edge + radius[:, term, None, None] * torch.cos(
            (term + 2) * turn + phase[:, term, None, None]
        )
    inside = size[:, None, None] * edge - torch.sqrt(dx**2 + dy**2)
    return torch.sigmoid(inside * SIDE * 1.5)


def _leaves(generator: torch.Generator, n: int, count: int) -> Float[Tensor, "n 3 side side"]:
    """Dead leaves of any outline, size and colour: clutter to put things on."""
    canvas = _coloured(_random_noise(generator, n), generator)
    for _ in range(count):
        radius, phase = (
            0.25 * torch.randn((n, 3), generator=generator),
            _uniform(generator, n, 3, high=2 * math.pi),
        )
        size = 0.15 * _uniform(generator, n, low=0.02).rsqrt().clamp_max(5)
        mask = _outline(
            radius, phase, _uniform(generator, n, 2, low=-1.1, high=1.1), size, torch.zeros(n)
        )
        canvas = _over(mask, torch.rand((n, 3, 1, 1), generator=generator), canvas)
    return canvas


def _random_noise(generator: torch.Generator, n: int) -> Float[Tensor, "n side side"]:
    return _noise(
        generator,
        _uniform(generator, n, low=1.0, high=3.0),
        _uniform(generator, n, low=1.5, high=8.0),
        _uniform(generator, n, high=math.pi),
        _uniform(generator, n, low=-0.5, high=1.0).clamp_min(0),
    )


def _background(generator: torch.Generator, n: int) -> Float[Tensor, "n 3 side side"]:
    """A third plain, a third textured, a third cluttered."""
    plain = torch.rand((n, 3, 1, 1), generator=generator).expand(-1, -1, SIDE, SIDE)
    textured, cluttered = (
        _coloured(_random_noise(generator, n), generator),
        _leaves(generator, n, 4),
    )
    kind = torch.randint(3, (n, 1, 1, 1), generator=generator)
    return torch.where(kind == 0, plain, torch.where(kind == 1, textured, cluttered))


def _glyphs(
    labels: Int64[Tensor, " n"], prototypes: torch.Generator, generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """Invented characters: half of them plain ink on plain paper (either may be the dark one), half
    in colours over a background.
    """
    n = len(labels)
    controls = _uniform(prototypes, PROTOTYPES, _STROKES, 4, 2, low=-0.75, high=0.75)
    two_strokes = torch.rand(PROTOTYPES, generator=prototypes) < 0.5
    controls[two_strokes, 2] = controls[two_strokes, 1]
    moved = controls[labels] + 0.05 * torch.randn((n, _STROKES, 4, 2), generator=generator)
    angle, shear = (
        0.2 * torch.randn(n, generator=generator),
        0.2 * torch.randn(n, generator=generator),
    )
    scale = _uniform(generator, n, 2, low=0.7, high=1.2)
    turn = (
        torch.stack(
            [
                torch.stack([angle.cos(), shear - angle.sin()], 1),
                torch.stack([angle.sin(), angle.cos()], 1),
            ],
            1,
        )
        * scale[:, None]
    )
    moved = torch.einsum("nij,nskj->nski", turn, moved) + 0.12 * torch.randn(
        (n, 1, 1, 2), generator=generator
    )

    t = torch.linspace(0, 1, _CURVE_POINTS)
    bernstein = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    points = torch.einsum("tk,nskd->nstd", bernstein, moved)
    start, step = points[:, :, :-1].flatten(1, 2), points.diff(dim=2).flatten(1, 2)
    x, y = _grid()
    nearest = torch.full((n, SIDE, SIDE), torch.inf)
    for piece in range(start.shape[1]):
        px, py = (axis - start[:, piece, at, None, None] for at, axis in enumerate((x, y)))
        ux, uy = (step[:, piece, at, None, None] for at in range(2))
        along = ((px * ux + py * uy) / (ux**2 + uy**2).clamp_min(1e-8)).clamp(0, 1)
        nearest = torch.minimum(nearest, (px - along * ux) ** 2 + (py - along * uy) ** 2)
    pen, blur = _uniform(generator, n, low=0.05, high=0.16), _uniform(generator, n, low=12, high=50)
    ink = torch.sigmoid((pen[:, None, None] - nearest.sqrt()) * blur[:, None, None])

    dark, light = (
        _uniform(generator, n, 1, 1, 1, high=0.2).square(),
        1 - _uniform(generator, n, 1, 1, 1, high=0.3).square(),
    )
    swap = torch.rand((n, 1, 1, 1), generator=generator) < 0.5
    plain = _over(
        ink,
        torch.where(swap, dark, light).expand(-1, 3, SIDE, SIDE),
        torch.where(swap, light, dark).expand(-1, 3, SIDE, SIDE),
    )
    coloured = _over(
        ink, _coloured(_random_noise(generator, n), generator), _background(generator, n)
    )
    return torch.where(torch.rand((n, 1, 1, 1), generator=generator) < 0.5, plain, coloured)


def _shapes(
    labels: Int64[Tensor, " n"], prototypes: torch.Generator, generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """Filled outlines in any colour and texture on any background, lit from any side."""
    n = len(labels)
    radius = 0.22 * torch.randn((PROTOTYPES, 5), generator=prototypes)
    phase = _uniform(prototypes, PROTOTYPES, 5, high=2 * math.pi)
    mask = _outline(
        radius[labels] + 0.02 * torch.randn((n, 5), generator=generator),
        phase[labels] + 0.1 * torch.randn((n, 5), generator=generator),
        0.12 * torch.randn((n, 2), generator=generator),
        _uniform(generator, n, low=0.4, high=0.75),
        0.15 * torch.randn(n, generator=generator),
    )
    x, y = _grid()
    light = _uniform(generator, n, high=2 * math.pi)[:, None, None]
    shade = 1 + _uniform(generator, n, 1, 1, high=0.4) * (x * light.cos() + y * light.sin())
    plain = torch.rand((n, 3, 1, 1), generator=generator).expand(-1, -1, SIDE, SIDE)
    surface = torch.where(
        torch.rand((n, 1, 1, 1), generator=generator) < 0.6,
        plain,
        _coloured(_random_noise(generator, n), generator),
    )
    back = _background(generator, n)
    brightness = back.mean((1, 2, 3), keepdim=True)
    alike = (surface.mean((1, 2, 3), keepdim=True) - brightness).abs() < 0.2
    back = torch.where(alike, back + 0.4 * torch.where(brightness < 0.5, 1.0, -1.0), back)
    return _over(mask, surface * shade[:, None], back)


def _textures(
    labels: Int64[Tensor, " n"], prototypes: torch.Generator, generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """Noise whose slope, band, direction and nonlinearity (none, steps, ridges, spots) are the
    class.
    """
    n = len(labels)
    slope = _uniform(prototypes, PROTOTYPES, low=0.7, high=3.0)
    frequency = _uniform(prototypes, PROTOTYPES, low=1.5, high=9.0)
    direction = _uniform(prototypes, PROTOTYPES, high=math.pi)
    band = _uniform(prototypes, PROTOTYPES, low=-0.5, high=1.5).clamp_min(0)
    kind = torch.randint(4, (PROTOTYPES,), generator=prototypes)[labels][:, None, None]
    jitter = torch.randn((3, n), generator=generator)
    field = _noise(
        generator,
        slope[labels] + 0.1 * jitter[0],
        frequency[labels] * (1 + 0.08 * jitter[1]),
        direction[labels] + 0.12 * jitter[2],
        band[labels],
    )
    bent = torch.where(
        kind == 1,
        torch.tanh(6 * field),
        torch.where(kind == 2, 2 - 3 * field.abs(), torch.where(kind == 3, 4 * (field - 1), field)),
    )
    return _coloured(bent, generator)


def _scenes(
    labels: Int64[Tensor, " n"], prototypes: torch.Generator, generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """Dead leaves over a sky and a ground: outline, size law, palette and where leaves fall are the
    class.
    """
    n = len(labels)
    palette = torch.rand((PROTOTYPES, 5, 3), generator=prototypes)
    radius, phase = (
        0.25 * torch.randn((PROTOTYPES, 3), generator=prototypes),
        _uniform(prototypes, PROTOTYPES, 3, high=2 * math.pi),
    )
    size = _uniform(prototypes, PROTOTYPES, low=0.1, high=0.4)[labels]
    low = _uniform(prototypes, PROTOTYPES, low=-1.0, high=0.5)[labels][:, None]
    grain = _uniform(prototypes, PROTOTYPES, low=0.0, high=0.2)[labels][:, None, None, None]
    tint = 0.15 * torch.randn((n, 1, 3), generator=generator)
    colours = palette[labels] + tint + 0.08 * torch.randn((n, 5, 3), generator=generator)
    _, y = _grid()
    horizon = _uniform(generator, n, low=-0.6, high=0.6)[:, None, None]
    ground = torch.sigmoid((y - horizon) * _uniform(generator, n, low=2, high=25)[:, None, None])
    canvas = _over(
        ground,
        colours[:, 1, :, None, None].expand(-1, -1, SIDE, SIDE),
        colours[:, 0, :, None, None].expand(-1, -1, SIDE, SIDE),
    )
    grained = grain * _random_noise(generator, n)[:, None]
    for _ in range(8):
        pick = torch.randint(2, 5, (n,), generator=generator)
        place = _uniform(generator, n, 2, low=-1.1, high=1.1)
        place = torch.stack(
            [place[:, 0], low[:, 0] + (place[:, 1] + 1.1) / 2.2 * (1.1 - low[:, 0])], 1
        )
        grown = size * torch.exp(0.4 * torch.randn(n, generator=generator))
        mask = _outline(
            radius[labels], phase[labels], place, grown, _uniform(generator, n, low=-0.5, high=0.5)
        )
        leaf = colours[torch.arange(n), pick][:, :, None, None] + grained
        canvas = _over(mask, leaf, canvas)
    return canvas


FAMILIES: dict[str, Callable[[Tensor, torch.Generator, torch.Generator], Tensor]] = {
    "glyphs": _glyphs,
    "shapes": _shapes,
    "textures": _textures,
    "scenes": _scenes,
}
CLASSES = PROTOTYPES * len(FAMILIES)


def draw_images(
    count: int, seed: int, part: str
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int64[Tensor, " n"]]:
    """Draw `count` labelled images, as many of each family; label = family * PROTOTYPES +
    prototype.

    Args: count: rounded down to whole families. seed: decides the classes and, with `part`, the
        images. part: for instance "train".
    Returns: 8-bit images and labels, family after family.
    """
    images, labels = [], []
    for index, family in enumerate(FAMILIES):
        generator = torch_generator(seed, "probe", part, family)
        left = count // len(FAMILIES)
        while left:
            label = torch.randint(PROTOTYPES, (min(_CHUNK, left),), generator=generator)
            images.append(draw_family(family, label, seed, generator))
            labels.append(label + index * PROTOTYPES)
            left -= len(label)
    return torch.cat(images), torch.cat(labels)


def draw_family(
    family: str, labels: Int64[Tensor, " n"], seed: int, generator: torch.Generator
) -> UInt8[Tensor, "n 3 32 32"]:
    """One image for each label.

    Args: family: of `FAMILIES`. labels: prototypes within the family. seed: decides the prototypes.
        generator: decides the rest.
    """
    image = FAMILIES[family](labels, torch_generator(seed, "probe", "classes", family), generator)
    return (_developed(image, generator) * 255).round().to(torch.uint8)


def _developed(
    image: Float[Tensor, "n 3 side side"], generator: torch.Generator
) -> Float[Tensor, "n 3 side side"]:
    """What cameras and scanners do: contrast, brightness, faded colours (one in five grey), one in
    three noisy; clipped to [0, 1].
    """
    n = len(image)
    middle = image.mean((1, 2, 3), keepdim=True)
    seen = (
        middle
        + (image - middle) * _uniform(generator, n, 1, 1, 1, low=0.6, high=1.2)
        + 0.08 * torch.randn((n, 1, 1, 1), generator=generator)
    )
    grey = seen.mean(1, keepdim=True)
    colour = _uniform(generator, n, 1, 1, 1, low=-0.25, high=1.0).clamp_min(0)
    seen = grey + colour * (seen - grey)
    speckle = torch.where(
        torch.rand((n, 1, 1, 1), generator=generator) < 0.33, 0.06, 0.0
    ) * torch.randn(seen.shape, generator=generator)
    return (seen + speckle).clamp(0, 1)
