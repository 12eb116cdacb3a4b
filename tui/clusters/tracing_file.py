"""The API server's tracing file: read with the server's own rules, made, and edited so that no other byte moves.

A file that the server does not accept keeps it from starting, so everything is checked before it is written (facts:
kubernetes-tracing 1.2, 1.3; static-pod-rollout 5).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tui.clusters.model import PlanRefused
from tui.clusters.versions import ApiServer

MOST_BYTES: Final = 64 << 10
GROUP: Final = "apiserver.config.k8s.io"
_FIELDS: Final = ("apiVersion", "kind", "endpoint", "samplingRatePerMillion")
_SCHEMES: Final = ("dns", "unix", "unix-abstract")


@dataclass(frozen=True, slots=True)
class TracingFile:
    """What a file says: `endpoint` "" and `per_million` None are not set (then nothing is sampled by itself)."""

    api_version: str
    endpoint: str
    per_million: int | None
    warnings: tuple[str, ...] = ()


def read(content: bytes, server: ApiServer, path: str) -> TracingFile:
    """A file as the API server reads it.

    Raises:
        PlanRefused: the server would not start with it; the sentence says why.
    """
    said = _map_of(content, path, server.strict)
    group, _, version = str(said.get("apiVersion") or "").partition("/")
    if said.get("kind") != "TracingConfiguration" or group != GROUP:
        raise PlanRefused(f"{path} is no TracingConfiguration of {GROUP}: the API server would not start with it.")
    if version not in server.accepted:
        known = ", ".join(sorted(server.accepted))
        raise PlanRefused(
            f"{path} has apiVersion {GROUP}/{version[:40]}, which this API server does not know ({known})."
        )
    warnings: list[str] = []
    unknown = [str(key) for key in said if key not in _FIELDS]
    if unknown and server.strict:
        raise PlanRefused(
            f"{path} has the unknown field {unknown[0][:40]!r}, with which the API server does not start."
        )
    if unknown:
        warnings.append(f"{path} has the unknown field {unknown[0][:40]!r}, which is ignored.")
    rate = said.get("samplingRatePerMillion")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int)):
        raise PlanRefused(
            f"{path}: samplingRatePerMillion is no whole number, with which the API server does not start."
        )
    if rate is not None and not 0 <= rate <= 1_000_000:
        raise PlanRefused(f"{path}: samplingRatePerMillion is {rate}; it must be between 0 and 1,000,000.")
    endpoint = said.get("endpoint")
    if endpoint is not None and not isinstance(endpoint, str):
        raise PlanRefused(f"{path}: endpoint is no text, with which the API server does not start.")
    if endpoint:
        warnings += valid_endpoint(endpoint)
    return TracingFile(f"{group}/{version}", endpoint or "", rate, tuple(warnings))


def valid_endpoint(endpoint: str) -> tuple[str, ...]:
    """Warnings about an endpoint that the API server accepts.

    Raises:
        PlanRefused: it does not accept it.
    """
    shown = repr(endpoint[:80])
    if not endpoint or re.search(r"\s|[\x00-\x1f\x7f]", endpoint):
        raise PlanRefused(f"The endpoint {shown} is empty or holds spaces; write HOST:PORT.")
    try:
        url = urlsplit(endpoint if "//" in endpoint else f"dns://{endpoint}")
        port = url.port
    except ValueError:
        raise PlanRefused(f"The endpoint {shown} has no valid port; write HOST:PORT, or unix:///PATH.") from None
    if "//" not in endpoint and "/" in endpoint:
        raise PlanRefused(
            f"The endpoint {shown} is no HOST:PORT, with which the API server does not start; a socket is unix:///PATH."
        )
    if url.scheme not in _SCHEMES:
        raise PlanRefused(
            f"The endpoint {shown} begins with {url.scheme[:20]}://, which the API server refuses; write HOST:PORT."
        )
    if "//" in endpoint and url.scheme == "dns" and url.path in ("", "/"):
        return (
            f"The endpoint {shown} names a DNS server and no target: nothing would arrive; write it without dns://.",
        )
    if "//" not in endpoint and port is None:
        return (f"The endpoint {shown} has no port: nothing would arrive; 4317 is usual.",)
    return ()


def new(per_million: int, endpoint: str, server: ApiServer) -> bytes:
    """A file of ours."""
    return (
        "# Written by k8s-trace-tui; `k8s-trace-tui sampling off` takes it away again.\n"
        f"apiVersion: {server.api_version}\n"
        "kind: TracingConfiguration\n"
        f"endpoint: {_scalar(endpoint)}\n"
        f"samplingRatePerMillion: {per_million}\n"
    ).encode()


def edited(content: bytes, server: ApiServer, path: str, per_million: int, endpoint: str) -> bytes:
    """The file with another rate, and another endpoint unless that is "": every other byte stays.

    Raises:
        PlanRefused: the server would not start with the file, or it is written in a way that cannot be edited.
    """
    before = read(content, server, path)
    text = content.decode("utf-8")
    wanted = {"samplingRatePerMillion": str(per_million)}
    if endpoint and endpoint != before.endpoint:
        valid_endpoint(endpoint)
        wanted["endpoint"] = _scalar(endpoint)
    if before.per_million == per_million:
        del wanted["samplingRatePerMillion"]
    for key, value in wanted.items():
        text = _spliced(text, key, value, path)
    found = text.encode("utf-8")
    after = read(found, server, path)
    if after != TracingFile(before.api_version, endpoint or before.endpoint, per_million, after.warnings):
        raise _by_hand(path)
    return found


def _spliced(text: str, key: str, value: str, path: str) -> str:
    from ruamel.yaml import YAML

    root: Any = next(one for one in YAML().load_all(io.StringIO(text)) if one is not None)
    if root.fa.flow_style():
        raise _by_hand(path)
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if "\r\n" in text else "\n"
    if key not in root:
        column = root.lc.key("kind")[1]
        if lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += newline
        last = max(root.lc.value(one)[0] for one in root)
        lines.insert(last + 1, f"{' ' * column}{key}: {value}{newline}")
        return "".join(lines)
    at, column = root.lc.value(key)
    line = lines[at]
    rest = line[column:].rstrip("\r\n")
    match = re.match(r"""("[^"\\]*"|'[^']*'|[^\s#&*!|>%@`"'{\[][^#]*?)(\s*(?:\s#.*)?)$""", rest)
    if match is None or root.lc.key(key)[0] != at:
        raise _by_hand(path)
    lines[at] = line[:column] + value + match[2] + line[column + len(rest) :]
    return "".join(lines)


def _scalar(text: str) -> str:
    """A text as YAML, in quotes where it needs them."""
    if re.fullmatch(r"[A-Za-z0-9./][\w./:@%-]*", text) and not text.endswith(":"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _by_hand(path: str) -> PlanRefused:
    return PlanRefused(f"{path} is written in a way that cannot be edited safely; change its rate by hand.")


def _map_of(content: bytes, path: str, strict: bool) -> dict[object, object]:
    import yaml

    if len(content) > MOST_BYTES:
        raise PlanRefused(f"{path} is larger than {MOST_BYTES >> 10} KiB, which no tracing file is.")
    try:
        text = content.decode("utf-8")
        documents = [one for one in yaml.compose_all(text, Loader=yaml.SafeLoader) if one is not None]
        values = [one for one in yaml.load_all(text, Loader=yaml.SafeLoader) if one is not None]
    except UnicodeDecodeError:
        raise PlanRefused(f"{path} is not UTF-8: the API server would not start with it.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise PlanRefused(f"{path}{where} is not YAML: the API server would not start with it.") from None
    if not values:
        raise PlanRefused(f"{path} is empty: the API server would not start with it.")
    if len(values) > 1 or not isinstance(values[0], dict):
        raise PlanRefused(f"{path} is not one map of fields: the API server would not start with it.")
    if strict:
        keys = [str(key.value) for key, _ in documents[0].value]
        twice = next((key for key in keys if keys.count(key) > 1), "")
        if twice:
            raise PlanRefused(f"{path} has the field {twice[:40]!r} twice, with which the API server does not start.")
    return values[0]
