"""A cluster through its API alone: what can be read without touching anything, and a short-lived pod that is a host.

Requests are raw ones through the `kubernetes` client's connection (its generated classes cost 0.9 s to import), which
knows kubeconfig contexts, certificates, proxies and credential plugins. All that comes back is bounded and checked.

The pod of ours is pinned to a node and privileged, with the host's root at /host. Scripts run in it by exec, changed
into the host's root, and leave the pod's cgroup first: a watcher that a script starts outlives the pod and an API
server that goes away. No script depends on the API staying: `run` fails with one sentence and can be asked again.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from tui.clusters.model import Done, ReachError
from tui.clusters.reach import node_image
from tui.clusters.reach.contexts import load
from tui.clusters.reach.plugins import quiet_plugins
from tui.clusters.reach.redirects import CODES, not_followed
from tui.clusters.reach.unreachable import why_unreachable
from tui.clusters.reach.wire import NAME, ROOT_VARIABLE, WRAPPER, Answer, last_line, packed, plain

DEFAULT_IMAGE: Final = "busybox:1.36"
NAMESPACE: Final = "kube-system"
LABEL: Final = "app.kubernetes.io/name"
LABEL_VALUE: Final = "k8s-trace-tui-node"
POD_SECONDS: Final = 3600
"""How long a pod of ours may live at most; the kubelet ends it then, also when we are gone."""
_START_SECONDS: Final = 90.0
_CLOSE_SECONDS: Final = 30.0
_REQUEST_SECONDS: Final = 10.0
_MOST_BYTES: Final = 32 << 20
_PAGE: Final = 500
_PAGES: Final = 20
_FRAME: Final = 32 << 10
_CONTROL_PLANE: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

# Without this, what a script leaves running would be killed with the pod. A version 2 hierarchy has cgroup.procs at its
# root, which takes no processes where the node is itself a container (kind): a leaf of ours then. Below a version 1
# root there is a hierarchy for each controller. 0 stands for the writer.
_LEAVE_CGROUP: Final = (
    f'if [ -z "${{{ROOT_VARIABLE}-}}" ]; then c=/sys/fs/cgroup; {{ '
    "if [ -e $c/cgroup.procs ]; then "
    f"echo 0 >$c/cgroup.procs || {{ mkdir -p $c/{NAME}; echo 0 >$c/{NAME}/cgroup.procs; }}; "
    "else for f in $c/*/cgroup.procs; do echo 0 >$f; done; fi; } 2>/dev/null; fi; "
)


@dataclass(frozen=True, slots=True)
class ApiNode:
    """A node as the API tells it. `taints` as `KEY=VALUE:EFFECT`; `images` the names of each image that it has, as
    far as it tells (the kubelet names the largest 50)."""

    name: str
    version: str
    runtime: str
    ready: bool
    control_plane: bool
    taints: tuple[str, ...]
    os_image: str = ""
    images: tuple[tuple[str, ...], ...] = ()
    without_network: bool = False
    """It is not ready for want of a pod network alone: pods in the node's own network start there."""


@dataclass(frozen=True, slots=True)
class MirrorPod:
    """What the API shows of a static pod. It is late and can be wrong while an API server restarts: never decide on
    it. `flags` are those of `command` and `args`, `--name=value`; `hash` is the kubelet's of the manifest."""

    node: str
    component: str
    image: str
    flags: tuple[str, ...]
    hash: str
    ready: bool
    restarts: int

    @property
    def version(self) -> str:
        """The image's tag, `v1.34.2`; "" where there is none."""
        name, _, tag = self.image.partition("@")[0].rpartition(":")
        return tag if name and "/" not in tag else ""

    def flag(self, name: str) -> str | None:
        """The value of `--name=value`, None where it is not given."""
        found = [one.partition("=")[2] for one in self.flags if one.partition("=")[0] == f"--{name}"]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A pod of ours that an earlier run did not remove."""

    namespace: str
    name: str
    node: str
    created: str
    phase: str


class Refused(ReachError):
    """The API server answered, and not with what was asked for."""

    def __init__(self, sentence: str, status: int, message: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message


class Unreachable(ReachError):
    """Nobody answered as the API server, or the connection broke."""


class Api:
    """A kubeconfig context. Blocking; several threads may ask at a time."""

    def __init__(
        self, context: str, kubeconfig: Path | None = None, *, identity: tuple[Path, Path] | None = None
    ) -> None:
        """Reads the kubeconfig; asks the server nothing. `identity` is a client certificate and its key (PEM files)
        that stand in the place of the context's own user.

        Raises:
            ReachError: there is no such context, or its credentials cannot be had.
        """
        import urllib3
        from kubernetes.client.api_client import ApiClient

        from tui import __version__

        self.context = context
        loaded = load(context, kubeconfig, own=identity is None)
        configuration = loaded.configuration
        self._secure = loaded.secure
        if not configuration.verify_ssl:  # that is the kubeconfig's wish, and a warning a request would tear the screen
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if identity is not None and loaded.secure:
            configuration.cert_file, configuration.key_file = map(str, identity)
        self._client = ApiClient(configuration=configuration)
        self._configuration = configuration
        self._token = ""
        self._agent = f"{NAME}/{__version__}"

    def close(self) -> None:
        """End its connections."""
        self._client.rest_client.pool_manager.clear()

    @property
    def address(self) -> str:
        """Of its API server, as the kubeconfig has it."""
        return plain(self._configuration.host)

    # --- asking -----------------------------------------------------------------------------------------
    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = _REQUEST_SECONDS,
    ) -> Any:
        """One request; the JSON that came back.

        Raises:
            Refused: the server said no, with its message.
            ReachError: it cannot be reached.
        """
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        target = path + ("?" + urlencode(query) if query else "")
        response, content = self._answer(method, target, data, headers, timeout, _MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ReachError(f"The API server of {self.context} answers with more than {_MOST_BYTES >> 20} MiB.")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if response.status >= 300:
            raise self._refused(response.status, plain(_text(found, "message") or response.reason or "", 600))
        if found is None:
            raise ReachError(f"What answers as the API server of {self.context} speaks no JSON: is it a proxy?")
        return found

    def _answer(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str], timeout: float, most: int
    ) -> tuple[Any, bytes]:
        """The one way out to the server: urllib3's response, and up to `most` bytes of its body.

        Raises:
            Refused: it wanted to send us elsewhere. Unreachable: nobody answered.
        """
        import urllib3

        token = self._authorization()
        own = {"User-Agent": self._agent, **({"authorization": token} if token else {})}
        try:
            response = self._client.rest_client.pool_manager.request(
                method,
                self._configuration.host + target,
                body=data,
                headers={**headers, **own},
                timeout=urllib3.Timeout(connect=min(5.0, timeout), read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                content = response.read(most, decode_content=True)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        if response.status in CODES:
            raise self._redirected(response.status, str(response.headers.get("location") or ""))
        return response, content

    def _authorization(self) -> str:
        """The field's value, "" for none; always that where the server is one of http:// (see `contexts.load`)."""
        with quiet_plugins():  # a token that has expired is renewed here
            token = self._configuration.auth_settings().get("BearerToken")
        self._token = str(token["value"]) if token and token.get("value") else ""
        return self._token

    def _redirected(self, code: int, location: str) -> Refused:
        return Refused(self._without_token(not_followed(self.context, code, location)), code, "redirected")

    def _without_token(self, text: str) -> str:
        """A sentence with words of the server's, which may repeat what we sent."""
        secret = self._token.rpartition(" ")[2]
        return text.replace(secret, "(our token)") if len(secret) > 3 else text

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(why_unreachable(error, self._configuration.host, self.context))

    def _refused(self, status: int, message: str) -> Refused:
        message = self._without_token(message)
        said = message.rstrip(".")
        if status in (401, 403) and not self._secure:
            sentence = (
                f"The server of {self.context} is one of http://, where nobody's credentials are sent, and it wants"
                f" some ({said or status}): correct its URL to https://."
            )
        elif status == 401:
            sentence = (
                f"{self.context} does not know us ({said or 'unauthorized'}): log in again, or renew its credentials."
            )
        elif status == 403:
            sentence = f"{self.context} does not allow it: {said}."
        elif status >= 500 or status == 429:
            sentence = f"The API server of {self.context} cannot answer now ({status} {said}): try again in a moment."
        else:
            sentence = f"The API server of {self.context} refuses ({status} {said})."
        return Refused(sentence, status, message)

    def each(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Mapping[str, Any]]:
        """The items of a list, page by page, at most 10,000."""
        more = dict(query or {})
        for _ in range(_PAGES):
            page = self.ask("GET", path, query={**more, "limit": str(_PAGE)})
            items = page.get("items") if isinstance(page, dict) else None
            yield from (one for one in items or () if isinstance(one, dict))
            token = _text(page, "metadata", "continue", limit=16_384)
            if not token:
                return
            more["continue"] = token

    # --- reading ------------------------------------------------------------------------------------------
    def version(self) -> str:
        """Of the API server that answered, `v1.34.2`."""
        return _text(self.ask("GET", "/version"), "gitVersion")

    def nodes(self) -> tuple[ApiNode, ...]:
        """The control-plane nodes by their role label, by name; () where the control plane has no nodes to see."""
        found: dict[str, ApiNode] = {}
        for label in _CONTROL_PLANE:
            for item in self.each("/api/v1/nodes", {"labelSelector": label}):
                node = _node(item)
                found[node.name] = node
            if found:
                break
        return tuple(found[name] for name in sorted(found))

    def node(self, name: str) -> ApiNode:
        """One node."""
        return _node(self.ask("GET", f"/api/v1/nodes/{quote(name, safe='')}"))

    def images_in_use(self, node: str) -> tuple[tuple[str, ...], ...]:
        """`image` and `imageID` of the containers that run on a node, as far as the pods of our namespace tell."""
        pods = self.each(f"/api/v1/namespaces/{NAMESPACE}/pods", {"fieldSelector": f"spec.nodeName={node}"})
        return tuple(
            (_text(one, "image", limit=500), _text(one, "imageID", limit=500))
            for pod in pods
            if _text(pod, "spec", "nodeName") == node
            for one in _list(pod, "status", "containerStatuses")
        )

    def mirror_pods(self) -> tuple[MirrorPod, ...]:
        """What the API shows of the control plane's static pods."""
        pods = self.each(f"/api/v1/namespaces/{NAMESPACE}/pods", {"labelSelector": "tier=control-plane"})
        return tuple(sorted(filter(None, map(_mirror_pod, pods)), key=lambda one: (one.node, one.component)))

    def identities(self) -> dict[str, str]:
        """`service.instance.id` of each API server (since 1.27 the name of its lease) to its host's name."""
        leases = self.each(
            f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases",
            {"labelSelector": "apiserver.kubernetes.io/identity=kube-apiserver"},
        )
        return {
            _text(one, "metadata", "name"): _text(one, "metadata", "labels", "kubernetes.io/hostname")
            for one in leases
            if _text(one, "metadata", "name")
        }

    def events(self, namespace: str, name: str) -> tuple[str, ...]:
        """`Reason: message` of the newest events of an object, newest last, at most 20."""
        query = {"fieldSelector": f"involvedObject.name={name}"}
        items = list(self.each(f"/api/v1/namespaces/{quote(namespace, safe='')}/events", query))
        items.sort(key=lambda one: _text(one, "lastTimestamp") or _text(one, "eventTime"))
        return tuple(f"{_text(one, 'reason')}: {_text(one, 'message', limit=400)}" for one in items[-20:])

    def may(self, verb: str, resource: str, subresource: str = "", namespace: str = "") -> bool:
        """Whether we are allowed something (SelfSubjectAccessReview)."""
        attributes = {"verb": verb, "resource": resource, "subresource": subresource, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        status = answer.get("status") if isinstance(answer, dict) else None
        return isinstance(status, dict) and status.get("allowed") is True

    def log(self, namespace: str, pod: str, lines: int = 100) -> str:
        """The end of a pod's log."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        target = f"{path}?tailLines={lines}&limitBytes=65536"
        response, content = self._answer("GET", target, None, {}, _REQUEST_SECONDS, 65_536)
        if response.status >= 300:
            raise self._refused(response.status, plain(content.decode("utf-8", "replace"), 400))
        return "\n".join(plain(line, 2000) for line in content.decode("utf-8", "replace").splitlines())

    # --- pods of ours ---------------------------------------------------------------------------------------
    def leftovers(self) -> tuple[Leftover, ...]:
        """Pods of ours that are there: of earlier runs, or of somebody who is at work right now (see `created`)."""
        pods = self.each(f"/api/v1/namespaces/{NAMESPACE}/pods", {"labelSelector": f"{LABEL}={LABEL_VALUE}"})
        return tuple(
            Leftover(
                _text(one, "metadata", "namespace") or NAMESPACE,
                _text(one, "metadata", "name"),
                _text(one, "spec", "nodeName"),
                _text(one, "metadata", "creationTimestamp"),
                _text(one, "status", "phase"),
            )
            for one in pods
            if _text(one, "metadata", "name")
        )

    def remove(self, leftover: Leftover) -> None:
        """Remove a pod of ours; that it is gone already is no error.

        Raises:
            ReachError: it is not ours, or the server refuses.
        """
        path = f"/api/v1/namespaces/{quote(leftover.namespace, safe='')}/pods/{quote(leftover.name, safe='')}"
        try:
            found = self.ask("GET", path)
            labels = found["metadata"].get("labels", {}) if isinstance(found, dict) else {}
            if labels.get(LABEL) != LABEL_VALUE:
                raise ReachError(
                    f"The pod {leftover.name} in {leftover.namespace} is not one of ours: it is left alone."
                )
            uid = _text(found, "metadata", "uid")
            options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
            if uid:
                options["preconditions"] = {"uid": uid}
            self.ask("DELETE", path, options)
        except Refused as error:
            if error.status != 404:
                raise

    def exec_url(self, namespace: str, pod: str, command: Sequence[str]) -> str:
        """Where a command is run in a pod, with standard input."""
        query = [("command", part) for part in command]
        query += [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("container", "node")]
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/exec"
        return f"ws{self._configuration.host.removeprefix('http')}{path}?{urlencode(query)}"  # https becomes wss

    def exec(
        self, namespace: str, pod: str, command: Sequence[str], stdin: bytes, answer: Answer, timeout: float
    ) -> None:
        """Run a command in a pod until it says that it has finished; what it writes goes to `answer`.

        Raises:
            Refused: the server does not let us.
            ReachError: it cannot be reached, the connection broke, or it took longer than `timeout` seconds.
        """
        import websocket

        from tui.clusters.reach.channels import Channels, Redirected

        deadline = time.monotonic() + timeout
        url = self.exec_url(namespace, pod, command)
        if len(url) > 60_000:
            raise ReachError(f"The command for {self.context} is too long for a request.")
        try:
            channels = Channels(self._configuration, url, self._authorization(), _REQUEST_SECONDS)
        except Redirected as error:
            raise self._redirected(error.code, error.location) from error
        except websocket.WebSocketBadStatusException as error:
            message = ""
            with suppress(ValueError, TypeError, AttributeError):
                message = _text(json.loads(error.resp_body or b"{}"), "message", limit=600)
            raise self._refused(error.status_code, message or "no exec") from None  # it holds the whole answer
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        try:
            for at in range(0, len(stdin), _FRAME):
                channels.write(stdin[at : at + _FRAME])
            while not answer.finished:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ReachError(
                        f"The script on {pod} did not end within {timeout:g} s and is no longer waited for: is the node"
                        " overloaded?"
                    )
                for channel, data in channels.read(min(left, 1.0)):
                    if channel == 1:
                        answer.feed(data)
                    elif channel == 2:
                        answer.feed_error(data)
                if not channels.open:
                    break
        except (websocket.WebSocketException, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            channels.close()


class ApiHost:
    """A node through the API: a pod of ours on it, made at the first `run` and removed by `close`."""

    alive = True

    def __init__(self, api: Api, node: str, *, image: str = DEFAULT_IMAGE, seconds: int = POD_SECONDS) -> None:
        """Nothing is made before the first `run`.

        Args:
            api: stays open and belongs to the caller.
            node: the node's name.
            image: of the pod: needs `sh`, `sleep` and `chroot`.
            seconds: how long the pod may live.
        """
        self.name = f"{node} (through the API)"
        self._api = api
        self._node = node
        self._image = image
        self._pinned = ""
        self._looked_for = False
        self._seconds = seconds
        self._pod = ""
        self._lock = threading.RLock()
        self._closed = False

    @property
    def pod(self) -> str:
        """The name of its pod, "" while there is none."""
        return self._pod

    @property
    def image(self) -> str:
        """What its pod runs: by digest as soon as `pin` found one, else as it was asked for."""
        return self._pinned or self._image

    def pin(self, node: ApiNode | None = None) -> str:
        """Find the image on the node, so that the pod runs what is there already and not what its tag becomes.

        Args:
            node: as the API told it just now; None to ask once and no more.

        Returns:
            The image by its digest, "" where the API does not tell it.
        """
        if self._pinned or (node is None and self._looked_for):
            return self._pinned
        self._looked_for = True
        with suppress(ReachError):
            node = node or self._api.node(self._node)
            self._pinned = node_image.pinned(self._image, node.images)
        if not self._pinned:
            with suppress(ReachError):
                self._pinned = node_image.pinned(self._image, self._api.images_in_use(self._node))
        return self._pinned

    def image_sentence(self, others: Sequence[ApiHost] = ()) -> str:
        """What is to be said of the image before its pod, and those of `others`, are made; without the full stop."""
        return node_image.sentence(self._image, {host._node: host.pin() for host in (self, *others)})

    def check(self) -> None:
        """See whether a pod of ours would be let in, changing nothing.

        Raises:
            ReachError: one sentence: a permission, pod security admission, another admission, or the node.
        """
        api = self._api
        needed = (("get", ""), ("create", ""), ("delete", ""), ("create", "exec"), ("get", "exec"))
        missing = [
            f"{verb} pods{'/' + sub if sub else ''}"
            for verb, sub in needed
            if not api.may(verb, "pods", sub, NAMESPACE)
        ]
        if missing:
            raise ReachError(
                f"To reach {self._node} through the API, {api.context} must allow {', '.join(missing)} in namespace"
                f" {NAMESPACE}: ask for these permissions, or use --host ssh://..."
            )
        try:
            node = api.node(self._node)
        except Refused as error:
            if error.status == 404:
                raise ReachError(f"{api.context} has no node {self._node}: check its name.") from error
            if error.status != 403:
                raise
        else:
            if not (node.ready or node.without_network):
                raise ReachError(f"The node {self._node} is not ready, so no pod starts there: use --host ssh://...")
            self.pin(node)
        try:
            api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", self._manifest("check"), query={"dryRun": "All"})
        except Refused as error:
            raise self._not_let_in(error) from error

    def _not_let_in(self, error: Refused) -> ReachError:
        message = error.message.rstrip(".")
        if "PodSecurity" in message:
            return ReachError(
                f"Pod security admission lets no privileged pod into {NAMESPACE} of {self._api.context} ({message}):"
                f" label the namespace pod-security.kubernetes.io/enforce=privileged, or use --host ssh://..."
            )
        if error.status in (400, 403, 422) and message:
            return ReachError(
                f"{self._api.context} does not let a privileged pod of ours in ({message}): use --host ssh://..."
            )
        return error

    def _manifest(self, suffix: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{LABEL_VALUE}-{suffix}",
                "namespace": NAMESPACE,
                "labels": {LABEL: LABEL_VALUE, "app.kubernetes.io/managed-by": NAME},
            },
            "spec": {
                "nodeName": self._node,  # not the scheduler's: it may be down, and the node tainted
                "tolerations": [{"operator": "Exists"}],
                "restartPolicy": "Never",
                "activeDeadlineSeconds": self._seconds,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "hostPID": True,
                "hostNetwork": True,  # health is asked for at the node's own 127.0.0.1
                "containers": [
                    {
                        "name": "node",
                        "image": self.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", f"trap 'exit 0' TERM; sleep {self._seconds} & wait"],
                        "env": [{"name": ROOT_VARIABLE, "value": ""}],
                        "securityContext": {"privileged": True, "runAsUser": 0},
                        "volumeMounts": [{"name": "root", "mountPath": "/host"}],
                    }
                ],
                "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
            },
        }

    def open(self) -> None:
        """Check, make the pod and wait until it runs, for at most 90 s. It is removed again when that fails.

        Raises:
            ReachError: one sentence why not.
        """
        with self._lock:
            if self._closed:
                raise ReachError(f"{self.name} was closed: name the node again.")
            if self._pod:
                return
            self.check()
            suffix = secrets.token_hex(4)
            self._pod = f"{LABEL_VALUE}-{suffix}"  # before it is made: a lost answer must not lose the pod
            try:
                self._api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", self._manifest(suffix))
                self._wait()
            except Refused as error:
                self._remove(_CLOSE_SECONDS)
                raise self._not_let_in(error) from error
            except BaseException:
                self._remove(_CLOSE_SECONDS)
                raise

    def _wait(self) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{self._pod}"
        deadline = time.monotonic() + _START_SECONDS
        pause = 0.1
        while True:
            try:
                found = self._api.ask("GET", path)
            except Unreachable:
                found = None  # the kubelet goes on without it
            except Refused as error:
                if error.status < 500 and error.status != 429:
                    raise
                found = None
            phase = _text(found, "status", "phase")
            if phase == "Running":
                return
            self._give_up_on(found, phase)
            if time.monotonic() > deadline:
                events: tuple[str, ...] = ()
                with suppress(ReachError):
                    events = self._api.events(NAMESPACE, self._pod)
                said = f"its last event: {plain(events[-1], 300)}" if events else "no event says why"
                raise ReachError(
                    f"The pod of ours on {self._node} does not start ({said}): is the kubelet there well? Use --host"
                    " ssh://..."
                )
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def _give_up_on(self, found: Any, phase: str) -> None:
        for status in _list(found, "status", "containerStatuses"):
            reason = _text(status, "state", "waiting", "reason")
            if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
                message = _text(status, "state", "waiting", "message", limit=300)
                raise ReachError(
                    f"The image {plain(self.image)} cannot be had on {self._node} ({reason}: {message}): name one that"
                    " the node has or can pull with --node-image."
                )
            if reason in ("CreateContainerError", "RunContainerError", "CreateContainerConfigError"):
                message = _text(status, "state", "waiting", "message", limit=300)
                raise ReachError(
                    f"The image {plain(self.image)} does not run on {self._node} ({message}): name one with sh by"
                    " --node-image."
                )
        if phase in ("Failed", "Succeeded"):
            why = _text(found, "status", "reason") or "its command ended"
            message = _text(found, "status", "message", limit=300)
            raise ReachError(
                f"The pod of ours was ended on {self._node} ({why}{': ' + message if message else ''}): does the image"
                " have sh and sleep, and does the node take pods?"
            )

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """Run a script on the node as root, as `Host.run` says; the first one waits for the pod besides.

        Raises:
            ReachError: the pod is refused or does not run, the API cannot be reached, or it took too long.
        """
        self.open()
        answer = Answer(most)
        command = ["chroot", "/host", "/bin/sh", "-c", _LEAVE_CGROUP + WRAPPER, NAME, *arguments]
        try:
            self._api.exec(NAMESPACE, self._pod, command, packed(script, stdin), answer, timeout)
        except Refused as error:
            if error.status == 404:
                self._pod = ""
                raise ReachError(f"The pod of ours on {self._node} is gone: ask again, and another is made.") from error
            raise
        except ReachError as error:
            if answer.started:
                raise ReachError(f"{str(error).rstrip('.')}; what the script had begun goes on on the node.") from error
            raise
        if answer.finished:
            return answer.done
        if answer.started:
            raise ReachError(
                f"The connection to {self.name} broke while a script ran: what it had begun goes on there; ask again"
                " for its state."
            )
        raise ReachError(
            f"No script can be run on {self.name} ({last_line(answer.error) or 'the connection was closed'}): has the"
            " image chroot, and the node /bin/sh?"
        )

    def close(self) -> None:
        """Remove the pod. While the API is away it is tried for half a minute; then the pod's own deadline ends it, and
        `Api.leftovers` finds what is left."""
        with self._lock:
            self._closed = True
            if self._pod:
                self._remove(_CLOSE_SECONDS)

    def _remove(self, patience: float) -> None:
        pod = Leftover(NAMESPACE, self._pod, self._node, "", "")
        deadline = time.monotonic() + patience
        while True:
            try:
                self._api.remove(pod)
            except Refused as error:
                if error.status < 500 and error.status != 429:
                    break  # no right to: it ends by its deadline
            except ReachError:
                pass
            else:
                break
            if time.monotonic() > deadline:
                break
            time.sleep(1.0)
        self._pod = ""


def image_of_pods(hosts: Sequence[object]) -> str:
    """What is to be said of the image of the pods of ours on these hosts, without the full stop; "" for other hosts."""
    ours = [host for host in hosts if isinstance(host, ApiHost)]
    return ours[0].image_sentence(ours[1:]) if ours else ""


def leftovers(context: str, kubeconfig: Path | None = None) -> tuple[Leftover, ...]:
    """Pods of ours in a context's cluster."""
    api = Api(context, kubeconfig)
    try:
        return api.leftovers()
    finally:
        api.close()


def remove(context: str, found: Sequence[Leftover], kubeconfig: Path | None = None) -> None:
    """Remove pods of ours from a context's cluster."""
    api = Api(context, kubeconfig)
    try:
        for one in found:
            api.remove(one)
    finally:
        api.close()


# --- reading what came ------------------------------------------------------------------------------------
def _text(value: Any, *path: str, limit: int = 253) -> str:
    """A printable text inside JSON, "" where it is not there or no text."""
    for key in path:
        value = value.get(key) if hasattr(value, "get") else None
    return plain(value, limit) if isinstance(value, str) else ""


def _list(value: Any, *path: str) -> list[Any]:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value[:1000] if isinstance(value, list) else []


def _node(item: Any) -> ApiNode:
    labels = item.get("metadata", {}).get("labels") if isinstance(item.get("metadata"), dict) else None
    conditions = _list(item, "status", "conditions")
    return ApiNode(
        _text(item, "metadata", "name"),
        _text(item, "status", "nodeInfo", "kubeletVersion"),
        _text(item, "status", "nodeInfo", "containerRuntimeVersion"),
        any(_text(one, "type") == "Ready" and _text(one, "status") == "True" for one in conditions),
        isinstance(labels, dict) and any(label in labels for label in _CONTROL_PLANE),
        tuple(
            f"{_text(one, 'key')}{'=' + _text(one, 'value') if _text(one, 'value') else ''}:{_text(one, 'effect')}"
            for one in _list(item, "spec", "taints")
        ),
        _text(item, "status", "nodeInfo", "osImage"),
        tuple(
            tuple(plain(name, 500) for name in _list(one, "names")[:20] if isinstance(name, str))
            for one in _list(item, "status", "images")
        ),
        any(_text(one, "type") == "Ready" and _only_network(one) for one in conditions),
    )


def _only_network(condition: Any) -> bool:
    """Whether a node's Ready condition is False because its container runtime has no network (kubelet's
    `runtimeState.networkErrors`), and nothing else is told; what kubelet says of several reasons stands in brackets."""
    return _text(condition, "status") == "False" and bool(
        re.fullmatch(r"container runtime network not ready: [^,\[\]]*", _text(condition, "message").strip())
    )


def _mirror_pod(item: Any) -> MirrorPod | None:
    annotations = item.get("metadata", {}).get("annotations") if isinstance(item.get("metadata"), dict) else None
    containers = _list(item, "spec", "containers")
    if not isinstance(annotations, dict) or "kubernetes.io/config.mirror" not in annotations or not containers:
        return None
    first = containers[0]
    status: Any = next(iter(_list(item, "status", "containerStatuses")), {})
    restarts = status.get("restartCount") if isinstance(status, dict) else 0
    words = [word for part in ("command", "args") for word in _list(first, part) if isinstance(word, str)]
    return MirrorPod(
        node=_text(item, "spec", "nodeName"),
        component=_text(item, "metadata", "labels", "component") or _text(first, "name"),
        image=_text(first, "image", limit=500),
        flags=_flags(words),
        hash=_text(annotations, "kubernetes.io/config.hash"),
        ready=isinstance(status, dict) and status.get("ready") is True,
        restarts=restarts if isinstance(restarts, int) else 0,
    )


def _flags(words: Sequence[str]) -> tuple[str, ...]:
    """`--a=b` as it is; `--a b` joined."""
    found: list[str] = []
    for word in words[:500]:
        text = plain(word, 4096)
        if text.startswith("--"):
            found.append(text)
        elif found and "=" not in found[-1]:
            found[-1] += f"={text}"
    return tuple(found)
