"""DSSE envelopes (protocol v1.0.0) as JSON, and JSON of unknown origin read piece by piece. Signing
itself is in `signing.py`.

An envelope holds one payload and one signature. Nothing else may stand in it: no byte of the file
is without meaning.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from lockforge.errors import IntegrityError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def to_be_signed(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: "DSSEv1", then type and payload, each after its length in
    bytes.
    """
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def envelope_of(payload: bytes, signature: bytes | None) -> dict[str, Any]:
    """Payload and signature as the tree of an envelope; None leaves it unsigned."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": []
        if signature is None
        else [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }


def opened(envelope: dict[str, Any], what: str) -> tuple[bytes, bytes]:
    """The payload and the signature of an envelope.

    Raises: IntegrityError: not exactly one signature over an in-toto statement.
    """
    payload, signatures = _taken_apart(envelope, what)
    if (
        not isinstance(signatures, list)
        or len(signatures) != 1
        or not isinstance(signatures[0], dict)
    ):
        raise IntegrityError(f"{what} must hold exactly one signature")
    signature = at(known(signatures[0], {"sig", "keyid"}, what), "sig", what)
    return payload, decoded(signature, what)


def unsigned_payload(envelope: dict[str, Any], what: str) -> bytes:
    """The payload of an envelope that nobody signed, since something else covers its bytes.

    Raises: IntegrityError: it is signed, or there is no in-toto statement in it.
    """
    payload, signatures = _taken_apart(envelope, what)
    if signatures != []:
        raise IntegrityError(
            f"{what} has a signature of its own, which nothing says whose it is",
            hint="it was put into this release",
        )
    return payload


def _taken_apart(envelope: dict[str, Any], what: str) -> tuple[bytes, Any]:
    known(envelope, {"payload", "payloadType", "signatures"}, what)
    if at(envelope, "payloadType", what) != PAYLOAD_TYPE:
        raise IntegrityError(f"{what} signs something else: {shown(envelope['payloadType'])}")
    return decoded(at(envelope, "payload", what), what), at(envelope, "signatures", what)


def parsed(data: bytes, what: str) -> dict[str, Any]:
    """A JSON table.

    Raises: IntegrityError: no JSON, or no table.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{what} is not JSON", hint="it was edited or cut short") from None
    if not isinstance(tree, dict):
        raise IntegrityError(f"{what} is not a table: {shown(tree)}")
    return tree


def parsed_file(data: bytes, what: str) -> dict[str, Any]:
    """The JSON table that a file holds from its first byte to its last.

    Raises: IntegrityError: no JSON, no table, or space around it, which could be added and taken
        away unseen.
    """
    if data.strip() != data:
        raise IntegrityError(f"{what} has space around its JSON", hint="it was edited")
    return parsed(data, what)


def at(tree: Mapping[str, Any], key: str, what: str) -> Any:
    """The value at a key.

    Raises: IntegrityError: there is none.
    """
    if key not in tree:
        raise IntegrityError(f"{what} lacks {key!r}", hint="it was edited or cut short")
    return tree[key]


def table(tree: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    """The table at a key.

    Raises: IntegrityError: there is none.
    """
    value = at(tree, key, what)
    if not isinstance(value, dict):
        raise IntegrityError(f"{key!r} in {what} is not a table: {shown(value)}")
    return value


def known(tree: dict[str, Any], keys: set[str], what: str) -> dict[str, Any]:
    """The same table, if it has no other keys.

    Raises: IntegrityError: it has.
    """
    if not tree.keys() <= keys:
        raise IntegrityError(
            f"{what} holds something unknown: {shown(sorted(tree.keys() - keys))}",
            hint="it was edited",
        )
    return tree


def decoded(text: object, what: str) -> bytes:
    """Base64 in its one spelling.

    Raises: IntegrityError: another spelling, or none.
    """
    try:
        data = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except (ValueError, binascii.Error):
        raise IntegrityError(f"{what} holds no base64 where it should: {shown(text)}") from None
    if base64.b64encode(data).decode() != text:
        raise IntegrityError(
            f"{what} spells base64 in another way than it is written", hint="it was edited"
        )
    return data


def shown(value: object) -> str:
    """A value on one short line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
