"""Certificates: the chain of trust by hand-made authorities, every broken link, and the stock tool
in both directions.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence._dsse import envelope_of
from lockforge.evidence.certificates import (
    check_chain,
    from_bundle,
    read_certificates,
    read_signing_chain,
    to_bundle,
)
from lockforge.evidence.signing import (
    PrivateKey,
    Trust,
    fingerprint,
    new_key,
    open_envelope,
    sign_folder,
    verify_folder,
)

NOW = datetime.now(UTC)
Issued = tuple[x509.Certificate, PrivateKey]


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    days: tuple[int, int] = (-1, 30),
    path: int | None = None,
    signs: bool = True,
    critical: bool = False,
    limited: bool = True,
) -> Issued:
    """A certificate and its key.

    Args: issuer: None issues itself. critical: with a critical extension that nobody here looks at.
        limited: with a key usage.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    above, above_key = issuer or (None, key)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=signs and not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path), critical=True)
    )
    made = made.add_extension(usage, critical=True) if limited else made
    if critical:
        made = made.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True
        )
    return made.sign(above_key, hashes.SHA256()), key


def write(path: Path, *certificates: x509.Certificate) -> Path:
    """Certificates as a PEM file."""
    path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
    return path


@pytest.fixture(scope="module")
def root() -> Issued:
    """An authority."""
    return issue("root", ca=True)


@pytest.fixture(scope="module")
def middle(root: Issued) -> Issued:
    """An authority below it that may only issue leaves."""
    return issue("middle", root, ca=True, path=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something to sign."""
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "model.bin").write_bytes(bytes(range(100)))
    return tmp_path / "release"


def test_a_chain_leads_to_its_root_and_says_the_name(root: Issued, middle: Issued) -> None:
    """Leaf, middle, root: also when the root is in the bundle, or the leaf itself is trusted."""
    leaf, _ = issue("the owner", middle)
    assert check_chain((leaf, middle[0]), [root[0]]) == "CN=the owner"
    assert check_chain((leaf, middle[0], root[0]), [root[0]]) == "CN=the owner"
    assert check_chain((leaf,), [leaf]) == "CN=the owner"


def broken(root: Issued, middle: Issued) -> dict[str, tuple[x509.Certificate, ...]]:
    """Chains with one thing wrong each."""
    old, leaf, fake, low = (
        issue("old", root, ca=True, days=(-9, -1)),
        issue("leaf", root),
        issue("root", ca=True),
        issue("low", middle, ca=True),
    )
    plain = issue("plain", root, limited=False)
    return {
        "the middle is missing": (issue("owner", middle)[0],),
        "another root": (issue("owner", fake)[0],),
        "a root of the same name, sent along": (issue("owner", fake)[0], fake[0]),
        "expired": (issue("owner", root, days=(-9, -1))[0],),
        "not yet valid": (issue("owner", root, days=(2, 9))[0],),
        "an expired issuer": (issue("owner", old)[0], old[0]),
        "issued by a leaf": (issue("owner", leaf)[0], leaf[0]),
        "issued by a leaf of unsaid usage": (issue("owner", plain)[0], plain[0]),
        "too long a path": (issue("owner", low)[0], low[0], middle[0]),
        "not for signing": (issue("owner", root, signs=False)[0],),
        "an unknown critical extension": (issue("owner", root, critical=True)[0],),
    }


def test_a_broken_chain_is_refused(root: Issued, middle: Issued) -> None:
    """Each rule on its own, and none gives a traceback."""
    for case, chain in broken(root, middle).items():
        with pytest.raises(IntegrityError, match=r"no valid chain|may not be used"):
            pytest.fail(f"{case}: {check_chain(chain, [root[0]])}")


def test_a_release_signed_with_certificates_names_its_signer(
    folder: Path, root: Issued, middle: Issued
) -> None:
    """By root or by key the signer is established; by neither only the fingerprint is known;
    another root or key is refused.
    """
    leaf, key = issue("the owner", middle)
    sign_folder(folder, key, (leaf, middle[0]))
    by_root, by_key, alone = (
        verify_folder(folder, Trust(roots=(root[0],))),
        verify_folder(folder, Trust(key.public_key())),
        verify_folder(folder),
    )
    assert (by_root.name, by_root.established, by_root.fingerprint) == (
        "CN=the owner",
        True,
        fingerprint(key.public_key()),
    )
    assert (by_key.name, by_key.established, alone.established) == ("", True, False)
    with pytest.raises(IntegrityError, match="no valid chain"):
        verify_folder(folder, Trust(roots=(issue("root", ca=True)[0],)))
    with pytest.raises(IntegrityError, match="another key"):
        verify_folder(folder, Trust(issue("x")[1].public_key(), (root[0],)))
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(IntegrityError, match="not what was signed"):
        verify_folder(folder, Trust(roots=(root[0],)))


def test_somebody_elses_chain_does_not_lend_its_name(
    folder: Path, root: Issued, middle: Issued, tmp_path: Path
) -> None:
    """A thief's signature beside the owner's certificates: the key in the certificate did not make
    it; a bare key has no name at all.
    """
    leaf, _ = issue("the owner", middle)
    thief = new_key(tmp_path / "thief")
    sign_folder(folder, thief, (leaf, middle[0]))
    with pytest.raises(IntegrityError, match="no signature by the key"):
        verify_folder(folder, Trust(roots=(root[0],)))
    sign_folder(folder, thief)
    with pytest.raises(IntegrityError, match="without certificates"):
        verify_folder(folder, Trust(roots=(root[0],)))


def test_faulty_files_and_bundles_are_named(tmp_path: Path, root: Issued) -> None:
    """No file, no PEM, another key's certificate; no list, no base64, no certificate."""
    leaf, key = issue("owner", root)
    (tmp_path / "text").write_text("hello")
    for wrong in ("none", "text"):
        with pytest.raises(RecipeError):
            read_certificates(tmp_path / wrong)
    chain = write(tmp_path / "chain", leaf, root[0])
    assert read_signing_chain(chain, key.public_key()) == (leaf, root[0])
    with pytest.raises(RecipeError, match="not of the signing key"):
        read_signing_chain(chain, root[1].public_key())
    with pytest.raises(RecipeError, match="may not be used for signing"):
        read_signing_chain(write(tmp_path / "chain", root[0]), root[1].public_key())
    assert from_bundle(to_bundle((leaf,)), "x") == (leaf,)
    raw = {"rawBytes": "AAAA"}
    for tree in (
        None,
        {},
        {"certificates": []},
        {"certificates": [raw]},
        {"certificates": [3]},
        {"certificates": [{"rawBytes": "?"}]},
    ):
        with pytest.raises(IntegrityError):
            from_bundle(tree, "x")


def test_a_key_on_another_curve_is_a_fault_of_the_release() -> None:
    """A certificate may be of any key; the format has three curves, and another gives no
    traceback.
    """
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    with pytest.raises(IntegrityError, match="secp256k1"):
        open_envelope(envelope_of(b"{}", b"signature"), key, "x")


STOCK = "the stock tool is the interoperability oracle: pip install 'lockforge[sign]'"


def test_the_stock_tool_reads_our_certificates(
    folder: Path, root: Issued, middle: Issued, tmp_path: Path
) -> None:
    """model_signing follows our chain to the root, and refuses another root."""
    stock = pytest.importorskip("model_signing", reason=STOCK)
    leaf, key = issue("the owner", middle)
    sign_folder(folder, key, (leaf, middle[0]))
    right, wrong = (
        write(tmp_path / "root", root[0]),
        write(tmp_path / "other", issue("root", ca=True)[0]),
    )
    stock.verifying.Config().use_certificate_verifier(certificate_chain=[right]).verify(
        folder, folder / "model.sig"
    )
    from OpenSSL.crypto import X509StoreContextError  # what the stock tool lets through

    with pytest.raises(X509StoreContextError):
        stock.verifying.Config().use_certificate_verifier(certificate_chain=[wrong]).verify(
            folder, folder / "model.sig"
        )


def test_we_read_the_stock_tools_certificates(
    folder: Path, root: Issued, middle: Issued, tmp_path: Path
) -> None:
    """What model_signing signs with a certificate verifies here by its root."""
    stock = pytest.importorskip("model_signing", reason=STOCK)
    leaf, key = issue("the owner", middle)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    signing = stock.signing.Config().use_certificate_signer(
        private_key=tmp_path / "key",
        signing_certificate=write(tmp_path / "leaf", leaf),
        certificate_chain=[write(tmp_path / "middle", middle[0])],
    )
    hashing = stock.hashing.Config().set_ignored_paths(paths=[folder / "model.sig"])
    signing.set_hashing_config(hashing).sign(folder, folder / "model.sig")
    found = verify_folder(folder, Trust(roots=(root[0],)))
    assert (found.name, found.ignored) == (
        "CN=the owner",
        (".git", ".gitattributes", ".github", ".gitignore"),
    )
