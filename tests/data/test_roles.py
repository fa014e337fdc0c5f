"""Roles are held apart by content, whatever the format, and described exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockforge.data._synthetic import draw_images
from lockforge.data.builtin import DEFAULT
from lockforge.data.roles import read_roles, read_set
from lockforge.errors import DataError, RecipeError
from lockforge.files import Files
from lockforge.recipe import DataRecipe

Save = Callable[..., str]
DROP = DataRecipe(overlap="drop")


@pytest.fixture
def three(save: Save, rng: np.random.Generator) -> Callable[..., list[str]]:
    """Places of three sets of 80 images; `three(2, 3)`: the source shares 2 with the target, the
    auxiliary set 3 with the source.
    """

    def make(with_target: int = 0, with_source: int = 0) -> list[str]:
        drawn = draw_images(240, rng, side=8)
        x, y = drawn.images, drawn.answers["texture"]
        rows = {
            "source": np.r_[0:80],
            "auxiliary": np.r_[80 - with_source : 160 - with_source],
            "target": np.r_[0:with_target, 160 + with_target : 240],
        }
        return [save(name, x=x[of], y=y[of]) for name, of in rows.items()]

    return make


def test_the_default_reads_three_disjoint_sets(files: Files) -> None:
    """Digits: 901 and two halves of 896, nothing dropped, one shape, built-in names kept."""
    roles = read_roles(*DEFAULT, DataRecipe(), files)
    assert roles.names == ("digits:0-4", "digits:5-9/a", "digits:5-9/b")
    assert [images.counts.total for images in (roles.source, *roles.auxiliary, *roles.targets)] == [
        901,
        449,
        447,
    ]
    assert {images.shape for images in (roles.source, *roles.auxiliary, *roles.targets)} == {
        (1, 8, 8)
    }
    assert roles.dropped == {}


def test_what_is_stored_is_what_is_described(
    save: Save, drawn: dict[str, Any], files: Files
) -> None:
    """Counts, mean and deviation agree with numpy's on the stored training images; splits share
    no content.
    """
    images = read_set(save("a", **drawn), DataRecipe(), files)
    stored = files.get_arrays(images.pixels)
    train = stored["images"][stored["split"] == 0] / 255
    assert np.allclose(images.mean, train.mean((0, 2, 3)), atol=1e-12)
    assert np.allclose(images.std, train.std((0, 2, 3)), atol=1e-12)
    assert [images.counts.train, images.counts.val, images.counts.test] == np.bincount(
        stored["split"]
    ).tolist()
    assert len(np.unique(stored["content"], axis=0)) == images.counts.total == 60


def test_the_same_images_in_another_order_are_the_same_set(
    save: Save, drawn: dict[str, Any], files: Files, rng: np.random.Generator
) -> None:
    """A record depends on content, not on how it was stored."""
    order = rng.permutation(60)
    shuffled = {
        "x": drawn["x"][order].astype(np.float32) / 255,
        "y": drawn["y"][order],
        "classes": drawn["classes"],
    }
    assert (
        read_set(save("a", **drawn), DataRecipe(), files).digest
        == read_set(save("b", **shuffled), DataRecipe(), files).digest
    )


def test_a_image_in_two_roles_is_an_error_with_the_counts(
    three: Callable[..., list[str]], files: Files
) -> None:
    """Every pair of roles is named, all at once."""
    source, auxiliary, target = three(2, 3)
    with pytest.raises(DataError) as caught:
        read_roles(source, [auxiliary], [f"thief={target}"], DataRecipe(), files)
    assert [fault.split(" different")[0] for fault in caught.value.faults] == [
        "source and auxiliary-1: 3",
        "source and thief: 2",
    ]


def test_dropping_keeps_the_target_whole(three: Callable[..., list[str]], files: Files) -> None:
    """The source loses what a target has, the auxiliary set what the source has; the counts say
    so.
    """
    source, auxiliary, target = three(2, 3)
    roles = read_roles(source, [auxiliary], [target], DROP, files)
    assert roles.dropped == {"source": 2, "auxiliary-1": 3}
    assert (
        roles.source.counts.total,
        roles.auxiliary[0].counts.total,
        roles.targets[0].counts.total,
    ) == (78, 77, 80)
    content = [
        files.get_arrays(images.pixels)["content"]
        for images in (roles.source, *roles.auxiliary, *roles.targets)
    ]
    together = np.concatenate(content)
    assert len(np.unique(together, axis=0)) == len(together)


def test_images_that_a_set_repeats_in_its_own_test_split_are_counted(
    save: Save, drawn: dict[str, Any], files: Files
) -> None:
    """Four images in train and in test: they are tested on, not trained on, and reported."""
    x, y = drawn["x"], drawn["y"]
    roles = read_roles(
        save("a", x_train=x[:44], y_train=y[:44], x_test=x[40:], y_test=y[40:]),
        [],
        [],
        DataRecipe(),
        files,
    )
    assert roles.dropped == {"source": 4}
    assert (roles.source.counts.train + roles.source.counts.val, roles.source.counts.test) == (
        40,
        20,
    )


def test_overlap_is_found_across_formats_sizes_and_channels(
    tmp_path: Path, save: Save, files: Files, rng: np.random.Generator
) -> None:
    """Grey arrays and the same images as colour PNGs, read at another size, are the same
    images.
    """
    x, y = rng.integers(256, size=(20, 8, 8), dtype=np.uint8), np.arange(20) % 2
    for at in range(20):
        shared = x[at] if at < 5 else rng.integers(256, size=(8, 8), dtype=np.uint8)
        path = tmp_path / "thief" / "ab"[y[at]] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([shared] * 3, axis=2)).save(path)
    with pytest.raises(
        DataError, match=r"source and target-1: 5 different image\(s\) in both, of 20 and 20"
    ):
        read_roles(save("a", x=x, y=y), [], [str(tmp_path / "thief")], DataRecipe(size=12), files)


def test_one_set_in_two_roles_is_an_error_even_when_dropping(
    save: Save, drawn: dict[str, Any], files: Files
) -> None:
    """Dropping would leave nothing."""
    place = save("a", **drawn)
    with pytest.raises(DataError, match="the same data set has two roles"):
        read_roles(place, [], [place], DROP, files)


def test_names_are_given_or_made_and_never_twice(
    three: Callable[..., list[str]], files: Files
) -> None:
    """NAME=PLACE names a set; a repeated name is a fault of the command line; no default name shows
    a path.
    """
    source, auxiliary, target = three()
    assert read_roles(f"mine={source}", [auxiliary], [target], DataRecipe(), files).names == (
        "mine",
        "auxiliary-1",
        "target-1",
    )
    with pytest.raises(RecipeError, match="'target-1' is the name of 2 data sets"):
        read_roles(source, [f"target-1={auxiliary}"], [target], DataRecipe(), files)


def test_a_path_with_an_equals_sign_is_a_path(
    save: Save, drawn: dict[str, Any], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is such a file."""
    place = Path(save("lr=0.1", **drawn))
    monkeypatch.chdir(place.parent)
    assert read_set("lr=0.1.npz", DataRecipe(), files).counts.total == 60


def test_all_missing_places_are_listed_at_once(files: Files) -> None:
    """Three typos, one message."""
    with pytest.raises(DataError, match="3 data sets cannot be used") as caught:
        read_roles("no-a", ["no-b"], ["no-c"], DataRecipe(), files)
    assert len(caught.value.faults) == 3


def test_faults_of_all_sets_are_listed_at_once(
    save: Save, drawn: dict[str, Any], files: Files
) -> None:
    """A bad source does not hide a bad target."""
    bad = [save(name, x=drawn["x"], y=drawn["y"][:-1]) for name in ("a", "b")]
    with pytest.raises(DataError, match="2 data sets cannot be used"):
        read_roles(bad[0], [], [bad[1]], DataRecipe(), files)


def test_real_sets_of_another_shape_are_brought_to_the_sources(
    shared_data: Path, files: Files
) -> None:
    """A colour folder and grey arrays together: 500 and 12,000 images, given test splits kept,
    all 3 x 32 x 32.
    """
    roles = read_roles(
        str(shared_data / "images" / "cifar10_folder"),
        [],
        [str(shared_data / "images" / "mnist.npz")],
        DataRecipe(),
        files,
    )
    target = roles.targets[0]
    assert (roles.source.shape, target.shape) == ((3, 32, 32), (3, 32, 32))
    assert (roles.source.counts.test, target.counts.test, target.counts.total) == (100, 2000, 12000)


def test_real_overlap_between_a_folder_and_an_npz_is_found(shared_data: Path, files: Files) -> None:
    """417 of the folder's 500 CIFAR-10 images are also in the .npz file: known from comparing
    both byte by byte.
    """
    folder, arrays = (
        str(shared_data / "images" / name) for name in ("cifar10_folder", "cifar10.npz")
    )
    with pytest.raises(DataError, match="417 different"):
        read_roles(folder, [], [arrays], DataRecipe(), files)


def test_a_set_with_fewer_classes_than_names_keeps_those_that_occur(
    shared_data: Path, files: Files
) -> None:
    """Tiny ImageNet mapped onto CIFAR-10's labels: 8 of 10 occur."""
    images = read_set(
        str(shared_data / "images" / "tinyimagenet32_cifar8.npz"), DataRecipe(), files
    )
    assert len(images.classes) == 8
    assert "airplane" not in images.classes
    assert "horse" not in images.classes
