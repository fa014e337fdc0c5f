"""Generated auxiliary images: far from the source, labelled by classes that can be learnt, the
same under the same generator.
"""

import time

import pytest
import torch
from torch import Tensor

from lockforge.data.batches import Pool
from lockforge.data.builtin import read_builtin
from lockforge.errors import DataError, RecipeError
from lockforge.prune import restyle as room
from lockforge.prune.restyle import (
    KINDS,
    LEAST,
    SETS,
    STYLES,
    Kind,
    apart,
    convolved,
    deformed,
    mixed,
    partners,
    recoloured,
    restyled,
    shares,
    some_of,
    stretched,
    textured,
)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def drawn(
    count: int = 60, channels: int = 1, height: int = 16, width: int = 16, classes: int = 5
) -> Pool:
    """Bright boxes on dark ground; the class says where. Classes are equally many where `count`
    allows.
    """
    labels = torch.arange(count) % classes
    images = torch.randint(40, (count, channels, height, width), generator=seeded(9)).to(
        torch.uint8
    )
    for row, label in enumerate(labels.tolist()):
        top = label * height // classes
        images[row, :, top : top + max(1, height // 3), width // 4 : 3 * width // 4 + 1] += 200
    values = images.float() / 255
    return Pool(images, labels, values.mean((0, 2, 3)), values.std((0, 2, 3)), classes)


def distance(made: Tensor, source: Tensor, std: Tensor) -> Tensor:
    """Root mean square, in standard deviations of the source."""
    return (
        ((made.float() - source.float()) / 255 / std.view(-1, 1, 1)).square().mean((1, 2, 3)).sqrt()
    )


@pytest.fixture(scope="module")
def digits() -> Pool:
    """Real handwriting, 8 x 8 and grey."""
    read = read_builtin("digits")
    images = torch.from_numpy(read.images).permute(0, 3, 1, 2).contiguous()
    values = images.float() / 255
    return Pool(
        images,
        torch.from_numpy(read.labels).long(),
        values.mean((0, 2, 3)),
        values.std((0, 2, 3)),
        10,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_stays_near_its_own(kind: Kind, digits: Pool) -> None:
    """Every image of every kind is at least half a deviation of the source away, but for the
    rounding to 8 bits.
    """
    for pool in (drawn(), drawn(channels=3), drawn(height=4, width=4), digits):
        made = restyled(pool, seeded(), kinds=(kind,))
        rounding = 0.5 / 255 / float(pool.std.min())
        assert distance(made.images, pool.images, pool.std).min() >= LEAST - rounding


def test_no_image_becomes_another_one_of_the_source(digits: Pool) -> None:
    """Handwriting has near relatives in its own set; hardly a restyled image has one as near as a
    tenth of the real ones do.
    """

    def nearest(images: Tensor) -> Tensor:
        flat, real = images.float().flatten(1), digits.images.float().flatten(1)
        apart_by = torch.cdist(flat, real)
        if images is digits.images:
            apart_by.fill_diagonal_(torch.inf)
        return apart_by.amin(1)

    near = nearest(digits.images).quantile(0.1)
    for kind in KINDS:
        made = restyled(digits, seeded(1), kinds=(kind,))
        assert (nearest(made.images) < near).float().mean() < 0.01, kind


def test_flat_and_extreme_images_are_moved_too() -> None:
    """Black, grey and white images have nothing to deform, and still do not stay as they are."""
    levels = torch.tensor([0, 60, 127, 128, 200, 255], dtype=torch.uint8)
    for channels in (1, 3):
        images = levels.view(-1, 1, 1, 1).expand(-1, channels, 6, 6).clone()
        pool = Pool(
            images,
            torch.arange(6) % 2,
            torch.full((channels,), 0.5),
            torch.full((channels,), 0.4),
            2,
        )
        made = restyled(pool, seeded(), copies=5)
        assert distance(made.images, images.repeat(5, 1, 1, 1), pool.std).min() >= LEAST - 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (4, 4), (5, 9), (1, 1)])
def test_images_of_any_shape_are_8_bit_and_normalised_as_the_source(
    channels: int, height: int, width: int
) -> None:
    """Shape, type, labels, mean, deviation and classes are those of the source, copy after copy."""
    pool = drawn(20, channels, height, width)
    made = restyled(pool, seeded(), copies=3)
    assert made.images.dtype == torch.uint8
    assert made.images.shape == (60, channels, height, width)
    assert torch.equal(made.labels, pool.labels.repeat(3))
    assert torch.equal(made.mean, pool.mean)
    assert torch.equal(made.std, pool.std)
    assert made.classes == pool.classes


def test_of_a_large_source_some_are_restyled(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many different ones, each with its label; of a source that is not larger all, without a
    draw.
    """
    monkeypatch.setattr(room, "MOST", 40)
    pool = drawn(60)
    some = some_of(pool, seeded())
    rows = [(pool.images == image).all((1, 2, 3)).nonzero().item() for image in some.images]
    assert len(set(rows)) == 40
    assert torch.equal(pool.labels[torch.tensor(rows)], some.labels)
    generator = seeded()
    assert some_of(some, generator) is some
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_the_source_is_left_alone() -> None:
    """Its images and labels are read only."""
    pool = drawn()
    images, labels = pool.images.clone(), pool.labels.clone()
    restyled(pool, seeded())
    assert torch.equal(pool.images, images)
    assert torch.equal(pool.labels, labels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("style", [convolved, recoloured, textured, deformed, *STYLES.values()])
# one of STYLES
def test_a_style_stays_between_black_and_white(style, channels: int) -> None:  # type: ignore[no-untyped-def]
    """Values are finite and in [0, 1], also of images that hold only the two ends."""
    images = (torch.rand((40, channels, 7, 7), generator=seeded(3)) > 0.5).float()
    made = style(images, seeded())
    assert made.shape == images.shape
    assert made.isfinite().all()
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_image_can_be_restyled(kind: Kind) -> None:
    """One image of one class, which is then its own partner."""
    pool = drawn(1)
    assert len(restyled(pool, seeded())) == 1
    made = restyled(pool, seeded(), kinds=(kind,), copies=4)
    assert made.images.shape == (4, 1, 16, 16)
    assert distance(made.images, pool.images, pool.std).min() >= LEAST - 0.02


def test_the_generator_decides_everything() -> None:
    """The same seed gives the same images, another seed others, whatever the global generator was
    told.
    """
    pool = drawn(channels=3)
    torch.manual_seed(1)
    first = restyled(pool, seeded(), copies=2)
    torch.manual_seed(2)
    assert torch.equal(first.images, restyled(pool, seeded(), copies=2).images)
    assert not torch.equal(first.images, restyled(pool, seeded(1), copies=2).images)
    assert not torch.equal(first.images[:60], first.images[60:]), "copies differ"


def test_every_kind_is_used_alike_in_every_class() -> None:
    """Of 60 images a class and 6 kinds each kind has 10; where it does not divide, shares differ
    by one.
    """
    labels = torch.arange(5).repeat(60)[torch.randperm(300, generator=seeded(2))]
    kind = shares(labels, 6, seeded())
    assert (torch.bincount(labels * 6 + kind, minlength=30) == 10).all()
    uneven = shares(labels[:100], 6, seeded())
    for label in range(5):
        counts = torch.bincount(uneven[labels[:100] == label], minlength=6)
        assert counts.max() - counts.min() <= 1
    counts = torch.bincount(uneven, minlength=6)
    assert counts.max() - counts.min() <= 1


def test_a_pool_of_all_kinds_holds_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Styles that paint a level of their own show who painted what: all of them, in equal
    shares.
    """
    levels = {kind: (at + 1) / 8 for at, kind in enumerate(KINDS)}
    painters = {
        kind: lambda x, _, level=level: torch.full_like(x, level) for kind, level in levels.items()
    }
    monkeypatch.setattr("lockforge.prune.restyle.STYLES", painters)
    monkeypatch.setattr("lockforge.prune.restyle.LEAST", 0.0)
    monkeypatch.setattr("lockforge.prune.restyle.apart", lambda images, *_: images)
    made = restyled(drawn(60), seeded())
    seen, counts = made.images[:, 0, 0, 0].unique(return_counts=True)
    assert seen.tolist() == [round(255 * level) for level in levels.values()]
    assert counts.tolist() == [10] * len(KINDS)


def test_the_sets_are_a_division_of_the_kinds() -> None:
    """Each kind is in one of the sets that are recommended."""
    assert sorted(kind for kinds in SETS for kind in kinds) == sorted(STYLES)


def test_partners_come_from_one_other_class() -> None:
    """The classes form one cycle that stays the same from draw to draw, over the classes that
    occur; images vary.
    """
    labels = torch.tensor([0, 2, 3, 7, 9]).repeat(40)
    draw = partners(labels, seeded())
    one, two = draw(), draw()
    follows = {
        int(label): labels[one][labels == label].unique().tolist() for label in labels.unique()
    }
    assert all(len(found) == 1 for found in follows.values())
    assert torch.equal(labels[one], labels[two])
    assert not torch.equal(one, two)
    at, seen = 0, []
    for _ in range(5):
        seen.append(at)
        at = follows[at][0]
    assert sorted(seen) == [0, 2, 3, 7, 9]
    assert at == 0


def test_a_mixed_image_holds_two() -> None:
    """Every pixel of a mix of black and white lies between; all three ways occur: a blend, a cut
    through the middle, the lighter one.
    """
    black, white = torch.zeros(90, 1, 8, 8), torch.ones(90, 1, 8, 8)
    made = mixed(black, white, seeded())
    flat = made.flatten(1)
    levels = flat.mean(1)
    lighter = (flat == 1).all(1)
    cut = ((flat == 0) | (flat == 1)).all(1) & ~lighter
    blended = ~lighter & ~cut
    assert all(part.sum() > 15 for part in (lighter, cut, blended))
    assert ((levels[cut] > 0.3) & (levels[cut] < 0.7)).all()
    assert (flat[blended].amax(1) - flat[blended].amin(1) < 1e-6).all()
    assert ((levels[blended] >= 0.3 - 1e-6) & (levels[blended] <= 0.7 + 1e-6)).all()


def test_the_kind_mixed_holds_images_of_two_classes() -> None:
    """Of a black and a white class blends and cuts are made, two thirds of the set; alone, no
    image has a grey pixel or two colours.
    """
    images = torch.zeros(120, 1, 8, 8, dtype=torch.uint8)
    images[1::2] = 255
    pool = Pool(images, torch.arange(120) % 2, torch.tensor([0.5]), torch.tensor([0.3]), 2)
    flat = restyled(pool, seeded(), kinds=("mixed",)).images.flatten(1)
    both = (flat.amin(1) != flat.amax(1)) | ((flat > 0) & (flat < 255)).any(1)
    assert 0.5 < both.float().mean() < 0.8
    assert (restyled(pool, seeded(), kinds=("closer",)).images.flatten(1).amin(1) % 255 == 0).all()


@pytest.mark.parametrize(("zoom", "least", "most"), [("closer", 1.5, 4.0), ("farther", 0.25, 0.75)])
# a Literal
def test_a_zoom_changes_the_size_of_a_box(zoom, least: float, most: float) -> None:  # type: ignore[no-untyped-def]
    """The area of a white box in the middle grows by e^.5 to e^1.2, or shrinks as much, whatever
    turns and bends it.
    """
    image = torch.zeros(64, 1, 32, 32)
    image[:, :, 10:22, 10:22] = 1
    areas = deformed(image, seeded(), zoom=zoom).sum((1, 2, 3)) / 144
    assert least < areas.median() < most
    assert ((areas > 1) == (zoom == "closer")).all()


@pytest.mark.parametrize("kind", ["mixed", "recoloured"])
def test_kinds_of_other_looks_are_deformed_too(kind: Kind) -> None:
    """A box in the middle has another size in nearly all images, larger in some and smaller in
    others.
    """
    image = torch.zeros(200, 1, 32, 32)
    image[:, :, 10:22, 10:22] = 1
    made = STYLES[kind](image, seeded())
    areas = ((made - made[:, :, :1, :1]).abs() > 0.2).sum((1, 2, 3)) / 144
    assert ((areas > 0.9) & (areas < 1.1)).float().mean() < 0.1
    assert (areas > 1.3).float().mean() > 0.3
    assert (areas < 0.8).float().mean() > 0.3


def test_a_convolution_of_a_dot_is_a_kernel_of_each_size() -> None:
    """Around a white dot only pixels within 1, 2 or 3 of it change, and each of the three widths
    occurs.
    """
    dot = torch.zeros(60, 1, 15, 15)
    dot[:, :, 7, 7] = 1
    made = convolved(dot, seeded())
    changed = (made - made[:, :, :1, :1]).abs() > 1e-6
    reach = torch.maximum((torch.arange(15) - 7).abs()[:, None], (torch.arange(15) - 7).abs())
    widest = (changed[:, 0] * reach).amax((1, 2))
    assert widest.unique().tolist() == [1, 2, 3]


def test_equal_pixels_stay_equal_under_a_change_of_colour() -> None:
    """A curve of levels knows no place: what was one colour is one colour, in each image
    another.
    """
    image = (
        torch.rand((1, 3, 2, 2), generator=seeded()).repeat_interleave(4, 2).repeat_interleave(4, 3)
    )
    made = recoloured(image.expand(20, -1, -1, -1), seeded())
    assert torch.equal(made, made[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert len(made[:, 0, 0, 0].unique()) > 10


def test_a_curve_can_invert() -> None:
    """About half of all curves turn black and white around."""
    image = torch.linspace(0, 1, 16).view(1, 1, 4, 4).expand(400, -1, -1, -1)
    made = recoloured(image, seeded())
    inverted = (made[:, 0, 0, 0] > made[:, 0, -1, -1]).float().mean()
    assert 0.4 < inverted < 0.6


def test_textures_are_rougher_and_smoother() -> None:
    """A black image shows the bare texture: neighbouring pixels agree in some images and hardly
    in others.
    """
    made = textured(torch.zeros(200, 1, 32, 32), seeded())
    centred = made - made.mean((2, 3), keepdim=True)
    alike = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3)) / centred.square().mean(
        (1, 2, 3)
    )
    assert alike.min() < 0.4
    assert alike.max() > 0.85


def test_what_is_near_is_inverted_or_turned_into_its_opposite() -> None:
    """Four cases by hand: far stays; near and away from grey is inverted; grey, whose negative is
    near, becomes black or white.
    """
    source = torch.stack([torch.full((1, 2, 2), level) for level in (0.1, 0.1, 0.52, 0.48)])
    made = apart(
        torch.stack([torch.full((1, 2, 2), level) for level in (0.9, 0.12, 0.5, 0.5)]),
        source,
        torch.tensor([0.2]),
    )
    assert torch.allclose(made[:, 0, 0, 0], torch.tensor([0.9, 0.88, 0.0, 1.0]))


def test_stretching_reaches_both_ends() -> None:
    """Darkest 0, brightest 1; a flat image is black."""
    images = torch.rand((5, 2, 3, 3), generator=seeded()) * 0.2 + 0.3
    made = stretched(images)
    assert torch.allclose(made.amin((1, 2, 3)), torch.zeros(5))
    assert torch.allclose(made.amax((1, 2, 3)), torch.ones(5))
    assert not stretched(torch.full((1, 1, 2, 2), 0.7)).any()


def test_a_long_pool_is_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts change the draws and nothing else: every row is made of its own image, kept apart
    from it.
    """
    monkeypatch.setattr("lockforge.prune.restyle._VALUES", 7 * 16 * 16)
    pool = drawn(60)
    made = restyled(pool, seeded())
    assert len(made) == 60
    assert distance(made.images, pool.images, pool.std).min() >= LEAST - 0.02


def test_ten_thousand_images_take_a_moment() -> None:
    """10,000 grey images of 16 px in less than 3 s of one thread (measured: 0.3 s)."""
    pool = drawn(100).take(torch.arange(10_000) % 100)
    started = time.process_time()
    restyled(pool, seeded())
    assert time.process_time() - started < 3


def test_what_cannot_be_made_is_refused() -> None:
    """An empty pool, an unknown kind, no kind and no copies; the last together."""
    pool = drawn()
    with pytest.raises(DataError, match="no source images"):
        restyled(pool.take(torch.arange(0)), seeded())
    with pytest.raises(RecipeError) as refused:
        # the fault
        restyled(pool, seeded(), kinds=("closer", "sepia"), copies=0)  # type: ignore[arg-type]
    assert refused.value.faults == ("'sepia' is no kind of restyling", "0 copies are asked for")
    with pytest.raises(RecipeError, match="no kind is asked for"):
        restyled(pool, seeded(), kinds=())
