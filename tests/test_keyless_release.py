"""A keyless release from its seal to the gate: by the commands, with a Sigstore of our own on this
machine.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lockforge.cli import app
from lockforge.cli._releases import Plan, lay_out
from lockforge.errors import RecipeError, ResourceError
from lockforge.evidence.attestation import ATTESTATION, CodeVersion, attest
from lockforge.evidence.keyless import Identity, Keyless
from lockforge.evidence.manifest import hash_folder
from lockforge.evidence.signing import PrivateKey, load_private, new_key, sign_folder
from lockforge.files import Files
from lockforge.gate import gate_release
from lockforge.policy import Policy
from lockforge.records import Artifact, Report, Verdict
from lockforge.runs import Runs
from lockforge.verify import verify_release
from tests.small_release import make_release

pytest.importorskip(
    "sigstore", reason="keyless signatures are an extra: pip install 'lockforge[sign]'"
)
from tests.evidence.own_sigstore import MAIL, PROVIDER, OwnSigstore

POLICY = Policy(attestation="required")


@pytest.fixture
def by(trust_config: Path) -> Identity:
    """Who must have signed."""
    return Identity(MAIL, PROVIDER, str(trust_config))


def claim(folder: Path, key: PrivateKey | None) -> None:
    """Write an attestation of what lies there."""
    report = Report.from_json((folder / "report.json").read_bytes())
    code = CodeVersion(lockforge="0.1.0", commit="none")
    (folder / ATTESTATION).write_bytes(
        attest(report, hash_folder(folder), code, "2026-03-01T12:00:00Z", key)
    )


@pytest.fixture
def keyless(token_file: Path, trust_config: Path) -> Keyless:
    """The owner's token."""
    return Keyless(token_file, str(trust_config))


@pytest.fixture
def release(tmp_path: Path, keyless: Keyless) -> Path:
    """A small release that protects, attested, signed keyless."""
    folder = make_release(tmp_path / "release", tmp_path / "key", made=datetime.now(UTC))
    claim(folder, None)
    keyless.sign_folder(folder)
    return folder


def failing(found: Verdict) -> dict[str, str]:
    """What failed, and what was said."""
    return {check.name: check.value for check in found.checks if not check.passed}


def said_of(name: str, found: Verdict) -> str:
    """The value of a check that passed."""
    return next(check.value for check in found.checks if check.name == name and check.passed)


def test_verify_and_gate_know_the_signer_by_name_and_provider(release: Path, by: Identity) -> None:
    """All checks pass, the attestation's too; a policy that names keys has no word on a key that
    served once.
    """
    found = verify_release(release, identity=by, parity=False)
    assert failing(found) == {}
    assert said_of("signature", found) == f"signed by {MAIL} ({PROVIDER}), keyless"
    assert "bound to these bytes" in said_of("attestation", found)
    passed = gate_release(release, POLICY, identity=by)
    assert failing(passed) == {}
    assert said_of("signer", passed) == f"{MAIL} ({PROVIDER}), keyless"
    assert failing(
        gate_release(release, POLICY.model_copy(update={"signers": ("1" * 64,)}), identity=by)
    ).keys() == {"signer"}
    behind = POLICY.model_copy(update={"baseline": str(release)})
    assert failing(gate_release(release, behind, identity=by)) == {}


def test_nobody_else_passes_and_nobody_in_particular_neither(
    release: Path, by: Identity, tmp_path: Path
) -> None:
    """Another name fails; without one verify says so and the gate says no; a key beside a name is a
    fault of the command.
    """
    thief = Identity("thief@example.org", PROVIDER, by.services)
    assert (
        "is not shown that thief@example.org"
        in failing(verify_release(release, identity=thief, parity=False))["signature"]
    )
    assert "signature" in failing(gate_release(release, POLICY, identity=thief))
    alone = verify_release(release, parity=False)
    assert alone.passed
    assert said_of("signature", alone).startswith(
        "signer not established: keyless, by a certificate that nobody checked and that names "
        f"{MAIL}"
    )
    assert "for whom nobody vouches" in failing(gate_release(release, POLICY))["signer"]
    assert (
        "signed keyless"
        in failing(verify_release(release, tmp_path / "key.pub", parity=False))["signature"]
    )
    with pytest.raises(RecipeError, match="either keyless or made with a key"):
        verify_release(release, tmp_path / "key.pub", identity=by)


def test_an_attestation_stands_or_falls_with_what_signs_the_release(
    release: Path, by: Identity, keyless: Keyless, tmp_path: Path
) -> None:
    """In a keyless release it has no signature of its own, with a key it must have; edited it is
    caught by the release's signature.
    """
    data = (release / ATTESTATION).read_bytes()
    assert json.loads(data)["signatures"] == []
    (release / ATTESTATION).write_bytes(data.replace(b'"payload": "e', b'"payload": "f'))
    assert {"manifest", "signature", "attestation"} <= failing(
        verify_release(release, identity=by, parity=False)
    ).keys()
    claim(release, new_key(tmp_path / "other"))
    keyless.sign_folder(release)
    assert (
        "signature of its own"
        in failing(verify_release(release, identity=by, parity=False))["attestation"]
    )
    claim(release, None)
    sign_folder(release, load_private(tmp_path / "key"))
    assert (
        "exactly one signature"
        in failing(verify_release(release, tmp_path / "key.pub", parity=False))["attestation"]
    )


def test_a_seal_signs_keyless_and_leaves_nothing_where_it_cannot(
    sigstore: OwnSigstore, keyless: Keyless, by: Identity, tmp_path: Path
) -> None:
    """Laid out whole with a claim and a name; where the log refuses at the end there is no folder
    at all, nor a part of one.
    """
    made = make_release(tmp_path / "made", tmp_path / "key")
    files = Files(tmp_path / "files")
    kept = {
        path.name: files.put(path.read_bytes())
        for path in made.iterdir()
        if path.name in {"model.safetensors", "report.json"}
    }
    artifact, out = Artifact(report=kept["report.json"], files=kept), tmp_path / "out" / "release"
    do, plan = Runs(tmp_path, seed=0), Plan(out, None, keyless=keyless)
    sigstore.refuse = "log/entries"
    with pytest.raises(ResourceError, match="signing keyless failed"):
        lay_out(artifact, do, plan, open_digests=True)
    assert not out.exists()
    assert list(out.parent.iterdir()) == []
    sigstore.refuse = ""
    assert lay_out(artifact, do, plan, open_digests=True) == (out, f"{MAIL} ({PROVIDER})")
    found = verify_release(out, identity=by, parity=False)
    assert said_of("signature", found).startswith(f"signed by {MAIL}")
    assert "bound to these bytes" in said_of("attestation", found)


Type = Callable[..., Result]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """A command typed in the test's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("attestation: required\n")
    return lambda *words: CliRunner().invoke(app, list(words))


def test_the_commands_take_an_identity(release: Path, typed: Type, trust_config: Path) -> None:
    """0 by the right name, 5 of verify and 1 of the gate by another; half of an identity is a fault
    of the command line.
    """
    services = ("--trust-config", str(trust_config))
    verify, gate = (
        ("verify", release.name, "--no-parity"),
        ("gate", release.name, "--policy", "policy.yaml"),
    )
    for words, no in ((verify, 5), (gate, 1)):
        for name, code in ((MAIL, 0), ("thief@example.org", no)):
            done = typed(*words, "--identity", name, "--identity-provider", PROVIDER, *services)
            assert done.exit_code == code, done.output
        for half in (("--identity", MAIL), ("--identity-provider", PROVIDER), services):
            assert isinstance(typed(*words, *half).exception, RecipeError)


@pytest.mark.parametrize(
    "command", [("protect",), ("export", "nasbench201|none=x", "--source", "digits")]
)
def test_what_keyless_lacks_is_said_before_any_work(
    command: tuple[str, ...], typed: Type, trust_config: Path, tmp_path: Path
) -> None:
    """A token that is none, no token, and no network: exit 4 within seconds, no release, no stage
    begun, and no token in what is said.
    """
    (tmp_path / "token").write_text("secret.but.wrong")
    for words in (
        ("--identity-token", "token", "--trust-config", str(trust_config)),
        ("--trust-config", str(trust_config)),
        (),
    ):
        done = typed(*command, "--keyless", "--runs", "runs", *words)
        assert isinstance(done.exception, ResourceError), done.output
        assert done.exception.exit_code == 4
        assert "secret" not in done.output + str(done.exception)
    assert not (tmp_path / "release").exists()
    assert not list((tmp_path / "runs").glob("*_*"))
