"""A throw-away authority and the proxy's own certificate by it. Neither key is ever in a file that stays."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import ssl
from typing import Final

from tui.clusters.reach.contexts import FOLDER, private_base
from tui.clusters.reach.private_folder import private_folder

ADDRESS: Final = "127.0.0.1"
_DAYS: Final = 30
"""A command that opens connections after that (a watch does not) is refused by its own checks."""


def throw_away() -> tuple[ssl.SSLContext, bytes]:
    """What a server at 127.0.0.1 answers with, and the certificate (PEM) that its clients have to trust.

    Raises:
        OSError: there is no place for the key, where OpenSSL has to read it from for a moment.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address(ADDRESS))
    signer = ec.generate_private_key(ec.SECP256R1())  # forgotten as this returns
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k8s-trace-tui throw-away")])

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
        )  # fmt: skip

    only_here = x509.NameConstraints([x509.IPAddress(ipaddress.ip_network(f"{ADDRESS}/32"))], None)
    authority = (
        begun(issuer, signer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(only_here, critical=True)
        .sign(signer, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    own = (
        begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k8s-trace-tui proxy")]), key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    folder = private_folder(FOLDER, private_base())
    try:
        file = folder / "proxy.pem"
        file.touch(0o600)
        file.write_bytes(own.public_bytes(pem) + secret)
        context.load_cert_chain(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return context, authority.public_bytes(pem)
