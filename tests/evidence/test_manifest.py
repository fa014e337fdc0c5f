"""A manifest names exactly the bytes of a release."""

import hashlib
import os
from pathlib import Path

import pytest

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence.manifest import (
    check_manifest,
    check_name,
    hash_file,
    hash_folder,
    read_limited,
    read_manifest,
    write_manifest,
)
from lockforge.records import FileRef


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder with two files and one below."""
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_bytes(b"{}")
    (folder / "b.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "sub" / "c.txt").write_bytes(b"")
    return folder


def faults(folder: Path) -> tuple[str, ...]:
    """What the folder's own manifest says of it."""
    return check_manifest(read_manifest(folder), hash_folder(folder))


def test_a_file_is_hashed_as_a_whole(release: Path) -> None:
    """Blocks make no difference: the digest of 1.28 MB is that of its bytes."""
    data = (release / "b.bin").read_bytes()
    assert hash_file(release / "b.bin") == FileRef(
        sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )


def test_a_manifest_is_sorted_and_comes_back(release: Path) -> None:
    """Written, read, equal; names sorted with `/`; itself and the signature left out; written
    again, the same bytes.
    """
    written = write_manifest(release)
    (release / "model.sig").write_text("{}")
    text = (release / "manifest.json").read_bytes()
    assert read_manifest(release) == written == write_manifest(release)
    assert list(written.files) == ["a.json", "b.bin", "sub/c.txt"]
    assert (release / "manifest.json").read_bytes() == text
    assert faults(release) == ()


def test_every_kind_of_change_is_named(release: Path) -> None:
    """Missing, changed, added: each a line that names the file."""
    write_manifest(release)
    (release / "a.json").unlink()
    (release / "sub" / "c.txt").write_bytes(b"x")
    (release / "sub" / "new").write_bytes(b"")
    missing, changed, extra = faults(release)
    assert missing == "a.json is missing"
    assert changed.startswith("sub/c.txt was changed")
    assert extra == "sub/new is there but not listed"


def test_every_sampled_byte_flip_is_caught(release: Path) -> None:
    """Any bit of any file: 60 positions each."""
    manifest = write_manifest(release)
    for name in ("a.json", "b.bin"):
        data = (release / name).read_bytes()
        for position in range(0, len(data), max(1, len(data) // 60)):
            (release / name).write_bytes(
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
            )
            assert hash_file(release / name) != manifest.files[name]
        (release / name).write_bytes(data)
    assert faults(release) == ()


def test_a_wrong_size_is_a_fault(release: Path) -> None:
    """A manifest whose digest is right and whose size is wrong has been edited."""
    manifest = write_manifest(release)
    edited = manifest.model_copy(
        update={
            "files": {
                **manifest.files,
                "a.json": manifest.files["a.json"].model_copy(update={"size": 3}),
            }
        }
    )
    assert check_manifest(edited, hash_folder(release)) == ("a.json has 2 bytes, not 3",)


def test_links_and_pipes_are_refused(release: Path, tmp_path: Path) -> None:
    """A link to a file, to a folder, a dangling one, and a pipe (which would block a reader):
    refused by name.
    """
    for make in (
        lambda path: path.symlink_to(release / "a.json"),
        lambda path: path.symlink_to(tmp_path),
        lambda path: path.symlink_to("nowhere"),
        os.mkfifo,
    ):
        make(release / "odd")
        with pytest.raises(IntegrityError, match="odd is"):
            hash_folder(release)
        (release / "odd").unlink()


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "a//b", "./a", "", "a\\b", "C:/x", "a\nb", "a\x1b[2J"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, release: Path) -> None:
    """Path traversal, absolute names, drives and control characters, on disk or in a manifest."""
    with pytest.raises(IntegrityError, match="not allowed"):
        check_name(name)
    manifest = write_manifest(release)
    edited = manifest.model_copy(update={"files": {name: manifest.files["a.json"]}})
    (release / "manifest.json").write_text(edited.to_json())
    with pytest.raises(IntegrityError, match="not allowed"):
        read_manifest(release)


def test_what_is_no_release_is_said(tmp_path: Path, release: Path) -> None:
    """No folder, no manifest, no JSON, a link in its place."""
    with pytest.raises(RecipeError, match="not a folder"):
        hash_folder(tmp_path / "none")
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        read_manifest(release)
    (release / "manifest.json").write_text("{")
    with pytest.raises(IntegrityError, match="not a Manifest"):
        read_manifest(release)
    (release / "link").symlink_to(release / "a.json")
    with pytest.raises(IntegrityError, match="not a plain file"):
        read_limited(release / "link")


def test_a_huge_json_is_not_read(release: Path) -> None:
    """A sparse file of 300 MB is refused by its size."""
    with (release / "report.json").open("wb") as out:
        out.truncate(300 * 2**20)
    with pytest.raises(IntegrityError, match="more than such a file can need"):
        read_limited(release / "report.json")
