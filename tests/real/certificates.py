"""Certificates as kubeadm lays them: authorities, and what they sign for servers and clients."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_USAGE = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=True, data_encipherment=False,
    key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
_SIGNS = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=True, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, stem: Path) -> None:
        """`STEM.crt` and `STEM.key`, as kubeadm names and protects them."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_name(stem.name + ".crt").write_bytes(self.certificate)
        write_private(stem.with_name(stem.name + ".key"), self.key)


class Authority:
    """Signs certificates; `pair` is its own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pair = Pair(own.public_bytes(serialization.Encoding.PEM), private_pem(self._key))

    def issue(self, name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = (), client: bool = True) -> Pair:
        """A certificate.

        Args:
            name: the common name, for clients the user.
            groups: the organisations, for clients the user's groups.
            hosts: addresses and names; with any, it is a server's.
            client: it is a client's (too).
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        usages += [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        builder = (
            self._builder(x509.Name(subject), key.public_key())
            .add_extension(_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Pair(signed.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            # Python 3.13 verifies strictly (RFC 5280): without these it trusts nothing.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def service_account_keys() -> tuple[bytes, bytes]:
    """The key that signs tokens of service accounts and its public half, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private_pem(key), public


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PEM, without a passphrase; "EC PRIVATE KEY", which kube-controller-manager's signer wants."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """A file that its owner alone reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


@dataclass(frozen=True)
class Kubeconfig:
    """A kubeconfig with a context a user, all of one API server, certificates within it."""

    server: str
    authority: bytes
    users: dict[str, Pair]
    cluster: str = "kubernetes"

    def write(self, path: Path) -> Path:
        """Write it; the first user's context is the current one. With one user it looks as kubeadm's does."""
        first = next(iter(self.users))
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": self.cluster,
                    "cluster": {"certificate-authority-data": _text(self.authority), "server": self.server},
                }
            ],
            "contexts": [
                {"name": self._context(user), "context": {"cluster": self.cluster, "user": user}} for user in self.users
            ],
            "current-context": self._context(first),
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _text(pair.certificate),
                        "client-key-data": _text(pair.key),
                    },
                }
                for user, pair in self.users.items()
            ],
        }
        write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
        return path

    def _context(self, user: str) -> str:
        return f"{user}@{self.cluster}"


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
