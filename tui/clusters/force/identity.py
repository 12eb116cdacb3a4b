"""A client certificate for whoever may not bring a trace: the operator's own name and groups, and system:monitoring.

It is asked for by a CertificateSigningRequest for `kubernetes.io/kube-apiserver-client`: admission forbids that signer
system:masters and nothing else (docs/facts.md 2.4), and system:monitoring itself grants reading health and
metrics. Certificate and key are one PEM file (0600) a context under the configuration directory, with a line before
them that says whose they are; they go to no other server than the one that the context named when they were made.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from receiver.store import ownership
from receiver.store.errors import NotOurs
from tui.clusters.force.preconditions import FIRST_MINOR, Preconditions
from tui.clusters.model import ClusterError, ReachError
from tui.clusters.reach.wire import NAME, plain
from tui.config import config_directory

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from tui.clusters.reach.api import Api

SIGNER: Final = "kubernetes.io/kube-apiserver-client"
MONITORING: Final = "system:monitoring"
DAYS: Final = 7
MOST_DAYS: Final = 365
_CSRS: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_LEFT_OUT: Final = ("system:masters", "system:authenticated", "system:unauthenticated")
"""Groups that a certificate must not have, or that every caller has anyway."""
_HEADER: Final = "# k8s-trace-tui identity "
_MOST_BYTES: Final = 256 << 10
_SIGNING_SECONDS: Final = 30.0
_SOON_SECONDS: Final = 60
"""A certificate that ends within so many seconds is not begun with."""

Say = Callable[[str], None]
"""Takes a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that is here. `file` holds it and its key; `until` is its end, in seconds since the epoch."""

    context: str
    server: str
    name: str
    file: Path
    until: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What is asked for: a certificate for `name` in `groups`, valid for so many days."""

    context: str
    name: str
    groups: tuple[str, ...]
    days: int

    def told(self) -> tuple[str, ...]:
        """What it means, in sentences."""
        own = [plain(group, 80) for group in self.groups if group != MONITORING]
        as_now = f" in {', '.join(own)} as now, and" if own else ""
        days = f"{self.days} day{'s' if self.days != 1 else ''}"
        return (
            f"This asks {self.context} for a client certificate as {plain(self.name, 120)},{as_now} in {MONITORING},"
            f" valid for {days}.",
            f"{MONITORING} lets it read /metrics, /livez, /readyz, /healthz and the metrics of nodes, and makes the API"
            " server take the traces of its requests; everything else it may do is what you may do.",
            "It cannot be revoked before it ends: whoever reads the file can do the same until then.",
        )


def grant_of(found: Preconditions, days: int = DAYS) -> Grant:
    """What to ask for.

    Raises:
        ClusterError: it would not help, or whom it should name is not known.
    """
    if found.problem:
        raise ReachError(found.problem)
    if found.honours is False:
        raise ClusterError(
            f"The API server is {found.version}, and none before 1.{FIRST_MINOR} takes a caller's trace, whoever it is:"
            " raise the rate for a while instead, with k8s-trace-tui sampling set 100%."
        )
    if found.caller is None:
        raise ClusterError(
            f"The API server of {found.context} does not tell who we are (SelfSubjectReview), so a certificate would"
            " have no name: turn that API on, or make the request by hand."
        )
    if found.caller.trusted:
        raise ClusterError(
            f"{plain(found.caller.name, 120)} may bring traces already: no certificate is needed, run"
            " k8s-trace-tui trace -- COMMAND."
        )
    groups = [group for group in found.caller.groups if group not in _LEFT_OUT]
    return Grant(found.context, found.caller.name, (*dict.fromkeys(groups), MONITORING), days)


# --- asking for one -----------------------------------------------------------------------------------
def issue(api: Api, grant: Grant, server: str, say: Say, *, patience: float, directory: Path | None = None) -> Identity:
    """Ask for the certificate, approve it where we may, else wait until somebody did, and store it.

    Args:
        api: of the context, as who it is now.
        server: the URL that the context names; the certificate is used for no other.
        say: told the name of the request, and how somebody else approves it.
        patience: seconds until somebody else must have approved.
        directory: where identities are; None is the usual place.

    Raises:
        ClusterError: it was refused, denied or not approved in time, or it cannot be stored. A request that nobody
            approved is taken back.
    """
    place = _file_of(grant.context, directory)
    _make_private(place.parent)
    key, request = _request(grant)
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"{NAME}-{secrets.token_hex(4)}", "labels": {"app.kubernetes.io/name": NAME}},
        "spec": {
            "request": base64.b64encode(request).decode(),
            "signerName": SIGNER,
            "expirationSeconds": grant.days * 86_400,
            "usages": ["client auth"],
        },
    }
    made = api.ask("POST", _CSRS, body)
    name = _text(made, "metadata", "name") or str(body["metadata"]["name"])  # type: ignore[index]
    try:
        certificate = _certificate(api, name, made, grant, say, patience)
    except BaseException:
        with suppress(ClusterError):
            api.ask("DELETE", f"{_CSRS}/{name}", timeout=3.0)
        raise
    return _store(place, grant, server, key, certificate)


def _request(grant: Grant) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # Names of OIDC users may be longer than the 64 characters of X.520, which Kubernetes does not mind.
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group, _validate=False) for group in grant.groups]
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, grant.name, _validate=False))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    return key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _certificate(api: Api, name: str, made: Any, grant: Grant, say: Say, patience: float) -> bytes:
    """The signed certificate (PEM) of a request that was made."""
    seconds = _SIGNING_SECONDS
    if not _approve(api, name, made):
        seconds = patience
        say(
            f"You may not approve it yourself: let somebody who may run `kubectl certificate approve {name}` within"
            f" {patience / 60:.0f} minutes, while this waits."
        )
    until = time.monotonic() + seconds
    while True:
        now = api.ask("GET", f"{_CSRS}/{name}")
        for condition in _conditions(now):
            if condition.get("type") in ("Denied", "Failed"):
                why = plain(condition.get("message") or condition.get("reason") or "no reason given", 200)
                raise ClusterError(
                    f"The certificate request {name} of {grant.context} was refused ({why}): ask whoever did it."
                )
        signed = _text(now, "status", "certificate")
        if signed:
            try:
                return base64.b64decode(signed, validate=True)
            except ValueError as error:
                raise ClusterError(f"The certificate of request {name} is not base64: try again.") from error
        if time.monotonic() >= until:
            raise ClusterError(
                f"Nobody signed the certificate request {name} in {seconds:.0f} s: ask for it again when somebody can"
                " approve it, or see whether the controller manager runs."
            )
        time.sleep(min(1.0, max(0.05, seconds / 50)))


def _approve(api: Api, name: str, made: Any) -> bool:
    """Approve a request; False where we may not."""
    from tui.clusters.reach.api import Refused

    if not isinstance(made, dict):
        return False
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "ApprovedByItsRequester",
        "message": f"{NAME}: a client that may bring traces",
    }
    approved = {**made, "status": {"conditions": [condition]}}
    try:
        api.ask("PUT", f"{_CSRS}/{name}/approval", approved)
    except Refused as refused:
        if refused.status == 403:
            return False
        raise
    return True


def _store(place: Path, grant: Grant, server: str, key: ec.EllipticCurvePrivateKey, certificate: bytes) -> Identity:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        signed = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise ClusterError(f"What {grant.context} signed is no certificate ({plain(error)}): try again.") from error
    if signed.public_key() != key.public_key():
        raise ClusterError(f"What {grant.context} signed is not what was asked for: is there a proxy between?")
    header = {"context": grant.context, "server": server, "name": grant.name}
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    text = (_HEADER + json.dumps(header)).encode() + b"\n" + certificate.strip() + b"\n" + pem
    new = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with suppress(FileNotFoundError):
            new.unlink()
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text)
        os.replace(new, place)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise ClusterError(f"{place} cannot be written ({error.strerror}): make room, and ask again.") from error
    return Identity(grant.context, server, grant.name, place, _until(signed))


# --- one that is here ---------------------------------------------------------------------------------
def stored(
    context: str, server: str, *, directory: Path | None = None, now: float | None = None
) -> tuple[Identity | None, str]:
    """The identity of a context that can be used now, and a sentence on one that is there and cannot, "" else."""
    place = _file_of(context, directory)
    again = "get another with k8s-trace-tui trace --issue-identity"
    try:
        place.lstat()
        handle = ownership.open_ours(place, os.O_RDONLY)
    except NotOurs:
        handle = -1
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link
            return None, ""
        handle = -1
    if handle < 0 or os.fstat(handle).st_mode & 0o077:
        if handle >= 0:
            os.close(handle)
        return None, f"{place} is not a file of yours alone (0600), so it is not used: remove it, and {again}."
    try:
        with open(handle, "rb") as file:
            identity = _read(place, file.read(_MOST_BYTES))
    except (OSError, ValueError, TypeError, KeyError) as error:
        return None, f"{place} cannot be read ({plain(error, 120)}): remove it, and {again}."
    if identity.context != context or identity.server != server:
        return (
            None,
            f"The identity of {plain(context)} was made for {plain(identity.server)}, so it is not used: {again}.",
        )
    now = time.time() if now is None else now
    if identity.until - now < _SOON_SECONDS:
        ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(identity.until))
        return None, f"The identity of {plain(context)} ended on {ended}: {again}."
    return identity, ""


def _read(place: Path, content: bytes) -> Identity:
    from cryptography import x509

    first, _, rest = content.partition(b"\n")
    header: Mapping[str, Any] = json.loads(first.removeprefix(_HEADER.encode()))
    signed = x509.load_pem_x509_certificate(rest)
    return Identity(str(header["context"]), str(header["server"]), str(header["name"]), place, _until(signed))


def _until(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())


# --- where they are -----------------------------------------------------------------------------------
def directory_of_all() -> Path:
    """The usual place of identities."""
    return config_directory() / "identities"


def _file_of(context: str, directory: Path | None) -> Path:
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", context)[:40].lstrip(".") or "context"
    digest = hashlib.sha256(context.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return (directory or directory_of_all()) / f"{slug}-{digest}.pem"


def _make_private(directory: Path) -> None:
    """Raises:
    ClusterError: it cannot be made, or is not ours alone.
    """
    try:
        ownership.make_folder(directory)
        ownership.close_folder(directory)
    except NotOurs as error:
        raise ClusterError(
            f"The directory {directory} is somebody else's, or can be exchanged by others: run this as its owner, or"
            " with sudo -H."
        ) from error
    except OSError as error:
        raise ClusterError(f"The directory {directory} cannot be made ({error.strerror}).") from error


def _conditions(csr: Any) -> list[Mapping[str, Any]]:
    status = csr.get("status") if isinstance(csr, dict) else None
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return [one for one in (conditions or ())[:32] if isinstance(one, dict)]


def _text(value: Any, *path: str) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
