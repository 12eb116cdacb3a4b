"""The endpoint of a component: where it sends its spans, by one rule for every command, screen, recipe and page.

What the operator names; else what is configured on the node; else, on this machine, where the receiver listens; else
127.0.0.1:4317, which is also where a tunnel ends on its host. No name is chosen, `localhost` included: for a name gRPC
asks the node's DNS for a TXT record before its first connection, and where that does not answer, the first batch after
every start of the component is lost (seen with Kubernetes 1.36 and etcd 3.6: "traces export: context deadline
exceeded").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

FALLBACK: Final = "127.0.0.1:4317"
"""Where nothing else is known."""
UNSET: Final = "localhost:4317"
"""Where the exporters of kube-apiserver and etcd send when their configuration names no endpoint."""
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "localhost": "127.0.0.1"}


def chosen(wished: str, configured: str, otherwise: str = FALLBACK) -> str:
    """The endpoint that a component gets.

    Args:
        wished: by the operator, "" for none.
        configured: on the node, "" for none; it is kept.
        otherwise: `on_this_machine`, or where a tunnel ends.
    """
    return wished or configured or otherwise


def on_this_machine(status: Mapping[str, Any] | None, given: Sequence[str] = ()) -> str:
    """Where a component on this machine reaches the receiver: its first TCP listener without TLS, since exporters speak
    none, and one that was given before the others.

    Args:
        status: of the running receiver as its control socket tells it; None where none runs.
        given: `[NAME=]ADDRESS` of the listeners that one is to be started with.
    """
    wanted = [dialable(one.partition("=")[2] if "=" in one.partition(":")[0] else one) for one in given]
    listeners = (status or {}).get("listeners")
    open_ones = [
        dialable(str(one.get("address", "")))
        for one in (listeners if isinstance(listeners, (list, tuple)) else ())
        if isinstance(one, Mapping) and not one.get("error") and not one.get("tls")
    ]
    found = [one for one in wanted if one in open_ones] or open_ones if status else wanted
    return next((one for one in found if one and not one.startswith("unix:")), FALLBACK)


def dialable(address: str) -> str:
    """A listener's address as somebody on its machine dials it: a wildcard becomes loopback. "" for a port that is not
    known yet, and for what is no address."""
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch(r"0*[1-9][0-9]{0,4}", port):
        return ""
    return f"{_WILDCARDS.get(host, host)}:{int(port)}"


def name_of(endpoint: str) -> str:
    """The name that gRPC asks DNS for before it connects; "" where the endpoint is an address or a socket."""
    text = endpoint.strip()
    if re.match(r"(unix|unix-abstract|passthrough):", text, re.I):
        return ""
    text = re.sub(r"^dns:(//[^/]*/)?", "", text, flags=re.I)
    host = text.rpartition(":")[0] if re.search(r":\d*$", text) else text
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    return ""


def needs_dns(endpoint: str) -> tuple[str, str]:
    """What to know of an endpoint that is a name: (what is so, what to give for --endpoint instead); ("", "") else."""
    name = name_of(endpoint)
    if not name:
        return "", ""
    text = f"sends to {endpoint}, a name that gRPC asks the node's DNS for; where that does not answer, "
    if name.lower().rstrip(".") != "localhost":
        return f"{text}nothing is sent", "ADDRESS:PORT"
    return f"{text}the first spans after every start are lost", f"127.0.0.1:{endpoint.rpartition(':')[2]}"


def warnings_of(endpoint: str) -> tuple[str, ...]:
    """The same as sentences of a plan."""
    text, instead = needs_dns(endpoint)
    return (f"It {text}: --endpoint {instead} needs none.",) if text else ()
