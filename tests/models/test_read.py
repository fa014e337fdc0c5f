"""Models as they are given: which text means what, what is read from each form, and every fault at
once.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.files import Files
from lockforge.models._named import to_published
from lockforge.models.networks import build, state
from lockforge.models.read import Model, Place, place_of, public_places, read_given
from lockforge.models.weights import read_model, with_metadata, write_weights
from lockforge.randomness import torch_generator
from lockforge.recipe import Recipe
from lockforge.records import Checkpoint, ImageSet, NamedArchitecture

THIN = "resnet20-cifar"


def published(source: ImageSet, classes: int = 2) -> dict[str, torch.Tensor]:
    """A ResNet-20's tensors under their published names, for the source's channels."""
    architecture = NamedArchitecture(name=THIN, classes=classes, shape=source.shape)
    return to_published(THIN, state(build(architecture, torch_generator(0))))


def test_a_bare_state_dict_is_read_in_both_formats(
    source: ImageSet, files: Files, tmp_path: Path
) -> None:
    """Safetensors and torch give the same model, with the source's height and width."""
    tensors = published(source)
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "a.pt")
    one, other = (
        read_given(place_of(f"{THIN}={tmp_path / name}"), source, files, classes=2)
        for name in ("a.safetensors", "a.pt")
    )
    assert one == other
    assert one.architecture == NamedArchitecture(name=THIN, classes=2, shape=source.shape)


def test_a_bare_state_dict_has_the_sources_classes_unless_it_is_public(
    source: ImageSet, files: Files, tmp_path: Path
) -> None:
    """Seven classes are fine for public weights, and no model of a source with two."""
    save_file(published(source, 7), tmp_path / "a.safetensors")
    place = place_of(f"{THIN}={tmp_path / 'a.safetensors'}")
    assert read_given(place, source, files).architecture.classes == 7
    with pytest.raises(DataError, match="other tensors"):
        read_given(place, source, files, classes=2)


def test_a_model_of_ours_may_be_a_named_network(
    checkpoint: Checkpoint, source: ImageSet, files: Files, tmp_path: Path
) -> None:
    """What is written with a named network's metadata is read again as it was; an architecture that
    is none is an error.
    """
    architecture = NamedArchitecture(name=THIN, classes=2, shape=source.shape)
    weights = files.put_tensors(state(build(architecture, torch_generator(0))))
    data = write_weights(
        checkpoint.model_copy(update={"architecture": architecture, "weights": weights}),
        source,
        Recipe(),
        files,
    )
    (tmp_path / "model.safetensors").write_bytes(data)
    assert read_model(tmp_path)[0] == architecture
    assert read_given(Place(tmp_path), source, files) == Model(architecture, weights)
    (tmp_path / "model.safetensors").write_bytes(
        with_metadata(files.get(weights), {"lockforge.architecture": '{"space": "x"}'})
    )
    with pytest.raises(IntegrityError, match="names no architecture"):
        read_model(tmp_path)


def test_an_architecture_is_one_of_ours_and_a_file_that_is_there_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a=b` is a path where there is one, and otherwise needs the name of a network; an .onnx file
    is a black box.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").touch()
    assert place_of("a=b") == Place(Path("a=b"))
    assert place_of(f"{THIN}=c=d.pt") == Place(Path("c=d.pt"), THIN)
    assert place_of("m.ONNX").opaque
    assert not place_of(f"{THIN}=m.onnx").opaque
    with pytest.raises(RecipeError, match="no network 'resnet19'"):
        place_of("resnet19=a.pt")


def test_public_models_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given one, or the file's or folder's, made to fit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a release").mkdir()
    found = public_places(
        (f"mine={THIN}=x.pt", f"{THIN}=image net.pt", "a release", "b=c.safetensors")
    )
    assert list(found) == ["mine", "image-net", "a-release", "b"]
    assert found["mine"] == Place(Path("x.pt"), THIN)
    assert found["b"] == Place(Path("c.safetensors"))


def test_all_faults_of_public_models_are_listed() -> None:
    """A name that is none, a name twice, an unknown network and an ONNX file: four lines."""
    with pytest.raises(RecipeError) as error:
        public_places(
            ("a b=x.safetensors", "x=1.safetensors", "x=2.safetensors", "n=resnet19=a.pt", "m.onnx")
        )
    assert [fault.partition(":")[0] for fault in error.value.faults] == [
        "a b=x.safetensors",
        "x=2.safetensors",
        "resnet19=a.pt",
        "m.onnx",
    ]
