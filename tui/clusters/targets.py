"""Which control planes are meant: those of the command line, else those of the settings, else what is found here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tui.clusters import flavours
from tui.clusters.model import ClusterError, Host, ReachError, Sight
from tui.config import Settings

if TYPE_CHECKING:
    from tui.clusters.reach.api import Api
    from tui.clusters.reach.contexts import ContextName

MANIFEST: Final = Path("/etc/kubernetes/manifests/kube-apiserver.yaml")
"""Where it is there, this machine is a control-plane node (kubeadm, kind)."""
MOST_HOSTS: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and the ways to its control-plane nodes.

    `cluster` is its name for people: the context's, or "" where only hosts are known; `context` that of the kubeconfig
    through which it is read, "" for none; `protected` asks for the cluster's name before a change. `api` reads the
    context, None without one or where it cannot be used: `problem` then says why.
    """

    cluster: str
    hosts: tuple[Host, ...]
    context: str = ""
    protected: bool = False
    api: Api | None = None
    problem: str = ""

    def close(self) -> None:
        """End all that was opened for it. Does not raise."""
        for host in self.hosts:
            with suppress(ClusterError, OSError):
                host.close()
        if self.api is not None:
            self.api.close()


def targets(
    settings: Settings,
    hosts: Sequence[str] = (),
    context: str = "",
    *,
    node_image: str = "",
    kubeconfig: Path | None = None,
    manifest: Path = MANIFEST,
) -> tuple[Target, ...]:
    """The control planes that are meant; () when none is named and this machine is none.

    With hosts, files are read and changed through them, and a context only tells the cluster's name and what the API
    shows. With a context alone, each of its control-plane nodes is a host: a pod of ours there, made when a script is
    first run. The command line wins over the settings as a whole: a --host does not go to the settings' context.

    Args:
        settings: `hosts`, `context` and `protected`.
        hosts: URLs, `ssh://...` or `file:///...`.
        context: of the kubeconfig.
        node_image: of such a pod; "" takes the default one.
        kubeconfig: another one than KUBECONFIG or ~/.kube/config.
        manifest: makes this machine a control-plane node when it is there.

    Raises:
        ReachError: a URL is none, there is no such context, its API cannot be reached and no host is named, or it
            shows no control-plane nodes.
    """
    if not hosts and not context:
        hosts, context = settings.hosts, settings.context
    urls = list(dict.fromkeys(hosts))
    if len(urls) > MOST_HOSTS:
        raise ReachError(f"{len(urls)} hosts are named, and at most {MOST_HOSTS} can be: leave some out.")
    protected = bool(context) and context in settings.protected
    if urls:
        made = tuple(host_of(url) for url in urls)
        api, problem = None, ""
        if context:
            try:
                api = _api(context, kubeconfig)
            except ReachError as error:
                problem = str(error)  # the hosts are enough
        return (Target(context, made, context, protected, api, problem),)
    if context:
        return (_through_the_api(context, protected, node_image, kubeconfig),)
    if _is_there(manifest):
        from tui.clusters.reach.local import LocalHost

        return (Target("", (LocalHost(),)),)
    return ()


def host_of(url: str) -> Host:
    """The host of a URL; nothing is opened.

    Raises:
        ReachError: it is not one.
    """
    makers: dict[str, Callable[[str], Host]] = {"ssh": _ssh, "file": _folder}
    make = makers.get(url.partition(":")[0])
    if make is None:
        from tui.clusters.reach.wire import plain

        raise ReachError(f"{plain(url)!r} is not a host: write ssh://USER@HOST, or file:///DIR for a directory.")
    return make(url)


def contexts_here(kubeconfig: Path | None = None) -> tuple[tuple[ContextName, ...], str]:
    """The contexts that could be named, and a sentence when the kubeconfig cannot be read."""
    from tui.clusters.reach.contexts import contexts

    try:
        return contexts(kubeconfig), ""
    except ReachError as error:
        return (), str(error)


def _ssh(url: str) -> Host:
    from tui.clusters.reach.ssh import SshHost

    return SshHost(url)


def _folder(url: str) -> Host:
    from tui.clusters.reach.folder import FolderHost

    return FolderHost(url)


def _api(context: str, kubeconfig: Path | None) -> Api:
    from tui.clusters.reach.api import Api

    return Api(context, kubeconfig)


def _through_the_api(context: str, protected: bool, node_image: str, kubeconfig: Path | None) -> Target:
    from tui.clusters.reach.api import DEFAULT_IMAGE, ApiHost

    api = _api(context, kubeconfig)
    try:
        names = [node.name for node in api.nodes()] or sorted({pod.node for pod in api.mirror_pods()} - {""})
        if not names:
            raise ReachError(_nothing_to_see(api))
    except BaseException:
        api.close()
        raise
    made = tuple(ApiHost(api, name, image=node_image or DEFAULT_IMAGE) for name in names[:MOST_HOSTS])
    return Target(context, made, context, protected, api)


def _nothing_to_see(api: Api) -> str:
    """Why no control-plane nodes are shown, as far as the API tells."""
    try:
        version = api.version()
    except ReachError:
        version = ""
    kind = flavours.from_afar(Sight(version, address=api.address))
    if kind is not None and (states := kind.states_from_afar("", Sight(version))):
        return f"The API of {api.context} shows no control-plane nodes. {states[0].read_only}"
    return (
        f"The API of {api.context} shows no control-plane nodes, as where a provider runs them, or where they are pods "
        "of another cluster: then the provider sets tracing, or it is set there, in their ConfigMap and Deployment."
    )


def _is_there(manifest: Path) -> bool:
    try:
        return manifest.is_file()
    except OSError:  # its directory is root's alone: then it is a node
        return True
