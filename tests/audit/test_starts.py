"""Starting points: which are attacked, which are the same as another, and what a network keeps."""

from collections.abc import Callable, Mapping

import pytest
import torch

from lockforge.audit._starts import StartingPoint, facts_of, starting_points
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.randomness import torch_generator
from lockforge.records import (
    Ablation,
    Cell,
    Checkpoint,
    ImageSet,
    NamedArchitecture,
    Op,
    Start,
    Subjects,
)

Train = Callable[..., Checkpoint]
ONE = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
OTHER = Cell(ops=(Op.none, Op.none, Op.none, Op.conv1x1, Op.none, Op.none))


def named(
    subjects: Subjects, target: ImageSet, files: Files
) -> tuple[dict[str, StartingPoint], Mapping[Start, Start]]:
    """The starts by name, and the others."""
    points, same_as = starting_points(subjects, target, files)
    return {point.name: point for point in points}, same_as


def test_three_different_models_give_six_starts(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """Nothing is skipped where nothing is the same."""
    subjects = Subjects(
        release=train(ONE, source, 0), twin=train(ONE, source, 1), reference=train(OTHER, source, 0)
    )
    points, same_as = named(subjects, target, files)
    assert list(points) == [
        "release",
        "twin",
        "reference",
        "scratch_release",
        "scratch_reference",
        "dummy",
    ]
    assert same_as == {}
    assert {name for name, point in points.items() if point.weights is None} == {
        "scratch_release",
        "scratch_reference",
        "dummy",
    }
    assert {name for name, point in points.items() if point.scratch} == {
        "scratch_release",
        "scratch_reference",
    }


def test_a_twin_with_the_releases_weights_is_not_attacked_again(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """An unpruned release is its own twin; the reference has another cell and stands for itself."""
    release = train(ONE, source, 0)
    points, same_as = named(
        Subjects(release=release, twin=release, reference=train(OTHER, source, 0)), target, files
    )
    assert same_as == {"twin": "release"}
    assert "twin" not in points


def test_equal_architectures_share_one_scratch(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """Other weights in the same architecture: two models, one empty network."""
    release = train(ONE, source, 0)
    _, same_as = named(
        Subjects(release=release, twin=release, reference=train(ONE, source, 1)), target, files
    )
    assert same_as == {"twin": "release", "scratch_reference": "scratch_release"}


def test_every_start_that_is_asked_answers_for_the_source(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """Release and dummy come with a head for the source's five classes, the release's own and a
    fresh one; empty networks with none.
    """
    release = train(ONE, source, 0)
    points, _ = named(Subjects(release=release, twin=release, reference=release), target, files)
    heads = {
        name: point.given(torch_generator(0, name)).source_head for name, point in points.items()
    }
    assert heads["release"] is not None
    assert heads["dummy"] is not None
    assert torch.equal(
        heads["release"]["weight"], files.get_tensors(release.weights)["head.weight"]
    )
    assert heads["dummy"]["weight"].shape == heads["release"]["weight"].shape
    assert not torch.equal(heads["dummy"]["weight"], heads["release"]["weight"])
    assert heads["scratch_release"] is None


def test_a_model_against_itself_leaves_release_scratch_and_dummy(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """The dummy is never skipped: it is an empty network of its own."""
    release = train(ONE, source, 0)
    points, same_as = named(
        Subjects(release=release, twin=release, reference=release), target, files
    )
    assert list(points) == ["release", "scratch_release", "dummy"]
    assert same_as == {
        "twin": "release",
        "reference": "release",
        "scratch_reference": "scratch_release",
    }


def test_a_trained_start_keeps_its_body_and_gets_a_head_for_the_target(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """Five source classes, four target classes: every tensor but the head's is the release's; the
    head follows the generator.
    """
    release = train(ONE, source, 1)
    points, _ = named(Subjects(release=release, twin=release, reference=release), target, files)
    start = points["release"]
    first, again, other = (
        start.given(torch_generator(0, name)).network.state_dict() for name in ("a", "a", "b")
    )
    for name, tensor in files.get_tensors(release.weights).items():
        if not name.startswith("head."):
            assert torch.equal(first[name], tensor)
    assert first["head.weight"].shape[0] == len(target.classes) != len(source.classes)
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_images_of_another_shape_are_an_error(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """The error names both shapes and how to read the target in the source's."""
    release = train(ONE, source, 0)
    wide = target.model_copy(update={"shape": (1, 9, 9)})
    with pytest.raises(DataError, match=r"\(1, 6, 6\), the target's are \(1, 9, 9\)"):
        starting_points(Subjects(release=release, twin=release, reference=release), wide, files)


def test_ablations_are_starts_like_the_release(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """Each is attacked under its own name with the head it came with; one that is the twin again is
    not attacked twice.
    """
    release, twin = train(ONE, source, 1), train(ONE, source, 2)
    ablations = (
        Ablation(name="magnitude", checkpoint=train(ONE, source, 3)),
        Ablation(name="no-fisher", checkpoint=twin),
    )
    subjects = Subjects(
        release=release, twin=twin, reference=train(OTHER, source, 0), ablations=ablations
    )
    points, same_as = named(subjects, target, files)
    assert same_as == {"ablation:no-fisher": "twin"}
    start = points["ablation:magnitude"]
    assert (start.scratch, start.public) == (False, False)
    given = start.given(torch_generator(0))
    assert given.source_head is not None
    assert torch.equal(
        given.source_head["weight"],
        files.get_tensors(ablations[0].checkpoint.weights)["head.weight"],
    )
    plain = facts_of(subjects.model_copy(update={"ablations": ()}), source, target)
    assert facts_of(subjects, source, target) == plain
    assert start.facts(plain[0]) == plain[0]


def test_an_ablation_that_would_keep_an_attacker_away_is_an_error(
    files: Files, source: ImageSet, target: ImageSet, train: Train
) -> None:
    """A network without cells beside ones made of cells: `cell-surgery` could not be sent at it."""
    release = train(ONE, source, 0)
    other = NamedArchitecture(name="resnet20-cifar", classes=5, shape=(1, 6, 6))
    odd = Ablation(name="magnitude", checkpoint=release.model_copy(update={"architecture": other}))
    subjects = Subjects(release=release, twin=release, reference=release, ablations=(odd,))
    with pytest.raises(DataError, match="another kind of network") as caught:
        starting_points(subjects, target, files)
    assert caught.value.faults == ("ablation:magnitude is resnet20-cifar",)
