"""The API server's tracing configuration file: read and checked by the server's own rules, edited as text, made.

Sources: component-base `tracing/api/v1/config.go` (rate, endpoint), apiserver `pkg/server/options/tracing.go`
(decoding). The words of an error are those that the server would log before it exits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tui.clusters.endpoint import FALLBACK
from tui.clusters.model import PlanRefused
from tui.clusters.rates import MILLION
from tui.clusters.versions import GROUP, KIND, ApiserverRules
from tui.clusters.yaml_text import Leaf, YamlText

RATE: Final = "samplingRatePerMillion"
ENDPOINT: Final = "endpoint"

_OURS: Final = "# Written by k8s-trace-tui; `k8s-trace-tui sampling off` takes it away again."
_FILLED: Final = "# Written by k8s-trace-tui into a file that was empty."
_AS_MADE: Final = re.compile(
    rf"{re.escape(_OURS)}\napiVersion: \S+\nkind: \w+\nendpoint: .*\nsamplingRatePerMillion: \d+\n".encode()
)
_READ: Final = "failed to read tracing config: unable to decode tracing configuration data: "
_VALIDATE: Final = "failed to validate tracing configuration: "
_FIELDS: Final = frozenset({"apiVersion", "kind", RATE, ENDPOINT})
_INT: Final = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o?[0-7_]*|0b[01_]+|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
# What go-yaml takes as something else than a string although ruamel's YAML 1.2 does not.
_NO_STRING: Final = re.compile(r"(?i)yes|no|on|off|y|n|true|false")


class BadTracing(PlanRefused):
    """The API server would not start with this file; the sentence holds what it would log."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """What a file says: `per_million` None and `endpoint` "" where it says nothing. `warnings` are sentences on what
    the server accepts though it cannot be meant."""

    per_million: int | None
    endpoint: str
    warnings: tuple[str, ...] = ()


def read(path: str, content: bytes, rules: ApiserverRules | None) -> Tracing:
    """A file as a server with these rules reads it; None (version unknown): as the most lenient one.

    Raises:
        BadTracing: that server would exit.
        PlanRefused: it cannot be told (no YAML that is read here).
    """
    if not re.sub(rb"(?m)^\s*(#.*|---.*|\.\.\.)?\s*$", b"", content.removeprefix(b"\xef\xbb\xbf")).strip():
        raise BadTracing(f"{path} is empty: {_READ}Object 'Kind' is missing in 'null'.")
    text = YamlText(path, content)
    if not isinstance(text.tree, dict):
        raise _bad(text, 1, f"{_READ}couldn't get version/kind; json parse error")
    for key in ("kind", "apiVersion"):
        if not text.words((key,)):
            name = "Kind" if key == "kind" else key
            raise _bad(text, text.line((key,)), f"{_READ}Object '{name}' is missing")
    kind, api_version = text.words(("kind",)), text.words(("apiVersion",))
    accepted = rules.accepted if rules else ("v1alpha1", "v1beta1", "v1")
    if kind != KIND or api_version not in [f"{GROUP}/{version}" for version in accepted]:
        at = ("kind",) if kind != KIND else ("apiVersion",)
        wrong = f'no kind "{kind[:80]}" is registered for version "{api_version[:80]}" in scheme'
        raise _bad(text, text.line(at), f"{_READ}{wrong} (accepted: {', '.join(accepted)} of {GROUP})")
    warnings: list[str] = []
    for key in text.tree:
        if key in _FIELDS:
            continue
        if rules is not None and rules.strict:
            raise _bad(text, text.line((key,)), f'{_READ}strict decoding error: unknown field "{key[:80]}"')
        warnings.append(f"{path}, line {text.line((key,))}: the field {key[:80]!r} is unknown and ignored.")
    rate, endpoint = _rate(text), _endpoint(text)
    if rate is not None and not 0 <= rate <= MILLION:
        rule = "less than or equal to one million" if rate > 0 else "positive"
        why = f"{RATE}: Invalid value: {rate}: sampling rate per million must be {rule}"
        raise _bad(text, text.line((RATE,)), _VALIDATE + why)
    problem = endpoint_problem(endpoint) if endpoint is not None else ""
    if problem:
        raise _bad(text, text.line((ENDPOINT,)), f'{_VALIDATE}endpoint: Invalid value: "{endpoint}": {problem}')
    line = text.line((ENDPOINT,))
    warnings += [f"{path}, line {line}: {warning}" for warning in endpoint_warnings(endpoint or "")]
    return Tracing(rate, endpoint or "", tuple(warnings))


def made(per_million: int, endpoint: str, rules: ApiserverRules, *, into: bool = False) -> bytes:
    """A new file for a server with these rules; `into` one of somebody else's, which stays when tracing goes."""
    lines = [
        _FILLED if into else _OURS,
        f"apiVersion: {rules.api_version}",
        f"kind: {KIND}",
        f"{ENDPOINT}: {endpoint or FALLBACK}",
    ]
    if endpoint and not re.fullmatch(r"(?:[A-Za-z][A-Za-z0-9./-]*|\d+(?:\.\d+){3}):[A-Za-z0-9./_-]+", endpoint):
        lines[3] = f"{ENDPOINT}: '{endpoint}'"
    return "\n".join([*lines, f"{RATE}: {per_million}", ""]).encode()


def ours(content: bytes) -> bool:
    """Whether we made this file where none was, as its first line says. It may have been edited since: `as_made`."""
    return content.startswith(f"{_OURS}\n".encode())


def as_made(content: bytes) -> bool:
    """Whether this is a file that we made where none was, with nothing in it but what we write."""
    return _AS_MADE.fullmatch(content) is not None


def edited(path: str, content: bytes, per_million: int, endpoint: str = "") -> bytes:
    """The same file with that rate and, unless it is "", that endpoint; nothing else in it moves.

    Raises:
        PlanRefused: it is written in a way that is not edited.
    """
    text = YamlText(path, content)
    if not isinstance(text.tree, dict):
        raise text.refusal(1, "this is no TracingConfiguration, so it is not edited.")
    now = text.get((RATE,))
    if now is None:
        text = text.add((), RATE, per_million)
    elif _whole(now) != per_million:
        blank = isinstance(now, Leaf) and now.tag == "null" and not now.text
        text = text.fill((RATE,), per_million) if blank else text.replace_number((RATE,), per_million)
    if endpoint:
        old = text.get((ENDPOINT,))
        if old is None:
            text = text.add((), ENDPOINT, endpoint)
        elif isinstance(old, Leaf) and old.tag == "null" and not old.text:
            text = text.fill((ENDPOINT,), endpoint)
        elif old != Leaf("str", endpoint):
            text = text.replace((ENDPOINT,), endpoint)
    return text.content


def endpoint_of(path: str, content: bytes) -> str:
    """The endpoint in a file that is broken otherwise, "" where none can be read there that would do."""
    try:
        said = YamlText(path, content).words(("endpoint",), "")
        if said:
            check_wished(said)
    except PlanRefused:
        return ""
    return said


def endpoint_problem(endpoint: str) -> str:
    """Why the API server does not start with this endpoint, "" if it does: Go's `url.Parse` and three schemes."""
    url = endpoint if "//" in endpoint else f"dns://{endpoint}"
    if any(character < " " or character == "\x7f" for character in url):
        return "net/url: invalid control character in URL"
    if url.startswith(":"):
        return f'parse "{url}": missing protocol scheme'
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    scheme = match[1].lower() if match else ""
    rest = (url[match.end() :] if match else url).partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        authority = rest[2:].partition("/")[0].rpartition("@")[2]
        problem = _host_problem(authority)
        if problem:
            return f'parse "{url}": {problem}'
    if scheme not in ("dns", "unix", "unix-abstract"):
        return (
            f"unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  "
            "See https://github.com/grpc/grpc/blob/master/doc/naming.md"
        )
    return ""


def endpoint_warnings(endpoint: str) -> tuple[str, ...]:
    """What is wrong with an endpoint that the API server accepts: sentences, () for nothing."""
    if not endpoint:
        return ()
    if endpoint.lower().startswith("dns://"):
        authority, _, target = endpoint[6:].partition("/")
        if authority and not target:
            return (
                f"the endpoint {endpoint!r} sends nothing: gRPC takes {authority} as the DNS server to ask and is left "
                f"without a name; write {authority} alone.",
            )
        bare = target
    elif re.match(r"unix(-abstract)?:", endpoint, re.I):
        if "//" not in endpoint:
            return (f"the endpoint {endpoint!r} lacks slashes; write unix:///path.",)
        return ()
    else:
        bare = endpoint
    if not re.search(r":\d{1,5}$", bare):
        return (f"the endpoint {endpoint!r} names no port, and gRPC takes 443 then; write {bare.rstrip(':')}:4317.",)
    if int(bare.rpartition(":")[2]) not in range(1, 65536):
        return (f"the endpoint {endpoint!r} has a port that does not exist; write one from 1 to 65535.",)
    if re.search(r"\.svc(\.|:|$)", bare):
        return (
            f"the endpoint {endpoint!r} is a Service name, and the API server asks the node's resolver, which does not "
            "know it as a rule; write an address.",
        )
    return ()


def check_wished(endpoint: str) -> None:
    """Refuse an endpoint that the API server does not start with, or that can lead nowhere.

    Raises:
        PlanRefused: the sentence says how to write it.
    """
    problem = endpoint_problem(endpoint)
    if problem:
        way_out = "write host:port, or unix:///path"
        raise PlanRefused(f"The API server would not start with the endpoint {endpoint[:120]!r}: {problem}; {way_out}.")
    nowhere = [warning for warning in endpoint_warnings(endpoint) if "Service name" not in warning]
    if nowhere:
        raise PlanRefused(nowhere[0][0].upper() + nowhere[0][1:])


def _host_problem(host: str) -> str:
    port = ""
    if host.startswith("["):
        closing = host.rfind("]")
        if closing < 0:
            return "missing ']' in host"
        port = host[closing + 1 :]
    elif ":" in host:
        port = host[host.rindex(":") :]
    if port and not re.fullmatch(r":[0-9]*", port):
        return f'invalid port "{port}" after host'
    bad = re.search(r"[ \\^`{|}]", host)
    if bad:
        return f'invalid character "{bad[0]}" in host name'
    escape = re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", host)
    return f'invalid URL escape "{escape[0]}"' if escape else ""


def _rate(text: YamlText) -> int | None:
    now = text.get((RATE,))
    if now is None or (isinstance(now, Leaf) and now.tag == "null"):
        return None
    whole = _whole(now)
    if whole is None or not -(1 << 31) <= whole < 1 << 31:
        kind = "object" if isinstance(now, dict) else "array" if isinstance(now, list) else now.tag
        kind = {"str": "string", "float": "number", "int": "number"}.get(kind, kind)
        why = f"json: cannot unmarshal {kind} into Go struct field {KIND}.{RATE} of type int32"
        raise _bad(text, text.line((RATE,)), _READ + why)
    return whole


def _endpoint(text: YamlText) -> str | None:
    now = text.get((ENDPOINT,))
    if now is None or (isinstance(now, Leaf) and now.tag == "null"):
        return None
    plain = isinstance(now, Leaf) and text.plain((ENDPOINT,))
    if not isinstance(now, Leaf) or now.tag != "str" or (plain and _NO_STRING.fullmatch(now.text)):
        why = f"json: cannot unmarshal into Go struct field {KIND}.{ENDPOINT} of type string"
        raise _bad(text, text.line((ENDPOINT,)), _READ + why)
    return now.text


def _whole(at: object) -> int | None:
    """A number as go-yaml reads it, where it is a whole one."""
    if not isinstance(at, Leaf) or at.tag not in ("int", "float"):
        return None
    text = at.text.replace("_", "")
    if _INT.fullmatch(at.text):
        sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
        # An old octal number (`010`) is one in Go, too.
        base = 8 if re.fullmatch(r"0[0-7]+", digits) else 0
        try:
            return sign * int(digits, base)
        except ValueError:
            return None
    if _FLOAT.fullmatch(at.text):
        number = float(text)
        return int(number) if number.is_integer() else None
    return None


def _bad(text: YamlText, line: int, why: str) -> BadTracing:
    return BadTracing(f"{text.path}, line {line}: the API server would not start with it: {why}.")
