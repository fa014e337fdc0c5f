"""The last step of a release, in its folder: digests keyed, bill of materials and card written,
attested, signed.

What depends on who releases and when (keys, clock, versions) comes in here, after all stages: none
of it can change an answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lockforge.evidence.attestation import ATTESTATION, CodeVersion, attest
from lockforge.evidence.certificates import Certificates
from lockforge.evidence.keyed import keyed_report
from lockforge.evidence.keyless import Keyless
from lockforge.evidence.manifest import hash_folder, write_manifest
from lockforge.evidence.signing import PrivateKey, sign_folder
from lockforge.export._bom import BOM, versions_here, write_bom
from lockforge.export.onnx import facts_of
from lockforge.files import Files, write_whole
from lockforge.records import Provenance, Report
from lockforge.report.model_card import CARD, write_card
from lockforge.report.page import page

ONNX = "model.onnx"
PROVENANCE = "provenance.json"  # holds times, which the bill of materials has nothing of


@dataclass(frozen=True)
class Seal:
    """Who releases: with a `key`, or `keyless` (Sigstore); neither leaves the release unsigned.
    `digest_key` None leaves the digests of the data as they are.
    """

    key: PrivateKey | None
    chain: Certificates = ()
    digest_key: bytes | None = None
    keyless: Keyless | None = None


def sealing(seal: Seal, files: Files, circumstances: Provenance) -> Callable[[Path], None]:
    """What `stage.lay_out` does to the folder before it is renamed into place."""
    return lambda folder: seal_release(folder, seal, files, circumstances, datetime.now(UTC))


def seal_release(
    folder: Path, seal: Seal, files: Files, circumstances: Provenance, now: datetime
) -> None:
    """Finish the folder of a release. Args: files: where the embeddings lie that report.html draws.
    now: the time to attest.
    """
    report = Report.from_json((folder / "report.json").read_bytes())
    if seal.digest_key is not None:
        vectors = [
            [float(value) for value in files.get_arrays(one.vector)["fisher"]]
            for one in report.embeddings
        ]
        report = keyed_report(report, seal.digest_key)
        write_whole(folder / "report.json", report.to_json().encode())
        write_whole(folder / "report.html", page(report, vectors).encode())
    made_by = circumstances.versions.get("lockforge", "unknown")
    facts = facts_of((folder / ONNX).read_bytes()) if (folder / ONNX).exists() else {}
    write_whole(folder / CARD, write_card(report, facts))
    files_of = {name: ref for name, ref in hash_folder(folder).items() if name != PROVENANCE}
    write_whole(folder / BOM, write_bom(report, files_of, facts, versions_here(), made_by))
    if seal.key is None and seal.keyless is None:
        write_manifest(folder)
        return
    code = CodeVersion(lockforge=made_by, commit=circumstances.commit)
    write_whole(
        folder / ATTESTATION,
        attest(report, hash_folder(folder), code, now.strftime("%Y-%m-%dT%H:%M:%SZ"), seal.key),
    )
    if seal.keyless:
        seal.keyless.sign_folder(folder)
    elif seal.key:
        sign_folder(folder, seal.key, seal.chain)
