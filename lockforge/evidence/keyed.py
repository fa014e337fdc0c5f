"""Digests of data sets that only the owner can test: HMAC-SHA256 with a key that stays in the
owner's house.

A plain SHA-256 of a public data set can be looked up by anybody. In a release every digest that was
made from images alone is therefore replaced: of the images, of the records that name them, and
of the task embeddings. The means and deviations of auxiliary sets and targets, which tell a public
set as well as a digest does, are rounded to two places. What a guess can still be checked against
is in docs/threat-model.md.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Literal

from lockforge.errors import RecipeError
from lockforge.evidence.signing import default_key_path, write_secret
from lockforge.records import Checkpoint, FileRef, ImageSet, Report

PLACES = 2  # decimals of a mean or deviation that are kept


def digest_key_path() -> Path:
    """Where the owner's key for digests lies: `lockforge/digests.key` in the config folder."""
    return default_key_path().with_name("digests.key")


def own_digest_key() -> bytes:
    """The owner's key for digests, 32 bytes, made on first use.

    Raises: RecipeError: the file there is no such key. ResourceError: the folder cannot be written
        to.
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
            f"{path} is no key for digests: 64 hexadecimal digits",
            hint="put the old file back, or move it away for a new key",
        )
    return key


def keyed_digest(digest: str, key: bytes) -> str:
    """HMAC-SHA256 of a digest's hex text."""
    return hmac.new(key, f"lockforge data digest {digest}".encode(), hashlib.sha256).hexdigest()


def keyed_set(images: ImageSet, key: bytes, *, exact: bool) -> ImageSet:
    """A data set as a release names it. Args: exact: keep mean and deviation as they are, as a
    source's user needs them.
    """
    changed: dict[str, object] = {"pixels": _keyed_file(images.pixels, key)}
    if not exact:
        changed |= {
            name: tuple(round(value, PLACES) for value in getattr(images, name))
            for name in ("mean", "std")
        }
    return images.model_copy(update=changed)


def recognise(
    said: ImageSet, images: ImageSet, digests: Literal["open", "keyed"], key: bytes | None
) -> Literal["same", "alike", "other"]:
    """Whether images at hand are those that a report names.

    Args: said: as the report has them. images: as they were read here, plain. digests: the
        report's. key: the one they may be made with.
    Returns: same: proved by the digest. alike: the digest is keyed with a key that is not at hand,
    and classes, shape, counts and, to two places, mean and deviation agree. other: they are not.

    >>> from lockforge.records import Splits
    >>> made = {
    ...     "classes": ("a", "b"),
    ...     "shape": (1, 8, 8),
    ...     "std": (0.2,),
    ...     "counts": Splits(train=4, val=2, test=2),
    ... }
    >>> here = ImageSet(mean=(0.123,), pixels=FileRef(sha256="0" * 64, size=1), **made)
    >>> said = keyed_set(here, b"the owner's", exact=False)
    >>> (
    ...     [recognise(said, here, "keyed", key) for key in (b"the owner's", b"another", None)],
    ...     recognise(said, here, "open", None),
    ... )
    (['same', 'alike', 'alike'], 'other')
    """
    if digests == "open":
        return "same" if said == images else "other"
    if key is not None and any(
        said == keyed_set(images, key, exact=exact) for exact in (True, False)
    ):
        return "same"
    alike = (said.classes, said.shape, said.counts) == (images.classes, images.shape, images.counts)
    pairs = [
        pair
        for name in ("mean", "std")
        for pair in zip(getattr(said, name), getattr(images, name), strict=False)
    ]
    return (
        "alike"
        if alike and all(round(a, PLACES) == round(b, PLACES) for a, b in pairs)
        else "other"
    )


def keyed_report(report: Report, key: bytes) -> Report:
    """The same report with every digest of data keyed; one that is keyed already stays as it is."""
    if report.digests == "keyed":
        return report
    roles = report.roles
    source = keyed_set(roles.source, key, exact=True)
    auxiliary, targets = (
        tuple(keyed_set(one, key, exact=False) for one in sets)
        for sets in (roles.auxiliary, roles.targets)
    )
    before, after = (roles.source, *roles.auxiliary, *roles.targets), (source, *auxiliary, *targets)
    renamed = {old.digest: new.digest for old, new in zip(before, after, strict=True)}

    def named(digest: str) -> str:
        return renamed.get(digest) or keyed_digest(digest, key)

    def trained(checkpoint: Checkpoint) -> Checkpoint:
        return checkpoint.model_copy(update={"trained_on": named(checkpoint.trained_on)})

    subjects = report.subjects
    changed = {name: trained(getattr(subjects, name)) for name in ("release", "twin", "reference")}
    ablations = tuple(
        one.model_copy(update={"checkpoint": trained(one.checkpoint)}) for one in subjects.ablations
    )
    return report.model_copy(
        update={
            "digests": "keyed",
            "roles": roles.model_copy(
                update={"source": source, "auxiliary": auxiliary, "targets": targets}
            ),
            "embeddings": tuple(
                one.model_copy(
                    update={"images": named(one.images), "vector": _keyed_file(one.vector, key)}
                )
                for one in report.embeddings
            ),
            "subjects": subjects.model_copy(update={**changed, "ablations": ablations}),
            "audits": tuple(
                one.model_copy(update={"target": named(one.target)}) for one in report.audits
            ),
        }
    )


def _keyed_file(file: FileRef, key: bytes) -> FileRef:
    return file.model_copy(update={"sha256": keyed_digest(file.sha256, key)})
