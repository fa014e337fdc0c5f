"""The last step: what a release's folder gets beside the stages' answers, and that it all holds
together.
"""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest

from lockforge.errors import IntegrityError
from lockforge.evidence.attestation import check_attestation
from lockforge.evidence.keyed import keyed_digest
from lockforge.evidence.manifest import hash_folder, read_manifest
from lockforge.evidence.signing import PrivateKey, Trust, new_key, verify_folder
from lockforge.export.seal import Seal, seal_release
from lockforge.files import Files
from lockforge.records import Provenance, Report
from tests.report import made_up

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CIRCUMSTANCES = Provenance(
    versions={
        "lockforge": "0.1.0",
        "python": "3.11.7",
        "torch": "2.13.0",
        "numpy": "2.3.0",
        "cuda": "none",
    },
    hardware={"cpu": "a cpu"},
    seconds={},
    commit="abc",
    started="2026-11-21T11:00:00+00:00",
)
SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """The owner's."""
    return new_key(tmp_path_factory.mktemp("keys") / "k")


@pytest.fixture(scope="module")
def report(files: Files) -> Report:
    """One target; the embeddings' vectors lie in the store."""
    made = made_up.report(targets={"usps": 0.55}, attackers=2, seeds=2)
    vector = files.put_arrays({"fisher": np.linspace(0, 1, 300, dtype=np.float32)})
    return made.model_copy(
        update={
            "embeddings": tuple(
                one.model_copy(update={"vector": vector}) for one in made.embeddings
            )
        }
    )


def nothing() -> bytes:
    """The smallest ONNX file: what goes in comes out."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2])
        for name in ("pixels", "logits")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["pixels"], ["logits"])], "g", ends[:1], ends[1:]
    )
    return bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        ).SerializeToString()
    )


@pytest.fixture
def folder(tmp_path: Path, report: Report) -> Path:
    """What the stages leave of a release, as far as sealing looks at it."""
    place = tmp_path / "release"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "model.onnx").write_bytes(nothing())
    (place / "report.json").write_text(report.to_json())
    (place / "report.html").write_text("plain")
    return place


def test_a_sealed_release_is_keyed_attested_and_signed(
    folder: Path, report: Report, files: Files, key: PrivateKey
) -> None:
    """Every file is covered by the signature; the attestation is of these bytes; no plain digest of
    data is left in any file.
    """
    seal_release(folder, Seal(key, digest_key=SECRET), files, CIRCUMSTANCES, NOW)
    assert verify_folder(folder, Trust(key.public_key())).established
    found = hash_folder(folder)
    sealed = Report.from_json((folder / "report.json").read_bytes())
    said = check_attestation(
        (folder / "attestation.json").read_bytes(), key.public_key(), sealed, found
    )
    assert (said.time, said.digests, said.code.commit) == ("2026-11-21T12:00:00Z", "keyed", "abc")
    plain = {images.pixels.sha256 for images in (report.roles.source, *report.roles.targets)}
    plain |= {images.digest for images in (report.roles.source, *report.roles.targets)}
    for path in folder.iterdir():
        text = path.read_text()
        assert not [digest for digest in plain if digest[:12] in text], path.name
    assert sealed.roles.source.pixels.sha256 == keyed_digest(
        report.roles.source.pixels.sha256, SECRET
    )
    assert "* ONNX opset: 20\n* ONNX IR version: 10" in (folder / "README.md").read_text()
    assert sealed.roles.source.digest[:12] in (folder / "report.html").read_text()


def test_open_digests_leave_the_report_as_the_stages_made_it(
    folder: Path, report: Report, files: Files, key: PrivateKey
) -> None:
    """Then the same answers give the same report byte for byte, in anybody's hands."""
    seal_release(folder, Seal(key), files, CIRCUMSTANCES, NOW)
    assert (folder / "report.json").read_text() == report.to_json()
    assert (folder / "report.html").read_text() == "plain"


def test_card_and_bill_are_the_same_again(folder: Path, files: Files, key: PrivateKey) -> None:
    """Another time, other circumstances and another signature change neither."""
    found = []
    for minute in range(2):
        (folder / "provenance.json").write_text(f"{minute}")
        seal_release(folder, Seal(key), files, CIRCUMSTANCES, NOW.replace(minute=minute))
        found.append([(folder / name).read_bytes() for name in ("README.md", "bom.json")])
        for name in ("README.md", "bom.json", "attestation.json", "manifest.json", "model.sig"):
            (folder / name).unlink()
    assert found[0] == found[1]


def test_without_a_key_there_is_a_manifest_and_no_claim(folder: Path, files: Files) -> None:
    """Digests are keyed all the same; nobody attests anything."""
    seal_release(folder, Seal(None, digest_key=SECRET), files, CIRCUMSTANCES, NOW)
    assert read_manifest(folder).signer is None
    assert not {"attestation.json", "model.sig"} & set(hash_folder(folder))
    assert Report.from_json((folder / "report.json").read_bytes()).digests == "keyed"


def test_hundreds_of_changes_to_a_sealed_release_are_all_caught(
    folder: Path, files: Files, key: PrivateKey
) -> None:
    """Every file there is: flips at sampled places, cut short, longer, renamed, swapped, removed;
    with the key and without.
    """
    seal_release(folder, Seal(key, digest_key=SECRET), files, CIRCUMSTANCES, NOW)
    names = sorted(hash_folder(folder))
    assert {"README.md", "bom.json", "attestation.json", "manifest.json", "model.sig"} <= set(names)
    cases = 0

    def caught() -> None:
        nonlocal cases
        cases += 1
        for public in (key.public_key(), None):
            with pytest.raises(IntegrityError):
                verify_folder(folder, Trust(public))

    for at, name in enumerate(names):
        path, other = folder / name, folder / names[at - 1]
        data, beside = path.read_bytes(), other.read_bytes()
        flips = [
            data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
            for i in range(0, len(data), max(1, len(data) // 20))
        ]
        for changed in (*flips, data[:-1], data[: len(data) // 2], b"", data + b"\n", data * 2):
            path.write_bytes(changed)
            caught()
        path.write_bytes(beside)
        other.write_bytes(data)
        caught()
        other.write_bytes(beside)
        path.unlink()
        caught()
        (folder / f"{name}.bak").write_bytes(data)
        caught()
        (folder / f"{name}.bak").unlink()
        path.write_bytes(data)
    assert verify_folder(folder, Trust(key.public_key())).established
    assert cases > 200


def test_other_tools_read_the_attestation(folder: Path, files: Files, key: PrivateKey) -> None:
    """in-toto's own library takes the statement, and refuses it without its subject."""
    statement_pb2 = pytest.importorskip(
        "in_toto_attestation.v1.statement_pb2",
        reason="interop oracle: pip install 'lockforge[sign]'",
    )
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement

    seal_release(folder, Seal(key, digest_key=SECRET), files, CIRCUMSTANCES, NOW)
    envelope = json.loads((folder / "attestation.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    Statement.copy_from_pb(json_format.ParseDict(statement, statement_pb2.Statement())).validate()
    del statement["subject"]
    with pytest.raises(ValueError, match="subject"):
        Statement.copy_from_pb(
            json_format.ParseDict(statement, statement_pb2.Statement())
        ).validate()
