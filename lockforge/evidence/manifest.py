"""What lies in a release, by SHA-256: written once, checked by anyone.

`manifest.json` names every file of the release but itself and the signature, which covers it. Links
and anything that is neither a file nor a folder are refused, so that a name can only mean bytes
inside the release.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from lockforge.errors import IntegrityError, RecipeError
from lockforge.files import write_whole
from lockforge.records import FileRef, Record

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
LARGEST_JSON = 256 * 2**20  # bytes; a JSON file of a release beyond this is not read into memory
_DRIVE = re.compile(r"^[A-Za-z]:")


class Manifest(Record):
    """The files of a release. `signer` is the public key (PEM) the release says it is signed with,
    so that anyone can check the signature's bytes; whose key that is, only a reader who got it
    elsewhere can say.
    """

    schema_version: Literal[1] = 1
    signer: str | None = None
    files: dict[str, FileRef]


def hash_file(path: Path) -> FileRef:
    """SHA-256 and size of a file, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRef(sha256=digest, size=file.tell())


def hash_folder(folder: Path) -> dict[str, FileRef]:
    """Every file below a folder by its name there (with `/`), sorted.

    Raises: RecipeError: no such folder. IntegrityError: a link, a device, a pipe, a name that no
        manifest may hold, or an unreadable file.
    """
    if not folder.is_dir():
        raise RecipeError(
            f"{folder} is not a folder",
            hint="give the folder that holds model.safetensors and manifest.json",
        )
    found = {}
    for name, path in sorted(_files(folder, "")):
        try:
            found[name] = hash_file(path)
        except OSError as error:
            raise IntegrityError(
                f"{name} cannot be read: {error.strerror}",
                hint="check the permissions of the release",
            ) from error
    return found


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        raise IntegrityError(
            f"{prefix or folder} cannot be read: {error.strerror}",
            hint="check the permissions of the release",
        ) from error
    for entry in entries:
        name = prefix + entry.name
        check_name(name)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files(Path(entry.path), f"{name}/")
        elif stat.S_ISREG(mode):
            yield name, Path(entry.path)
        else:
            kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise IntegrityError(f"{name} is {kind}", hint="a release holds plain files only")


def check_name(name: str) -> None:
    """Refuse a name that could mean something outside the release, or print as something else.

    Raises: IntegrityError: absolute, with `..`, a backslash, a drive, an empty part, or
        unprintable.
    """
    parts = name.split("/")
    if (
        any(part in {"", ".", ".."} for part in parts)
        or "\\" in name
        or _DRIVE.match(name)
        or not name.isprintable()
    ):
        raise IntegrityError(
            f"the file name {name!r} is not allowed in a release",
            hint="it could lead out of the folder",
        )


def read_limited(path: Path) -> bytes:
    """The bytes of a small file of the release.

    Raises: IntegrityError: missing, unreadable, or far larger than such a file can be.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise IntegrityError(
                f"{path.name} is missing"
                if not path.exists()
                else f"{path.name} is not a plain file"
            )
        if path.stat().st_size > LARGEST_JSON:
            raise IntegrityError(
                f"{path.name} has {path.stat().st_size} bytes, more than such a file can need"
            )
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {error.strerror}") from error


def write_manifest(folder: Path, signer: str | None = None) -> Manifest:
    """Write `manifest.json` for what lies in a folder now; an old manifest or signature is not
    counted as content.

    Args: signer: the public key as PEM, where the folder is going to be signed.
    """
    files = {
        name: ref for name, ref in hash_folder(folder).items() if name not in {MANIFEST, SIGNATURE}
    }
    manifest = Manifest(signer=signer, files=files)
    write_whole(folder / MANIFEST, (manifest.to_json() + "\n").encode())
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`.

    Raises: IntegrityError: missing, not a manifest, or with a name that leads out of the folder.
    """
    manifest = Manifest.from_json(read_limited(folder / MANIFEST))
    for name in manifest.files:
        check_name(name)
    return manifest


def differences(wanted: Mapping[str, str], found: Mapping[str, FileRef]) -> tuple[str, ...]:
    """A line for each file that is missing, changed or not named, given the digests that were
    promised and the files that are there.
    """
    lines = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    changed = sorted(
        name for name in wanted.keys() & found.keys() if wanted[name] != found[name].sha256
    )
    lines += [
        f"{name} was changed (sha256 {found[name].sha256[:12]}, not {wanted[name][:12]})"
        for name in changed
    ]
    return (
        *lines,
        *(f"{name} is there but not listed" for name in sorted(found.keys() - wanted.keys())),
    )


def check_manifest(manifest: Manifest, found: Mapping[str, FileRef]) -> tuple[str, ...]:
    """What differs between a manifest and the files of its folder; nothing when all is as
    written.
    """
    content = {name: ref for name, ref in found.items() if name not in {MANIFEST, SIGNATURE}}
    lines = differences({name: ref.sha256 for name, ref in manifest.files.items()}, content)
    same = {
        name: ref
        for name, ref in manifest.files.items()
        if name in content and content[name].sha256 == ref.sha256
    }
    sizes = [
        f"{name} has {content[name].size} bytes, not {ref.size}"
        for name, ref in sorted(same.items())
        if content[name].size != ref.size
    ]
    return (*lines, *sizes)
