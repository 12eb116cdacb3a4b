"""The contexts of a kubeconfig, read as the `kubernetes` client reads them: certificates, proxies, credential plugins.

The client's messages can hold a whole entry of the file, its token too: what is told here is cut before that.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from receiver.store.ownership import why_not_believed
from tui.clusters.model import ReachError
from tui.clusters.reach.plugins import quiet_plugins
from tui.clusters.reach.private_folder import private_folder
from tui.clusters.reach.wire import last_line, plain

FOLDER: Final = "k8s-trace-tui-trace"
"""How directories with credentials begin, below `private_base`."""
_ENTRY: Final = re.compile(r"/?\{.*", re.DOTALL)
_LOADING: Final = threading.RLock()  # the client remembers its files by content, for all threads
_kept: Path | None = None
"""This process's directory for what the client keeps in files until the program ends."""


@dataclass(frozen=True, slots=True)
class ContextName:
    """A context of the kubeconfig, and the cluster that it names there."""

    name: str
    cluster: str
    current: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """A context: the client's configuration with its credentials, and the entries of the file that it comes from."""

    name: str
    cluster_name: str
    user_name: str
    namespace: str
    configuration: Any = field(repr=False)
    """A `kubernetes.client.Configuration`."""
    cluster: Mapping[str, Any] = field(repr=False)
    user: Mapping[str, Any] = field(repr=False)
    user_file: str
    """The file that holds the user's entry: paths in it are relative to its directory."""
    expiry: datetime | None
    """When the credentials of a plugin end, where it says so."""
    secure: bool
    """The server is one of https://. Where it is not, `configuration` has no credentials."""
    authority: bytes = b""
    """PEM, as the next two; of `load_without_files` only. b"" for none."""
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)


def private_base() -> Path:
    """Where directories with credentials are made: in memory where the system has such a place for each user."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    with suppress(OSError):
        if base.is_absolute() and base.is_dir() and base.stat().st_uid == os.getuid() and os.access(base, os.W_OK):
            return base
    return Path(tempfile.gettempdir())


def kubeconfig_file(kubeconfig: Path | None = None) -> str:
    """The file, or several with colons between: what was named, else KUBECONFIG, else ~/.kube/config."""
    if kubeconfig is not None:
        return str(kubeconfig)
    return os.environ.get("KUBECONFIG") or str(_at_home())


def _at_home() -> Path:
    return Path("~/.kube/config").expanduser()


def _check_home(kubeconfig: Path | None) -> None:
    """A kubeconfig says what is run to log in. Under sudo, or after `su`, the home may be somebody else's: what lies
    there is not what root named. What KUBECONFIG names is.

    Raises:
        ReachError: root would read somebody else's.
    """
    if kubeconfig is not None or os.environ.get("KUBECONFIG") or os.geteuid() != 0:
        return
    try:
        why = why_not_believed(_at_home())
    except OSError as error:
        why = f"it cannot be looked at ({error.strerror})"
    if why:
        raise ReachError(
            f"Root does not read the kubeconfig {plain(str(_at_home()))}, because {plain(why)}: name it by KUBECONFIG"
            " if you trust it, or run this with root's home (sudo -H)."
        )


def contexts(kubeconfig: Path | None = None) -> tuple[ContextName, ...]:
    """The contexts of the kubeconfig (KUBECONFIG, ~/.kube/config), () where there is none.

    Raises:
        ReachError: it cannot be read.
    """
    _check_home(kubeconfig)
    file = kubeconfig_file(kubeconfig)
    merger = _merged(file)
    if merger is None:
        return ()
    now = _current(merger)
    listed = merger.config.value.get("contexts")
    names = ((_text(one, "name"), _text(one, "context", "cluster")) for one in listed or ())
    return tuple(ContextName(name, cluster, name == now) for name, cluster in names if name)


def load(context: str, kubeconfig: Path | None = None, *, own: bool = True) -> Loaded:
    """A context with its credentials; "" is the current one. Asks no server; a plugin may run for up to 30 s. With
    `own` False the context's user does not count, and no plugin runs. Nor do they for a server of http://, as with
    kubectl: who listens there, and who reads along, nobody knows, on loopback either.

    The client writes certificates and keys that stand in the kubeconfig to files, until the program ends: into a
    directory of ours, which the next start takes away where this program is killed.

    Raises:
        ReachError: there is no such context, or its credentials cannot be had.
    """
    with _LOADING:
        return _loaded(context, kubeconfig, None, own)


def load_without_files(context: str, kubeconfig: Path | None = None, *, own: bool = True) -> Loaded:
    """The same with what the client's files held, and no file left. With `own` False the context's user does not count,
    and no plugin runs.

    Raises:
        ReachError: as `load`, or a file of the context cannot be read.
    """
    from kubernetes.config import kube_config

    with _LOADING:
        folder = _private()

        def remove() -> None:
            shutil.rmtree(folder, ignore_errors=True)

        atexit.register(remove)  # of a thread that the program's end cuts short, nothing else would run
        try:
            found = _loaded(context, kubeconfig, folder, own)
            configuration = found.configuration
            pem = [_content(context, name) for name in (
                configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file
            )]  # fmt: skip
            return replace(found, authority=pem[0], certificate=pem[1], key=pem[2])
        finally:
            remove()
            atexit.unregister(remove)
            known: dict[str, str] = kube_config._temp_files
            for content in [one for one, file in known.items() if Path(file).parent == folder]:
                del known[content]  # the credentials themselves are its key


def server_address(context: str, url: str) -> SplitResult:
    """The URL of a context's API server.

    Raises:
        ReachError: it is none of http:// or https://, or holds more than an address and a path.
    """
    try:
        address = urlsplit(url)
        _ = address.port
    except ValueError:
        address = urlsplit("")
    netloc = address.netloc
    if address.scheme not in ("http", "https") or not address.hostname or not netloc.isascii() or "@" in netloc:
        shown = plain(re.sub(r"//[^/@]*@", "//", url))
        raise ReachError(f"The server {shown} of context {context} is no https:// URL: correct it.")
    if not re.fullmatch(r"[!-~]*", address.path) or address.query or address.fragment:
        raise ReachError(f"The server {plain(url)} of context {context} has no proper path: correct it.")
    return address


def _content(context: str, file: str | None) -> bytes:
    try:
        return Path(file).read_bytes() if file else b""
    except OSError as error:
        raise ReachError(
            f"{plain(file)} of context {plain(context)} cannot be read ({error.strerror}): correct the kubeconfig or"
            " the file's permissions."
        ) from error


def _loaded(context: str, kubeconfig: Path | None, folder: Path | None, own: bool) -> Loaded:
    _check_home(kubeconfig)
    file = kubeconfig_file(kubeconfig)
    merger = _merged(file)
    if merger is None:
        raise ReachError(f"There is no kubeconfig {plain(file)}: name one by KUBECONFIG.")
    wanted = context or _current(merger)
    known = [_text(one, "name") for one in merger.config.value.get("contexts") or ()]
    if not wanted:
        raise ReachError(f"The kubeconfig {plain(file)} has no current context: name one of {_few(known)}.")
    if wanted not in known:
        raise ReachError(f"The kubeconfig {plain(file)} has no context {plain(wanted)}: it has {_few(known)}.")
    try:
        return _load(merger, wanted, folder, own)
    except ReachError:
        raise
    except Exception as error:  # noqa: BLE001 - PyYAML, the client and what it calls raise anything
        said = _said(error)
        # from None: what the client says may hold the file's credentials, and would be shown as the cause
        raise ReachError(f"The context {plain(wanted)} of {plain(file)} cannot be used ({said}): correct it.") from None


def _load(merger: Any, context: str, folder: Path | None, own: bool) -> Loaded:
    from kubernetes.client.configuration import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader

    configuration = Configuration()
    make: Any = KubeConfigLoader
    loader = make(
        merger.config,
        active_context=context,
        config_base_path=None,  # paths are relative to the file that they stand in
    )
    entry = loader.current_context["context"]
    user_name, cluster_name = _text(entry, "user"), _text(entry, "cluster")
    cluster, _ = _entry(merger, "clusters", cluster_name)
    user, user_file = _entry(merger, "users", user_name)
    if folder is None and any(key.endswith("-data") or key == "exec" for key in (*cluster, *user)):
        folder = _folder_kept()
    loader._temp_file_path = str(folder) if folder else None
    if user_name and not user_file:
        raise ReachError(f"The context {plain(context)} names the user {user_name}, which its kubeconfig lacks.")
    address = server_address(plain(context), str(cluster.get("server") or configuration.host))
    secure = address.scheme == "https"
    if cluster.get("server"):
        cluster["server"] = address.geturl()  # the client looks for `https` in small letters
    if not own or not secure:
        loader._user = {}  # as it is for a context without a user: nothing to be authenticated with
    loader._refresh_oidc = _no_renewal(context)
    try:
        with quiet_plugins() as said:
            loader.load_and_set(configuration)
    finally:
        if folder is not None and folder == _kept:
            with suppress(OSError):  # something is in it
                folder.rmdir()
    if said:
        plugin = _text(user, "exec", "command")
        if plugin and "[Errno 2]" in said[-1]:
            hint = plain(" ".join(_text(user, "exec", "installHint").split()), 300).rstrip(".")
            told = f" ({hint})" if hint else ""
            raise ReachError(
                f"The credential plugin {plugin} of context {plain(context)} is not here: install it{told}, or have its"
                " directory in PATH."
            )
        raise ReachError(
            f"The credentials of context {plain(context)} cannot be had ({_cut(said[-1])}), and nothing may ask for"
            " them here: log in first, as with kubectl."
        )
    _go_through(context, configuration)
    expiry = getattr(loader, "expiry", None)
    return Loaded(
        context,
        cluster_name,
        user_name,
        _text(entry, "namespace"),
        configuration,
        cluster,
        user,
        user_file,
        expiry if isinstance(expiry, datetime) else None,
        secure,
    )


def _go_through(context: str, configuration: Any) -> None:
    """Tell the client how the proxy on the way, if there is one, knows us: it takes the address alone.

    Raises:
        ReachError: it is one of a kind that cannot be gone through.
    """
    from kubernetes.client import rest
    from urllib3.util import make_headers

    url = configuration.proxy
    bypass: Any = rest.should_bypass_proxies
    if not url or bypass(configuration.host, no_proxy=configuration.no_proxy or ""):
        return
    try:
        address = urlsplit(url if "://" in url else f"http://{url}")
        _ = address.port
    except ValueError:
        raise ReachError(f"The proxy of context {plain(context)} is no URL: write http://HOST:PORT.") from None
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ReachError(
            f"The proxy of context {plain(context)} is one of {plain(address.scheme)}://, which cannot be gone through"
            " here: name an http:// proxy."
        )
    if address.username is not None and not configuration.proxy_headers:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        configuration.proxy_headers = make_headers(proxy_basic_auth=pair)


def _no_renewal(context: str) -> Callable[[Any], None]:
    """In the place of the client's renewal of an `oidc` login. That sends its secrets to wherever an answer says that
    it may not have checked, follows redirects with them, and loses the token that is next."""

    def refuse(_provider: Any) -> None:
        raise ReachError(
            f"The login of context {plain(context)} has ended: run `kubectl --context {plain(context)} get --raw"
            " /version` once, which renews it in the kubeconfig."
        )

    return refuse


def _private() -> Path:
    try:
        return private_folder(FOLDER, private_base())
    except OSError as error:
        raise ReachError(f"No private directory can be made in {private_base()} ({error.strerror}).") from error


def _folder_kept() -> Path:
    global _kept
    if _kept is None or not _kept.is_dir():
        _kept = _private()
        atexit.register(shutil.rmtree, _kept, ignore_errors=True)
    return _kept


def _merged(file: str) -> Any:
    """The client's merger of all files; None where none of them is there."""
    from kubernetes.config.kube_config import KubeConfigMerger

    try:
        if not any(Path(one).expanduser().exists() for one in file.split(os.pathsep) if one):
            return None
        make: Any = KubeConfigMerger
        merger = make(file)
        if not isinstance(merger.config.value, dict):
            raise ValueError("it is no mapping")
        return merger
    except Exception as error:  # noqa: BLE001 - PyYAML, the client and what it calls raise anything
        raise ReachError(f"The kubeconfig {plain(file)} cannot be read ({_said(error)}): correct it.") from None


def _current(merger: Any) -> str:
    """As kubectl: of several files the first that names one, where the client takes the last."""
    for path in merger.paths:
        name = _text(merger.config_files[path], "current-context")
        if name:
            return name
    return ""


def _entry(merger: Any, kind: str, name: str) -> tuple[dict[str, Any], str]:
    for one in merger.config.value.get(kind) or ():
        if _text(one, "name") == name:
            found = one.value.get(kind.removesuffix("s"))
            return (found if isinstance(found, dict) else {}), str(one.path)
    return {}, ""


def _text(value: Any, *path: str) -> str:
    for key in path:
        value = value.value if hasattr(value, "value") else value
        value = value.get(key) if isinstance(value, dict) else None
    return plain(value, 253) if isinstance(value, str) else ""


def _few(names: list[str]) -> str:
    return plain(", ".join(names[:8])) or "none"


def _cut(text: str) -> str:
    return _ENTRY.sub("", text).rstrip(". ")


def _said(error: Exception) -> str:
    return plain(last_line(_cut(str(error)))) or type(error).__name__
