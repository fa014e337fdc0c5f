"""The release folder: whole or not at all, and only an older release is replaced."""

from pathlib import Path

import pytest

from lockforge.errors import ResourceError
from lockforge.evidence.manifest import read_manifest
from lockforge.export.stage import check_place, lay_out
from lockforge.files import Files
from lockforge.records import Artifact, Provenance

CIRCUMSTANCES = Provenance(
    versions={}, hardware={}, seconds={}, commit="none", started="2026-01-01"
)


@pytest.fixture
def artifact(files: Files) -> Artifact:
    """Two files that a release needs."""
    ref = files.put(b"content")
    return Artifact(report=ref, files={"model.safetensors": ref, "report.json": ref})


def test_a_release_is_laid_out_whole_and_replaced_whole(
    artifact: Artifact, files: Files, place: Path
) -> None:
    """The manifest lists every file; a second release takes the first one's place and nothing is
    left beside it.
    """
    for _ in range(2):
        lay_out(artifact, files, place, CIRCUMSTANCES, None)
        assert set(read_manifest(place).files) == {
            "model.safetensors",
            "report.json",
            "provenance.json",
        }
    assert [path.name for path in place.parent.iterdir()] == ["release"]


def test_what_fails_leaves_the_old_release_alone(
    artifact: Artifact, files: Files, place: Path
) -> None:
    """A signer that fails half-way leaves neither a half release nor a loss."""
    lay_out(artifact, files, place, CIRCUMSTANCES, None)

    def broken(folder: Path) -> None:
        (folder / "model.sig").write_text("half")
        raise ResourceError("no key", hint="give one")

    with pytest.raises(ResourceError):
        lay_out(artifact, files, place, CIRCUMSTANCES, broken)
    assert "model.sig" not in {path.name for path in place.iterdir()}
    assert [path.name for path in place.parent.iterdir()] == ["release"]


def test_only_a_release_is_replaced(place: Path) -> None:
    """A folder of something else, a file and a link are refused; an empty folder is not."""
    place.mkdir()
    check_place(place)
    (place / "thesis.txt").write_text("mine")
    (place.parent / "file").write_text("")
    (place.parent / "link").symlink_to(place)
    for wrong in (place, place.parent / "file", place.parent / "link"):
        with pytest.raises(ResourceError):
            check_place(wrong)


MANIFESTS = {
    "a browser extension": '{"manifest_version": 3, "name": "mine", "version": "1"}',
    "no file is listed": '{"schema_version": 1, "signer": null, "files": {}}',
    "not JSON": "mine",
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_folder_with_a_manifest_of_something_else_is_not_replaced(place: Path, text: str) -> None:
    """Many tools have a file manifest.json: it alone makes no release."""
    place.mkdir()
    (place / "manifest.json").write_text(text)
    (place / "source.js").write_text("mine")
    with pytest.raises(ResourceError, match="no LockForge release"):
        check_place(place)


def test_a_release_with_a_file_of_somebody_elses_is_not_replaced(
    artifact: Artifact, files: Files, place: Path
) -> None:
    """Notes beside a release, a repository in it, and a file that was edited would be lost."""
    lay_out(artifact, files, place, CIRCUMSTANCES, None)
    check_place(place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ResourceError, match=r"notes\.txt"):
        check_place(place)
    (place / "notes.txt").unlink()
    name = next(iter(artifact.files))
    (place / name).write_bytes(files.get(artifact.files[name]) + b"!")
    with pytest.raises(ResourceError, match="no LockForge release"):
        check_place(place)


def test_the_folder_one_is_in_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not be renamed away, however empty it is."""
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(ResourceError, match="folder of its own"):
        check_place(Path())


def test_a_folder_that_may_not_be_read_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk's refusal becomes an error that names the place."""
    place.mkdir()

    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ResourceError, match="Permission denied"):
        check_place(place)
