"""The kubeconfig that a traced command gets: the proxy under the context's own name, and nothing else."""

from __future__ import annotations

import atexit
import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tui.clusters.force.certificates import ADDRESS
from tui.clusters.force.proxy import Proxy
from tui.clusters.model import ReachError
from tui.clusters.reach.contexts import FOLDER, private_base
from tui.clusters.reach.private_folder import private_folder


@contextmanager
def temporary_kubeconfig(proxy: Proxy) -> Iterator[Path]:
    """A kubeconfig (0600, in a 0700 directory of ours) for a proxy that has started; gone afterwards, whatever happens.

    Context, cluster, user and namespace have the names of the real context. What programs that were killed left behind
    is removed first.

    Raises:
        ReachError: it cannot be written.
    """
    base = private_base()
    try:
        folder = private_folder(FOLDER, base)
    except OSError as error:
        raise ReachError(f"No private directory can be made in {base} ({error.strerror}).") from error

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    try:
        file = folder / "kubeconfig"
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(kubeconfig(proxy))
        except OSError as error:
            raise ReachError(f"The kubeconfig for the command cannot be written ({error.strerror}).") from error
        yield file
    finally:
        remove()
        atexit.unregister(remove)


def kubeconfig(proxy: Proxy) -> str:
    """Its text: JSON, which is YAML too. It holds the proxy's token."""
    upstream = proxy.upstream
    cluster, user = upstream.cluster or upstream.name, upstream.user or upstream.name
    context: dict[str, Any] = {"cluster": cluster, "user": user}
    if upstream.namespace:
        context["namespace"] = upstream.namespace
    server = {
        "server": f"https://{ADDRESS}:{proxy.port}",
        "certificate-authority-data": base64.b64encode(proxy.authority).decode(),
        "proxy-url": "",  # the Python client would take HTTPS_PROXY's even to loopback
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": upstream.name,
        "clusters": [{"name": cluster, "cluster": server}],
        "users": [{"name": user, "user": {"token": proxy.token}}],
        "contexts": [{"name": upstream.name, "context": context}],
    }
    return json.dumps(config, indent=2) + "\n"
