"""Digests of data sets that only the owner can test: HMAC-SHA256 with a key that stays in the owner's house.

A plain SHA-256 of a public data set can be looked up by anybody. In a release every digest that was made from pictures alone is therefore
replaced: of the pictures, of the records that name them, and of the task embeddings. The means and deviations of auxiliary sets and
targets, which tell a public set as well as a digest does, are rounded to two places. What a guess can still be checked against is in
docs/threat-model.md.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from lockforge.errors import RecipeError
from lockforge.evidence.signing import default_key_path, write_secret
from lockforge.records import Checkpoint, FileRef, ImageSet, Report

PLACES = 2  # decimals of a mean or deviation that are kept


def digest_key_path() -> Path:
    """Where the owner's key for digests lies: `lockforge/digests.key` in the config folder."""
    return default_key_path().with_name("digests.key")


def own_digest_key() -> bytes:
    """The owner's key for digests, 32 bytes, made on first use.

    Raises: RecipeError: the file there is no such key. ResourceError: the folder cannot be written to.
    """
    path = digest_key_path()
    if not path.exists():
        write_secret(path, secrets.token_hex(32).encode() + b"\n")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 32:
        raise RecipeError(
            f"{path} is no key for digests: 64 hexadecimal digits", hint="put the old file back, or move it away for a new key"
        )
    return key


def keyed_digest(digest: str, key: bytes) -> str:
    """HMAC-SHA256 of a digest's hex text."""
    return hmac.new(key, f"lockforge data digest {digest}".encode(), hashlib.sha256).hexdigest()


def keyed_set(images: ImageSet, key: bytes, *, exact: bool) -> ImageSet:
    """A data set as a release names it. Args: exact: keep mean and deviation as they are, as a source's user needs them."""
    changed: dict[str, object] = {"pixels": _keyed_file(images.pixels, key)}
    if not exact:
        changed |= {name: tuple(round(value, PLACES) for value in getattr(images, name)) for name in ("mean", "std")}
    return images.model_copy(update=changed)


def keyed_report(report: Report, key: bytes) -> Report:
    """The same report with every digest of data keyed; one that is keyed already stays as it is."""
    if report.digests == "keyed":
        return report
    roles = report.roles
    source = keyed_set(roles.source, key, exact=True)
    auxiliary, targets = (tuple(keyed_set(one, key, exact=False) for one in sets) for sets in (roles.auxiliary, roles.targets))
    before, after = (roles.source, *roles.auxiliary, *roles.targets), (source, *auxiliary, *targets)
    renamed = {old.digest: new.digest for old, new in zip(before, after, strict=True)}

    def named(digest: str) -> str:
        return renamed.get(digest) or keyed_digest(digest, key)

    def trained(checkpoint: Checkpoint) -> Checkpoint:
        return checkpoint.model_copy(update={"trained_on": named(checkpoint.trained_on)})

    subjects = report.subjects
    changed = {name: trained(getattr(subjects, name)) for name in ("release", "twin", "reference")}
    ablations = tuple(one.model_copy(update={"checkpoint": trained(one.checkpoint)}) for one in subjects.ablations)
    return report.model_copy(
        update={
            "digests": "keyed",
            "roles": roles.model_copy(update={"source": source, "auxiliary": auxiliary, "targets": targets}),
            "embeddings": tuple(
                one.model_copy(update={"images": named(one.images), "vector": _keyed_file(one.vector, key)}) for one in report.embeddings
            ),
            "subjects": subjects.model_copy(update={**changed, "ablations": ablations}),
            "audits": tuple(one.model_copy(update={"target": named(one.target)}) for one in report.audits),
        }
    )


def _keyed_file(file: FileRef, key: bytes) -> FileRef:
    return file.model_copy(update={"sha256": keyed_digest(file.sha256, key)})
