"""A Sigstore of our own on this machine: an authority, a certificate log and a signature log, which
the real library talks to over HTTP.

It gives certificates to whoever shows a token (nobody checks who made it), and answers as Fulcio
and Rekor (v1) do. Every request that it got is kept, so that a test can look at what left the
house.
"""

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Key = ec.EllipticCurvePrivateKey
MAIL, PROVIDER = "owner@example.org", "https://accounts.example.org"
_PROVIDER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


def token(mail: str = MAIL, *, minutes: int = 10, audience: str = "sigstore") -> str:
    """An identity token, as a provider gives one; below 0 minutes it has expired."""
    now = datetime.now(UTC)
    made = now - timedelta(hours=1) if minutes < 0 else now
    claims = {
        "iss": PROVIDER,
        "sub": mail,
        "email": mail,
        "aud": audience,
        "iat": made,
        "exp": now + timedelta(minutes=minutes),
    }
    return jwt.encode(claims, "nobody looks at this key, it only has to be long", algorithm="HS256")


def b64(data: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(data).decode()


def spki(key: Key) -> bytes:
    """The public part in DER."""
    return key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def log_id(key: Key) -> bytes:
    """A log's name: SHA-256 of its key."""
    return hashlib.sha256(spki(key)).digest()


class OwnSigstore:
    """Keys of an authority and two logs. `requests`: path, headers and body of everything that it
    was asked.
    """

    def __init__(self) -> None:
        self.ca_key, self.certificate_log, self.log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.requests: list[tuple[str, Mapping[str, str], dict[str, Any]]] = []
        self.refuse = ""  # a path that is answered with 500
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
        self.ca = self._certificate(name, name, self.ca_key, authority=True).sign(
            self.ca_key, hashes.SHA256()
        )

    def _certificate(
        self, subject: x509.Name, issuer: x509.Name, key: Any, *, authority: bool
    ) -> x509.CertificateBuilder:
        public = key.public_key() if isinstance(key, Key) else key
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1 if authority else 0, minutes=10))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not authority,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    **usage,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()),
                critical=False,
            )
        )

    def certify(
        self, public: ec.EllipticCurvePublicKey, mail: str, provider: str
    ) -> x509.Certificate:
        """A certificate in a name, with the promise of the certificate log in it (RFC 6962, 3.2:
        over the certificate without it).
        """
        leaf = (
            self._certificate(x509.Name([]), self.ca.subject, public, authority=False)
            .add_extension(
                x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(mail)]), critical=True)
            .add_extension(
                x509.UnrecognizedExtension(_PROVIDER_OID, provider.encode()), critical=False
            )
        )
        bare = leaf.sign(self.ca_key, hashes.SHA256()).tbs_certificate_bytes
        stamp = int(datetime.now(UTC).timestamp() * 1000)
        entry = hashlib.sha256(spki(self.ca_key)).digest() + len(bare).to_bytes(3, "big") + bare
        signature = self.certificate_log.sign(
            struct.pack("!BBQH", 0, 0, stamp, 1) + entry + b"\0\0", ec.ECDSA(hashes.SHA256())
        )
        promise = (
            struct.pack("!B32sQH", 0, log_id(self.certificate_log), stamp, 0)
            + b"\x04\x03"
            + struct.pack("!H", len(signature))
            + signature
        )
        listed = struct.pack("!HH", len(promise) + 2, len(promise)) + promise
        octets = (
            b"\x04" + bytes([len(listed)]) + listed
        )  # a DER octet string of less than 128 bytes
        return leaf.add_extension(
            x509.UnrecognizedExtension(_SCT_OID, octets), critical=False
        ).sign(self.ca_key, hashes.SHA256())

    def enter(self, body: bytes) -> dict[str, Any]:
        """The only entry of a log of one, with the log's promise and its signed head."""
        root, name, stamp = (
            hashlib.sha256(b"\0" + body).digest(),
            log_id(self.log),
            int(datetime.now(UTC).timestamp()),
        )
        note = f"own log\n1\n{b64(root)}\n"
        head = (
            f"{note}\n\N{EM DASH} own "
            f"{b64(name[:4] + self.log.sign(note.encode(), ec.ECDSA(hashes.SHA256())))}\n"
        )
        said = {"body": b64(body), "integratedTime": stamp, "logID": name.hex(), "logIndex": 0}
        promise = self.log.sign(
            json.dumps(said, sort_keys=True, separators=(",", ":")).encode(),
            ec.ECDSA(hashes.SHA256()),
        )
        proof = {
            "logIndex": 0,
            "rootHash": root.hex(),
            "treeSize": 1,
            "hashes": [],
            "checkpoint": head,
        }
        return said | {
            "verification": {"inclusionProof": proof, "signedEntryTimestamp": b64(promise)}
        }

    def answer(
        self, path: str, headers: Mapping[str, str], asked: dict[str, Any]
    ) -> dict[str, Any]:
        """What Fulcio and Rekor say."""
        if path.endswith("/signingCert"):
            raw = headers["Authorization"].removeprefix("Bearer ")
            claims = jwt.decode(raw, options={"verify_signature": False})
            request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
            public = request.public_key()
            assert isinstance(public, ec.EllipticCurvePublicKey)
            leaf = self.certify(public, claims["email"], claims["iss"])
            chain = [one.public_bytes(_PEM).decode() for one in (leaf, self.ca)]
            return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
        content = asked["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        signatures = [
            {"signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0]}
        ]
        digests = {
            "envelopeHash": content["envelope"].encode(),
            "payloadHash": base64.b64decode(envelope["payload"]),
        }
        hashed = {
            name: {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
            for name, data in digests.items()
        }
        body = {"apiVersion": "0.0.1", "kind": "dsse", "spec": {**hashed, "signatures": signatures}}
        return {"0": self.enter(json.dumps(body).encode())}

    def trust_config(self, url: str) -> str:
        """Addresses and keys, as a client takes them."""
        since = {
            "start": (datetime.now(UTC) - timedelta(days=1)).isoformat().replace("+00:00", "Z")
        }

        def log(key: Key) -> dict[str, Any]:
            public = {
                "rawBytes": b64(spki(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": since,
            }
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": {"keyId": b64(log_id(key))},
            }

        chain = {"certificates": [{"rawBytes": b64(self.ca.public_bytes(_DER))}]}
        authority = {
            "subject": {"organization": "own", "commonName": "own"},
            "uri": url,
            "certChain": chain,
            "validFor": since,
        }
        service = {"url": url, "majorApiVersion": 1, "validFor": since, "operator": "own"}
        services = {name: [service] for name in ("caUrls", "oidcUrls", "rekorTlogUrls")}
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": {
                    "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                    "tlogs": [log(self.log)],
                    "ctlogs": [log(self.certificate_log)],
                    "certificateAuthorities": [authority],
                    "timestampAuthorities": [],
                },
                "signingConfig": {
                    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                    **services,
                    "rekorTlogConfig": {"selector": "ANY"},
                    "tsaUrls": [],
                },
            }
        )

    @contextmanager
    def serving(self, config: Path) -> Iterator[None]:
        """Answer on this machine, and write the addresses into `config`."""
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """A certificate, or an entry of the log."""
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                own.requests.append((self.path, dict(self.headers), asked))
                refused = bool(own.refuse) and own.refuse in self.path
                data = (
                    b'{"message": "closed"}'
                    if refused
                    else json.dumps(own.answer(self.path, self.headers, asked)).encode()
                )
                self.send_response(500 if refused else 201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                """The provider's own page, which the stock tool reads even where it is given a
                token.
                """
                data = json.dumps(
                    dict.fromkeys(
                        ("authorization_endpoint", "token_endpoint"), "https://nowhere.example.org"
                    )
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            config.write_text(self.trust_config(f"http://127.0.0.1:{server.server_port}"))
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
            )
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()
