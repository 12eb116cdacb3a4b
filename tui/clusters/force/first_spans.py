"""The first spans of an exporter that asks DNS before it connects: they may be lost, so a request of ours goes first.

gRPC asks for a TXT record of the name in the endpoint before it connects, which is with the first batch after a start
and again after half an hour without one. Where the node's DNS does not answer, that takes longer than the 10 s that an
export has, and the batch is lost; the next ones come. What a command asked for cannot be asked again, so a small GET of
ours is traced until its spans are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from receiver.store.database import Database, StoreError
from tui.clusters.arriving import streams
from tui.clusters.endpoint import needs_dns
from tui.clusters.force.preconditions import Preconditions, Privilege
from tui.clusters.reach.wire import plain

if TYPE_CHECKING:
    from tui.clusters.force.credentials import Upstream

AGENT: Final = "k8s-trace-tui"
"""As our own requests are called: the list takes them for noise."""
SECONDS: Final = 40.0
"""That are waited at most: gRPC gives up a name after 30 s, and then comes a batch of 5 s."""
_AGAIN: Final = 5.0
"""Seconds until the next request: as often as exporters send."""
_CONNECTED: Final = 25 * 60.0
"""Seconds for which a connection that was used is still there: gRPC lets go of it after 30 minutes."""
_TARGET: Final = "/api/v1/namespaces/default"
"""Is read from etcd, whose exporter may ask DNS, too."""


def may_be_lost(path: Path, known: Preconditions) -> str:
    """The endpoint to which the next spans may be lost, "" for none: it is a name, and no span came since the API
    server started or lately.

    Args:
        path: the database of the receiver here.
        known: of the API server; where it sends is known only on its own machine.
    """
    named = next((one for one in (*known.endpoints, *known.etcd_endpoints) if needs_dns(one)[0]), "")
    if not named or known.privilege is not Privilege.FORCED:
        return ""
    now = time.time_ns()
    begun = max(known.started, now - int(_CONNECTED * 1e9))
    try:
        database = Database.read(path)
    except (StoreError, OSError):
        return ""
    try:
        sent = {one.service for one in streams(database, (now - begun) / 1e9, now, begun)}
    except StoreError:
        return ""
    finally:
        database.close()
    wanted = {"apiserver"} | ({"etcd"} if any(needs_dns(one)[0] for one in known.etcd_endpoints) else set())
    return "" if wanted <= sent else named


def wait_for_first(
    path: Path,
    known: Preconditions,
    upstream: Upstream,
    say: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
    seconds: float = SECONDS,
    again: float = _AGAIN,
) -> bool:
    """Have the first spans sent, where they may be lost; False when none came in so many seconds, which is said.

    Args:
        path: the database of the receiver here.
        known: of the API server.
        upstream: the way to it.
        say: takes sentences for people.
        stopped: whether nobody waits any more.
        seconds: to wait at most.
        again: seconds until the next request.

    Raises:
        ClusterError: the way to the API server cannot be opened.
        StoreError: the database cannot be read.
    """
    from tui.clusters.force.asking import Get
    from tui.clusters.force.collected import Collector, How, last_chunk
    from tui.clusters.force.proxy import Proxy

    endpoint = may_be_lost(path, known)
    if not endpoint:
        return True
    _, instead = needs_dns(endpoint)
    where = plain(endpoint, 80)
    say(
        f"The first spans to {where} may be lost where the node's DNS does not answer, since it is a name: a request "
        f"of ours goes first, for at most {seconds:.0f} s. `k8s-trace-tui sampling arm --endpoint {instead}` saves it."
    )
    since, until = last_chunk(path), time.monotonic() + seconds
    with Proxy(upstream) as proxy:
        while time.monotonic() < until and not stopped():
            answer = Get(proxy, _TARGET, AGENT).run()
            next_at = min(until, time.monotonic() + again)
            collector = Collector(path, since, proxy.seen(), known)
            try:
                while answer.code and not stopped():
                    found = collector.look()
                    if any(one.how is How.FORCED and not (one.lacking and known.etcd_endpoints) for one in found):
                        return True
                    if time.monotonic() >= next_at:
                        break
                    time.sleep(0.2)
            finally:
                collector.close()
            if not answer.code:
                break  # what is asked next says better why
    if not stopped():
        say(f"No span of it came, so what is sent to {where} does not get here: see k8s-trace-tui doctor.")
    return False
