"""A release as an OCI image layout (image-spec v1.1), so that registries and their tools can carry
it. Media types: docs/export.md.

One manifest: each file of the release is a layer under its own name, nothing is packed, and the
configuration is the empty one. No time is in it: the same release gives the same bytes.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lockforge.errors import IntegrityError, RecipeError, ResourceError
from lockforge.evidence.manifest import hash_folder, read_limited
from lockforge.files import whole_folder, write_whole
from lockforge.records import FileRef, canonical_json

ARTIFACT = "application/vnd.lockforge.release.v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
REFERENCE = "org.opencontainers.image.ref.name"
KINDS: Mapping[str, str] = {
    "model.safetensors": "application/vnd.lockforge.weights.v1+safetensors",
    "model.onnx": "application/vnd.lockforge.model.v1+onnx",
    "model.int8.onnx": "application/vnd.lockforge.model.v1+onnx",
    "attestation.json": "application/vnd.dsse.envelope.v1+json",
    "bom.json": "application/vnd.cyclonedx+json",
    "model.sig": "application/vnd.dev.sigstore.bundle.v0.3+json",
}
SUFFIXES: Mapping[str, str] = {
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".html": "text/html",
    ".md": "text/markdown",
}
OTHER = "application/octet-stream"

_BLOB = re.compile(r"blobs/sha256/[0-9a-f]{64}")


def check_layout_place(out: Path) -> None:
    """Refuse a place where a layout cannot be laid out, before any work.

    Raises: ResourceError: something else is there.
    """
    empty = out.is_dir() and not any(out.iterdir())
    if out.is_symlink() or (out.exists() and not empty and not _is_our_layout(out)):
        raise ResourceError(
            f"{out} exists and is no OCI layout",
            hint="give another --oci; only a layout of a release, with nothing beside it, is "
            "replaced",
        )


def _is_our_layout(out: Path) -> bool:
    """Whether a folder is a layout of a release and holds nothing else."""
    try:
        names = set(hash_folder(out))
        index = json.loads(read_limited(out / "index.json"))
        kinds = [entry["artifactType"] for entry in index["manifests"]]
    except (IntegrityError, RecipeError, ValueError, KeyError, TypeError):
        return False
    plain = {name for name in names if not _BLOB.fullmatch(name)}
    return kinds == [ARTIFACT] and plain == {"oci-layout", "index.json"}


def write_layout(release: Path, out: Path) -> str:
    """Write the layout of a release folder beside its place and rename it. Returns: the manifest's
    digest, as `sha256:...`.

    Raises: ResourceError: the disk refuses, or something else is there. IntegrityError: a link or a
        forbidden name in the release.
    """
    check_layout_place(out)
    files = hash_folder(release)
    empty = _ref(b"{}")
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": _descriptor(EMPTY, empty),
            "layers": [
                {**_descriptor(_kind(name), ref), "annotations": {TITLE: name}}
                for name, ref in files.items()
            ],
        }
    ).encode()
    entry = {
        **_descriptor(MANIFEST, _ref(manifest)),
        "artifactType": ARTIFACT,
        "annotations": {REFERENCE: "latest"},
    }
    index = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    with whole_folder(out, "the OCI layout") as part:
        blobs = part / "blobs" / "sha256"
        for data in (manifest, b"{}"):
            write_whole(blobs / _ref(data).sha256, data)
        for name, ref in files.items():
            shutil.copyfile(release / name, blobs / ref.sha256)
        write_whole(part / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        write_whole(part / "index.json", index)
    return f"sha256:{_ref(manifest).sha256}"


def _descriptor(kind: str, ref: FileRef) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{ref.sha256}", "size": ref.size}


def _ref(data: bytes) -> FileRef:
    return FileRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _kind(name: str) -> str:
    return KINDS.get(name) or SUFFIXES.get(Path(name).suffix, OTHER)
