"""TLS for listeners: files checked before gRPC, whose own errors name neither the file nor the reason."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc


class TlsError(Exception):
    """The certificate files cannot be used; str() is one sentence for the operator."""


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Credentials of a gRPC server.

    Args:
        certificate: PEM, the server's certificate first, then its chain.
        key: PEM, without a password.
        client_ca: PEM; when given, senders must show a certificate that it signed.

    Raises:
        TlsError: a file cannot be read, or does not hold what it should.
    """
    chain, secret = _read(certificate), _read(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted as error:
        raise TlsError(f"The key {key} has a password: give one without to --tls-key.") from error
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(
            f"The certificate {certificate} and the key {key} do not fit together, or are not PEM files: check both."
        ) from error
    authority = None
    if client_ca is not None:
        authority = _read(client_ca)
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"{client_ca} holds no certificate in PEM form: check --tls-client-ca.") from error
    return grpc.ssl_server_credentials([(secret, chain)], authority, client_ca is not None)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path} cannot be read ({error.strerror}): check the --tls options.") from error
