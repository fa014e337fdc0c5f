"""The OCI layout: what the specification asks, the same bytes again, and the release back out of it
by its digests alone.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lockforge.errors import IntegrityError, ResourceError
from lockforge.evidence.manifest import hash_folder
from lockforge.evidence.signing import new_key, sign_folder, verify_folder
from lockforge.export.oci import write_layout


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A signed folder with a file of each kind."""
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "model.safetensors",
        "model.onnx",
        "report.json",
        "README.md",
        "recipe.yaml",
        "report.html",
        "sub/odd",
    ):
        (folder / name).write_bytes(name.encode())
    sign_folder(folder, new_key(tmp_path / "k"))
    return folder


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """What a descriptor points at, held against its digest and size."""
    kind, digest = descriptor["digest"].split(":")
    data = (layout / "blobs" / kind / digest).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data) == descriptor["size"]
    return data


def test_the_layout_is_what_the_specification_asks(release: Path, tmp_path: Path) -> None:
    """oci-layout, index.json and blobs by SHA-256; an image manifest with an artifact type, the
    empty configuration and named layers.
    """
    layout = tmp_path / "oci"
    digest = write_layout(release, layout)
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs"}
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_text())
    assert (index["schemaVersion"], index["mediaType"]) == (
        2,
        "application/vnd.oci.image.index.v1+json",
    )
    (entry,) = index["manifests"]
    assert (entry["digest"], entry["mediaType"]) == (
        digest,
        "application/vnd.oci.image.manifest.v1+json",
    )
    manifest = json.loads(blob(layout, entry))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, entry["mediaType"])
    assert manifest["artifactType"] == "application/vnd.lockforge.release.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert blob(layout, manifest["config"]) == b"{}"
    kinds = {
        layer["annotations"]["org.opencontainers.image.title"]: layer["mediaType"]
        for layer in manifest["layers"]
    }
    assert set(kinds) == set(hash_folder(release))
    assert kinds["model.onnx"] == "application/vnd.lockforge.model.v1+onnx"
    assert kinds["model.sig"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert (kinds["report.json"], kinds["sub/odd"]) == (
        "application/json",
        "application/octet-stream",
    )
    wanted = {
        one["digest"].removeprefix("sha256:")
        for one in (entry, manifest["config"], *manifest["layers"])
    }
    assert {path.name for path in (layout / "blobs" / "sha256").iterdir()} == wanted


def test_the_release_comes_back_by_names_and_digests(release: Path, tmp_path: Path) -> None:
    """As a puller does it: what comes out still carries the signature."""
    write_layout(release, tmp_path / "oci")
    (entry,) = json.loads((tmp_path / "oci" / "index.json").read_text())["manifests"]
    for layer in json.loads(blob(tmp_path / "oci", entry))["layers"]:
        path = tmp_path / "pulled" / layer["annotations"]["org.opencontainers.image.title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob(tmp_path / "oci", layer))
    assert verify_folder(tmp_path / "pulled").fingerprint == verify_folder(release).fingerprint


def test_the_same_release_gives_the_same_layout(release: Path, tmp_path: Path) -> None:
    """Byte for byte; written again it takes the old one's place; another file gives another
    digest.
    """
    once = write_layout(release, tmp_path / "a")
    assert write_layout(release, tmp_path / "a") == write_layout(release, tmp_path / "b") == once
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    (release / "report.json").write_bytes(b"other")
    assert write_layout(release, tmp_path / "c") != once
    assert not list(tmp_path.glob(".*.partial"))


def test_only_a_layout_is_replaced_and_links_are_refused(release: Path, tmp_path: Path) -> None:
    """Somebody's own folder stays; nothing outside the release gets in."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    with pytest.raises(ResourceError, match="no OCI layout"):
        write_layout(release, tmp_path / "mine")
    (release / "link").symlink_to(tmp_path / "mine" / "thesis")
    with pytest.raises(IntegrityError, match="is a link"):
        write_layout(release, tmp_path / "oci")


def test_a_layout_with_other_things_in_it_is_not_replaced(release: Path, tmp_path: Path) -> None:
    """A layout of another artifact, and a file beside ours, stay."""
    out = tmp_path / "oci"
    write_layout(release, out)
    write_layout(release, out)
    (out / "notes").write_text("mine")
    with pytest.raises(ResourceError, match="no OCI layout"):
        write_layout(release, out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (other / "index.json").write_text('{"schemaVersion": 2, "manifests": [{"mediaType": "x"}]}')
    with pytest.raises(ResourceError, match="no OCI layout"):
        write_layout(release, other)
