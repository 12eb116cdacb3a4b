"""One GET, made by hand or made again: what may be asked, which URL a trace tells of, and the asking itself.

Only what reads once and ends is asked: an object or a list. A watch, a log, and what opens a connection to somebody
else (exec, attach, portforward, proxy) are GETs too, and are not.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from receiver.traces.model import Request, Value
from receiver.traces.semantics import ALIASES, MAX_TARGET, parse_target
from tui.clusters.force.certificates import ADDRESS
from tui.clusters.model import ClusterError
from tui.clusters.reach.wire import plain

if TYPE_CHECKING:
    from tui.clusters.force.proxy import Proxy

AGENT: Final = "trace-get (k8s-trace-tui)"
"""Not one that begins with our name: those are our own requests, which the list hides as noise."""
SECONDS: Final = 75.0
"""For the answer to go on coming; the API server itself ends a request after 60 s."""
_KEPT: Final = 64 << 10
"""Bytes of an error's body that are read for its message."""
_WHOLE: Final = frozenset(("", "status", "scale", "ephemeralcontainers", "approval", "finalize", "resize"))
"""Subresources that are a view of their object: a GET of those answers and ends."""
_WHY_NOT: Final = {
    "watch": "a watch lasts as long as its client likes",
    "proxy": "a proxied request goes on to a pod, service or node, where a GET may do anything",
    "exec": "it would run a command in a container",
    "attach": "it would attach to a running container",
    "portforward": "it would open a tunnel into a pod",
    "log": "a log may not end, and says nothing more about the API server the second time",
}
_PROPER: Final = re.compile(r"/[!-\"$-~]*")  # no blank, no #, nothing beyond ASCII
_DOTS: Final = re.compile(r"//|/\.{1,2}(?:/|$)")
_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@-._~"


class NotAsked(ClusterError):
    """It is not asked; str() says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A GET of `target` (path and query). `remark` is a sentence on what of the first request is not known, or ""."""

    target: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: `code` 0 where nothing did, `size` bytes of body, and the `message` of an error."""

    code: int
    size: int = 0
    message: str = ""


def checked(target: str, method: str = "GET") -> str:
    """The target, where it is one that is asked.

    Raises:
        NotAsked: it is no GET of an object or a list, or no proper path.
    """
    facts = parse_target(method, target)
    about = plain(" ".join(filter(None, (facts.verb, facts.resource or facts.detail, facts.name))), 80)
    if method.upper() != "GET":
        raise NotAsked(
            f"A {plain(method, 16).upper() or 'request without a method'} is not repeated ({about}): only a GET of an"
            " object or a list changes nothing."
        )
    path = target.partition("?")[0]
    if not _PROPER.fullmatch(target) or len(target) > MAX_TARGET or _DOTS.search(path):
        raise NotAsked(f"{plain(target, 80)} is no path of the API server: write it as /api/v1/nodes.")
    why = _WHY_NOT.get(facts.verb) or _WHY_NOT.get(facts.subresource)
    if why:
        raise NotAsked(f"Only a get or list is traced like this ({about}): {why}; trace a command that does it.")
    if facts.resource and (facts.verb not in ("get", "list") or facts.subresource not in _WHOLE):
        what = plain("/".join(filter(None, (facts.resource, facts.subresource))), 80)
        raise NotAsked(f"Only a get or list is traced like this: what a GET of {what} does is not known.")
    return target


def why_not(request: Request | None) -> str:
    """Why the request of a trace is not repeated, as far as the list knows, a sentence; "" where it may be."""
    if request is None:
        return "There is no API request in this trace that could be repeated."
    verb = plain(request.verb, 20)
    if why := _WHY_NOT.get(request.verb) or _WHY_NOT.get(request.subresource):
        return f"Only a get or list is repeated, not this {verb}: {why}."
    if request.verb not in ("get", "list"):
        return f"Only a get or list is repeated: this {verb or 'request'} may change something."
    return ""


def again(name: str, attributes: Mapping[str, Value], request: Request) -> Ask:
    """The request that a trace tells of, to be made again.

    Args:
        name: of its SERVER span, which begins with the method since 1.31.
        attributes: of that span.
        request: what is known of it from all spans.

    Raises:
        NotAsked: it is none that is repeated, or its URL is not known.
    """
    method = _text(attributes, "method") or name.partition(" ")[0]
    if why := why_not(request):  # whatever the URL looks like
        raise NotAsked(why)
    target, remark = _text(attributes, "target"), ""
    if target.partition("://")[0] in ("http", "https"):  # absolute form, as a proxy is asked
        target = "/" + target.partition("://")[2].partition("/")[2]
    if not target:
        target, query = _text(attributes, "path"), _text(attributes, "query")
        known = "?" in target or bool(query)
        if not target and request.path:
            target, query, known = request.path, "", False
        if not target:
            raise NotAsked("The URL of this request is not known: its span says neither path nor target.")
        if "?" not in target:
            target = quote(target, _PATH_CHARACTERS) + (f"?{query}" if query else "")
        if not known:
            remark = "Its span does not tell the query, so it is asked without one"
            remark += ": perhaps for more than the first time." if request.verb == "list" else "."
    checked(target, method)
    if not remark and re.search(r"[?&]continue=.", target):
        remark = "It goes on where another list stopped, and the API server may have forgotten that place."
    return Ask(target, remark)


def elsewhere(instance: str, instances: frozenset[str], context: str) -> str:
    """Why a request must not be repeated with a context: its API server is none of that cluster's. "" where it is one,
    or that is not known.

    Args:
        instance: `service.instance.id` of who served it.
        instances: those that the context's cluster knows.
        context: its name.
    """
    if not instance.startswith("apiserver-") or not instances or instance in instances:
        return ""
    few = ", ".join(sorted(instances)[:3])
    return (
        f"This request was served by {plain(instance, 60)}, and the cluster of context {context} has {plain(few, 200)}:"
        " start with the --context of its cluster."
    )


def _text(attributes: Mapping[str, Value], concept: str) -> str:
    for key in ALIASES[concept]:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


class Get:
    """One GET through a proxy that has started. Made and run in a worker thread; `stop` from any."""

    def __init__(self, proxy: Proxy, target: str, agent: str = AGENT) -> None:
        self._proxy = proxy
        self._agent = agent
        self._target = target
        self._connection: http.client.HTTPSConnection | None = None
        self._stopped = threading.Event()

    def run(self) -> Answer:
        """Ask, and read all of the answer, of which only an error's message is kept: it may hold secrets."""
        context = ssl.create_default_context(cadata=self._proxy.authority.decode("ascii"))
        self._connection = connection = http.client.HTTPSConnection(
            ADDRESS, self._proxy.port, timeout=SECONDS, context=context
        )
        code = size = 0
        head = bytearray()
        try:
            if not self._stopped.is_set():
                headers = {
                    "Authorization": f"Bearer {self._proxy.token}",
                    "Accept": "application/json",
                    "User-Agent": self._agent,
                }
                connection.request("GET", self._target, headers=headers)
                response = connection.getresponse()
                code = response.status
                while piece := response.read(1 << 16):
                    size += len(piece)
                    if code >= 400 and len(head) < _KEPT:
                        head += piece
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = "it was stopped" if self._stopped.is_set() else plain(error) or type(error).__name__
            return Answer(code, size, f"The answer did not come to its end ({said}).")
        finally:
            connection.close()
        return Answer(code, size, _message(bytes(head)))

    def stop(self) -> None:
        """Ask no further. Does not wait."""
        self._stopped.set()
        connection = self._connection
        plug = connection.sock if connection is not None else None
        if isinstance(plug, socket.socket):
            with suppress(OSError):
                plug.shutdown(socket.SHUT_RDWR)


def _message(body: bytes) -> str:
    """What a Kubernetes Status says, "" for anything else."""
    try:
        found: Any = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return plain(message, 400) if isinstance(message, str) else ""
