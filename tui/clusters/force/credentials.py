"""A kubeconfig context as the proxy needs it: where its API server is, how to trust it, and who we are there.

It is read as the `kubernetes` client does (`reach.contexts`), and where that differs from kubectl, as kubectl: a token
file is read again when it changes and counts before a token; `proxy-url` counts before the environment; certificates
need not satisfy RFC 5280 to the letter, and any that the authority file holds is trusted; over plain http nothing of
us is sent.
"""

from __future__ import annotations

import base64
import re
import shutil
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from tui.clusters.model import ReachError
from tui.clusters.reach.contexts import FOLDER, Loaded, load_without_files, private_base, server_address
from tui.clusters.reach.private_folder import private_folder
from tui.clusters.reach.wire import last_line, plain

Fields = tuple[tuple[str, str], ...]

_EARLY: Final = 30.0
"""Seconds before their end that credentials are had again: those of a request may be checked after a queue."""
_PAUSE: Final = 10.0
"""Seconds between two runs of a plugin, whatever it says and whatever the server says."""
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LOOPBACK: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Who we are, as one reading of the kubeconfig had it."""

    generation: int
    headers: Fields
    """`Authorization`, or nothing."""
    impersonation: Fields
    """`Impersonate-...` of the context; a request with such fields of its own goes without these."""
    tls: ssl.SSLContext | None
    """With our certificate; None for plain http."""
    identity: tuple[bytes, ...]
    """Tells whether another reading had the same: never to be shown."""


@dataclass(frozen=True, slots=True)
class Relay:
    """An HTTP proxy on the way to the API server. `authorization` is for it, "" for none."""

    host: str
    port: int
    authorization: str

    def __repr__(self) -> str:
        return f"Relay({self.host}:{self.port})"


class Upstream:
    """A context's API server and our credentials there. Thread-safe; shows no credential in repr, errors or logs."""

    name: str
    """The context's name."""
    cluster: str
    """The name of its cluster in the kubeconfig."""
    user: str
    """The name of its user in the kubeconfig; "" for none."""
    namespace: str
    """The context's namespace; "" where it names none."""
    url: str
    """Of the server, as the kubeconfig has it."""
    host: str
    port: int
    path: str
    """What is put before every request's path: `/k8s/clusters/c-1`; "" for most."""
    authority: str
    """The `Host` of every request."""
    server_name: str
    """Whose certificate the server has to have."""
    relay: Relay | None

    def __init__(
        self, context: str = "", kubeconfig: Path | None = None, *, identity: tuple[Path, Path] | None = None
    ) -> None:
        """Reads the kubeconfig and has credentials made (a plugin may run for up to 30 s); asks the server nothing.

        `context` "" is the current one. `identity` is a client certificate and its key (PEM files) that stand in the
        place of the context's own user; its impersonation stays.

        Raises:
            ReachError: no such context, a plugin that is missing or fails, a certificate that cannot be read or has
                expired, a proxy of a kind that we do not speak.
        """
        self._kubeconfig = kubeconfig
        self._own_identity = identity
        self._lock = threading.RLock()
        self._token_file: Path | None = None
        self._token_state: tuple[int, ...] = ()
        self._due = 0.0  # time.time() after which a plugin is asked again; 0: never
        self._asked_again = 0.0
        self._failure: tuple[float, str] = (0.0, "")
        loaded = self._load(context)
        self.name = loaded.name
        self.cluster, self.user = loaded.cluster_name, loaded.user_name
        self.namespace = loaded.namespace
        self._server = loaded.configuration.host.rstrip("/")
        self.url = plain(loaded.configuration.host)
        address = server_address(self.name, loaded.configuration.host)
        self.host, self.port, self._tls = address.hostname or "", _port(address), address.scheme == "https"
        self.path = address.path.rstrip("/")
        self.authority = address.netloc
        self.server_name = str(loaded.configuration.tls_server_name or self.host)
        self.relay = self._relay(loaded)
        self._held = self._made(loaded, 1)

    def __repr__(self) -> str:
        return f"Upstream({self.name}: {self.url})"

    # --- what is in use -------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """Whether `credentials` answers at once, without running a plugin."""
        return not self._due or time.time() < self._due

    def credentials(self) -> Credentials:
        """Those to be used now. Had again when they are about to end, which may take a plugin's 30 s.

        Raises:
            ReachError: they cannot be had again.
        """
        if self._token_file is not None:
            self._look_at_token_file()
        if not self.ready:
            with self._lock:
                if not self.ready:
                    self._read_again()
        return self._held

    def renewed(self, generation: int) -> bool:
        """After a 401 to credentials of that generation: read everything again, and say whether it is other now.

        At most every 10 s; in between it says False, as when nothing changed.

        Raises:
            ReachError: they cannot be had again.
        """
        with self._lock:
            if self._held.generation != generation:
                return True  # another request was first
            if self._asked_again and time.monotonic() - self._asked_again < _PAUSE:
                return False
            self._asked_again = time.monotonic()
            return self._read_again()

    def _read_again(self) -> bool:
        until, said = self._failure
        if time.monotonic() < until:
            raise ReachError(said)
        before = self._held
        try:
            loaded = self._load(self.name)
            if loaded.configuration.host.rstrip("/") != self._server:  # what is new is for there, and goes not to here
                raise ReachError(
                    f"The context {self.name} leads to another server now than when this began: begin again."
                )
            made = self._made(loaded, before.generation + 1)
        except ReachError as error:
            self._failure = (time.monotonic() + _PAUSE, str(error))
            raise
        if made.identity == before.identity:
            return False
        self._held = made  # of a new generation: connections with the old certificate are not used any more
        return True

    # --- reading --------------------------------------------------------------------------------------------
    def _load(self, context: str) -> Loaded:
        return load_without_files(context, self._kubeconfig, own=self._own_identity is None)

    def _made(self, loaded: Loaded, generation: int) -> Credentials:
        certificate, key, token = loaded.certificate, loaded.key, ""
        self._token_file = None
        if self._own_identity is not None:
            certificate, key = (self._bytes_of(file) for file in self._own_identity)
        else:
            keys = loaded.configuration.api_key  # `authorization` before release 36 of the client
            token = str(keys.get("BearerToken") or keys.get("authorization") or "")
            name = loaded.user.get("tokenFile")
            if isinstance(name, str) and name:
                self._token_file = Path(loaded.user_file).parent / name
                self._token_state = self._state_of_token_file()
                token = f"Bearer {self._bytes_of(self._token_file).decode('latin-1').strip()}"
        if not self._tls:
            token, certificate = "", b""
        headers = self._authorization(token)
        self._due = 0.0
        if loaded.expiry is not None:
            self._due = max(loaded.expiry.timestamp() - _EARLY, time.time() + _PAUSE)
        context = self._context(loaded, certificate, key, needed=not headers) if self._tls else None
        return Credentials(
            generation,
            headers,
            _impersonation(self.name, loaded.user) if self._tls else (),
            context,
            (token.encode("latin-1"), certificate, key, loaded.authority),
        )

    def _authorization(self, token: str) -> Fields:
        token = token.strip()
        if not token or token == "Bearer":
            return ()
        if not _VALUE.fullmatch(token):
            raise ReachError(f"The token of context {self.name} holds what no token can hold: log in again.")
        return (("Authorization", token),)

    def _look_at_token_file(self) -> None:
        """Kubernetes renews the token of a service account in its file; while that cannot be read the old one stays."""
        state = self._state_of_token_file()
        if state == self._token_state or not state:
            return
        if not self._lock.acquire(blocking=False):
            return  # it is being read just now, by a thread that may wait for others
        try:
            with suppress(OSError, ReachError):
                if self._token_file is None:
                    return
                headers = self._authorization(f"Bearer {self._token_file.read_bytes().decode('latin-1')}".strip())
                held = self._held
                if headers and headers != held.headers:
                    identity = (headers[0][1].encode("latin-1"), *held.identity[1:])
                    self._held = Credentials(held.generation + 1, headers, held.impersonation, held.tls, identity)
                self._token_state = state
        finally:
            self._lock.release()

    def _state_of_token_file(self) -> tuple[int, ...]:
        file = self._token_file  # another thread may read the kubeconfig again meanwhile
        try:
            found = file.stat() if file else None
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()

    def _bytes_of(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise ReachError(
                f"{plain(file)} of context {self.name} cannot be read ({error.strerror}): correct the kubeconfig or the"
                " file's permissions."
            ) from error

    def _relay(self, loaded: Loaded) -> Relay | None:
        from kubernetes.client import rest

        url, named = loaded.cluster.get("proxy-url"), True
        if not url:
            url, named = loaded.configuration.proxy, False
            bypass: Any = rest.should_bypass_proxies
            if not url or _LOOPBACK.fullmatch(self.host) or bypass(self.url, loaded.configuration.no_proxy or ""):
                return None
        text = str(url) if "://" in str(url) else f"http://{url}"
        where = f"proxy-url of context {self.name}" if named else "proxy of the environment"
        try:
            address = urlsplit(text)
            port = address.port or 80
        except ValueError:
            raise ReachError(f"The {where} is no URL: write http://HOST:PORT.") from None
        if address.scheme != "http" or not address.hostname:
            raise ReachError(
                f"The {where} is one of {plain(address.scheme)}://, which cannot be gone through here: name an"
                " http:// proxy."
            )
        authorization = ""
        if address.username is not None:
            pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return Relay(address.hostname, port, authorization)

    # --- TLS --------------------------------------------------------------------------------------------------
    def _context(self, loaded: Loaded, certificate: bytes, key: bytes, *, needed: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # an answer that was cut must not look ended
        context.set_alpn_protocols(["http/1.1"])
        if not loaded.configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif loaded.authority:
            try:
                # what stands between the certificates may be in any language
                context.load_verify_locations(cadata=loaded.authority.decode("ascii", "ignore"))
            except (ssl.SSLError, ValueError):
                raise ReachError(
                    f"The certificate authority of context {self.name} is no certificate: correct it in the kubeconfig."
                ) from None
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if certificate:
            self._check(certificate, needed)
            self._take(context, certificate, key)
        return context

    def _check(self, certificate: bytes, needed: bool) -> None:
        from cryptography import x509

        try:
            end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
        except ValueError:
            raise ReachError(f"The client certificate of context {self.name} is none: log in again.") from None
        if needed and end < datetime.now(timezone.utc):
            raise ReachError(
                f"The client certificate of context {self.name} expired on {end:%Y-%m-%d %H:%M} UTC: renew it (kubeadm"
                " certs renew), or log in again."
            )

    def _take(self, context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
        """OpenSSL takes both from files only: they are there for a moment, for us alone."""

        def no_password() -> str:
            raise ReachError(
                f"The client key of context {self.name} is encrypted, which kubectl does not take either: decrypt it."
            )

        try:
            folder = private_folder(FOLDER, private_base())
        except OSError as error:
            raise ReachError(f"No private directory can be made in {private_base()} ({error.strerror}).") from error
        try:
            file = folder / "identity.pem"
            file.touch(0o600)
            file.write_bytes(certificate.rstrip() + b"\n" + key)
            context.load_cert_chain(file, password=no_password)
        except ssl.SSLError as error:
            said = "they do not belong together" if "MISMATCH" in str(error) else last_line(error.reason or "")
            raise ReachError(
                f"The client certificate and key of context {self.name} cannot be used ({plain(said) or 'no PEM'}): log"
                " in again."
            ) from None
        except OSError as error:
            raise ReachError(f"{private_base()} cannot be written ({error.strerror}).") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _port(address: SplitResult) -> int:
    return address.port or (443 if address.scheme == "https" else 80)


def _impersonation(context: str, user: Mapping[str, Any]) -> Fields:
    """`as`, `as-uid`, `as-groups`, `as-user-extra` of a kubeconfig's user, which the client leaves out."""
    found: list[tuple[str, str]] = []

    def add(name: str, value: object) -> None:
        text = str(value).encode().decode("latin-1")  # header values are bytes: UTF-8 as client-go sends it
        if not _VALUE.fullmatch(text):
            raise ReachError(f"Context {context} impersonates somebody whose name cannot be sent: correct it.")
        found.append((name, text))

    if user.get("as"):
        add("Impersonate-User", user["as"])
    if user.get("as-uid"):
        add("Impersonate-Uid", user["as-uid"])
    groups = user.get("as-groups")
    for group in groups if isinstance(groups, list) else ():
        add("Impersonate-Group", group)
    extra = user.get("as-user-extra")
    for key, values in extra.items() if isinstance(extra, dict) else ():
        for value in values if isinstance(values, list) else ():
            add(f"Impersonate-Extra-{quote(str(key), safe='!#$&*+-.^_`|~')}", value)
    return tuple(found)
