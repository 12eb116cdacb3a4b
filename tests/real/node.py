"""The node: containerd, kubelet and kubeadm's static pods, in namespaces of their own on this machine.

It has its own mounts, network, processes, host name and cgroups (node_init.py, lan.py, cgroups.py), so that the
machine's files, addresses and kernel settings stay as they are. Several nodes are the same with other names and
addresses, on one `Lan`. It needs root, and the packages that packages.txt names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from typing import Final

from tests.real import build, cgroups, images
from tests.real.certificates import Authority, Kubeconfig, Pair, service_account_keys, write_private
from tests.real.client import Client
from tests.real.lan import Lan
from tests.real.processes import START_S, Process, bound_to_its_parent, wait_until
from tests.real.workspace import RunFolder, Unavailable

ADMIN: Final = "kubernetes-super-admin"
"""In system:masters."""
CLUSTER_ADMIN: Final = "kubernetes-admin"
"""In kubeadm:cluster-admins, bound to cluster-admin: kubeadm's admin.conf."""
NOBODY: Final = "alice"
"""May do nothing."""
HOME: Final = "/root"
MANIFESTS: Final = "/etc/kubernetes/manifests"
STATIC_PODS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ETCD: Final = "3.6"
_TEMPLATES: Final = Path(__file__).parent / "manifests"
_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT: Final = {"HOME": HOME, "PATH": _PATH, "LANG": "C.UTF-8", "TERM": "xterm-256color", "USER": "root"}
_TOOLS: Final = ("runc", "busybox", "ip", "nsenter", "setpriv")
_ENTER: Final = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'


def needed(release: str) -> list[str]:
    """What of a release is built for a node, and what besides."""
    return [f"kubernetes-{release}", f"etcd-{ETCD}", "containerd-2.2", "crictl-1.36", "pause"]


def check() -> None:
    """Whether this machine can do it.

    Raises:
        Unavailable: it cannot.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("a node in namespaces needs Linux and root")
    missing = [name for name in _TOOLS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}") is None]
    if missing:
        raise Unavailable(f"a node needs {', '.join(missing)} (Debian's packages: tests/real/packages.txt)")


class Cluster:
    """What the nodes of one cluster share: authorities, keys, users."""

    def __init__(self, address: str) -> None:
        """`address` is that of the API server, or of what stands in front of several."""
        self.address = address
        self.authority = Authority("kubernetes")
        self.front_proxy = Authority("front-proxy-ca")
        self.etcd = Authority("etcd-ca")
        self.service_account_keys = service_account_keys()
        self.users: dict[str, Pair] = {
            ADMIN: self.authority.issue(ADMIN, groups=["system:masters"]),
            CLUSTER_ADMIN: self.authority.issue(CLUSTER_ADMIN, groups=["kubeadm:cluster-admins"]),
            NOBODY: self.authority.issue(NOBODY, groups=["devs"]),
        }

    def client(self, lan: Lan, user: str = ADMIN, *, address: str = "") -> Client:
        """Asks the API from the outside as one of `users`; at one node's own address, if it is given."""
        return Client((address or self.address, 6443), self.authority.pair.certificate, self.users[user], lan.connect)


class NodeProcess(Process):
    """A process on a node; `pid` is its own as the machine counts, not that of what entered the node for it."""

    @property
    def pid(self) -> int:
        outer = super().pid
        try:
            children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return outer
        return int(children[0]) if children else outer


class Node:
    """A control-plane node.

    Attributes:
        containerd: its runtime, which can be stopped and started.
        kubelet: likewise.
        init_pid: its first process, as the machine counts.
        run_folder: where its disk and its logs are on this machine.
    """

    CONTAINERD: Final = ("containerd", "--config", "/etc/containerd/config.toml")

    def __init__(
        self,
        lan: Lan,
        *,
        release: str = "1.36",
        name: str = "cp-1",
        address: str = "192.0.2.2",
        cluster: Cluster | None = None,
        members: Mapping[str, str] | None = None,
        verbosity: int = 0,
    ) -> None:
        """
        Args:
            members: the addresses of all nodes of the cluster by their names, this one's too; None: there is no other.
            verbosity: kubelet's; kubeadm's nodes have 0.
        """
        check()
        self.lan, self.release, self.name, self.address = lan, release, name, address
        self.cluster = cluster or Cluster(address)
        self.members = dict(members or {name: address})
        self.verbosity = verbosity
        self._built = build.build(needed(release))
        self.version = build.module(f"kubernetes-{release}").version
        self.etcd_version = build.module(f"etcd-{ETCD}").version.lstrip("v")
        self.kubectl_path = self._built[f"kubernetes-{release}"] / "kubectl"
        self.run_folder = RunFolder(f"node-{name}")
        self._init: subprocess.Popen[str] | None = None
        self.init_pid = 0
        self._groups: list[Path] = []
        self.containerd = self.process("containerd", self.CONTAINERD)
        self.kubelet = self.process(
            "kubelet",
            [
                "kubelet",
                "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
                "--kubeconfig=/etc/kubernetes/kubelet.conf",
                "--config=/var/lib/kubelet/config.yaml",
                f"--hostname-override={name}",
                f"--node-ip={address}",
            ],
        )

    # --- up and down -----------------------------------------------------------------------------------------
    def start(self) -> None:
        """Bring it up and wait until its API is ready and the node is, too."""
        self.begin()
        self.complete()

    def begin(self) -> None:
        """Everything up to kubelet's start, which starts the rest. By a thread that lives as long as the node does: the
        kernel ends what it started with it."""
        began = time.monotonic()
        with self._explained():
            self.boot()
            self.start_containerd()
            self._import_images()
            self._lay_manifests()
            self.kubelet.start()
        print(f"real: node {self.name} {self.release} has begun after {time.monotonic() - began:.1f} s", flush=True)

    def complete(self) -> None:
        """Wait until it is what kubeadm's `init` leaves behind."""
        began = time.monotonic()
        with self._explained():
            self.wait_ready()
            ready = time.monotonic()
            self._finish()
        now = time.monotonic()
        print(
            f"real: node {self.name} {self.release} is up after {now - began:.1f} s more: API {ready - began:.1f} s, "
            f"the node ready {now - ready:.1f} s",
            flush=True,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A node that did not come up leaves its logs, and nothing else."""
        try:
            yield
        except BaseException:
            self._keep_logs()
            self.close()
            raise

    def boot(self) -> None:
        """Make its namespaces and its files; nothing runs there yet."""
        name = self.run_folder.path.name
        disk = self.run_folder.path / "disk"
        disk.mkdir(exist_ok=True)
        self.run_folder.note_cgroup(name)
        folders = cgroups.make(name)
        hierarchies = cgroups.hierarchies()
        self._groups = [
            folder if hierarchy.options else folder / "init"
            for folder, hierarchy in zip(folders, hierarchies, strict=True)
        ]
        keep = {str(path) for path in (_REPOSITORY, sys.prefix, sys.base_prefix, *self._built.values())}
        wanted = {
            "hostname": self.name,
            "disk": str(disk),
            "keep": sorted(keep),
            "cgroups": [
                {"folder": str(folder), "mounted": str(hierarchy.mounted), "options": hierarchy.options}
                for folder, hierarchy in zip(folders, hierarchies, strict=True)
            ],
            "files": {
                "/etc/hostname": f"{self.name}\n",
                "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"
                + "".join(f"{address} {name}\n" for name, address in self.members.items()),
                "/etc/resolv.conf": "nameserver 127.0.0.1\n",  # nobody there, and told so at once
            },
        }
        command = bound_to_its_parent([sys.executable, "-S", "-E", str(Path(__file__).with_name("node_init.py"))])
        self._init = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.run_folder.note_process(self._init.pid)
        assert self._init.stdin is not None
        assert self._init.stdout is not None
        self._init.stdin.write(json.dumps(wanted) + "\n")
        self._init.stdin.flush()
        said = [self._init.stdout.readline().strip()]
        if said[0].startswith("init "):
            self.init_pid = int(said[0].split()[1])
            said.append(self._init.stdout.readline().strip())
        if said[-1] != "ready":
            raise Unavailable(f"a node cannot be made here: {said[-1] or 'its first process ended'}")
        self.lan.plug(self.name, self.init_pid, self.address)
        self._lay_files()

    def start_containerd(self) -> None:
        """Start it (again) and wait until it answers."""
        self.containerd.start()
        wait_until(lambda: self._ok("ctr", "version"), "containerd answers", by=self.containerd)

    def power_on(self) -> None:
        """Bring it up again after `power_off`, with what is on its disk, and wait until its API is ready."""
        self.boot()
        self.start_containerd()
        self.kubelet.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until its API server says that it is ready."""
        client, seconds = self.client(), START_S * len(self.members)  # they share this machine
        what = f"the API server of {self.name} is ready"
        wait_until(lambda: client.code("/readyz") == 200, what, seconds=seconds, by=self.kubelet)

    def power_off(self) -> None:
        """As when its plug is pulled: everything on it ends at once, its disk stays."""
        if self._init is not None:
            assert self._init.stdin is not None
            self._init.stdin.close()
            with suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
            self._init.wait(30)
            self._init = None
        for process in (self.kubelet, self.containerd):
            process.kill()
        cgroups.remove(self.run_folder.path.name)

    def close(self) -> None:
        """End it and remove what it wrote."""
        self.power_off()
        self.run_folder.close()

    # --- on it -----------------------------------------------------------------------------------------------
    def path(self, path: str) -> Path:
        """A file of the node, as this process reaches it."""
        return Path(f"/proc/{self.init_pid}/root{path}")

    def files(self, top: str) -> dict[str, tuple[int, int, int, bytes]]:
        """Every file below a folder of the node: mode, user, group and content, by path; of a link where it leads."""
        root = self.path(top)
        found = {}
        for path in sorted(root.rglob("*")):
            about = path.lstat()
            content = os.fsencode(os.readlink(path)) if path.is_symlink() else b""
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
            name = f"{top}/{path.relative_to(root)}"
            found[name] = (about.st_mode, about.st_uid, about.st_gid, content)
        return found

    def entering(self, command: Sequence[str]) -> list[str]:
        """The command, run on the node as root there; it ends with whoever started it."""
        inside = ["nsenter", "-t", str(self.init_pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        groups = [str(group) for group in self._groups]
        return ["/bin/sh", "-c", _ENTER, "sh", *groups, "--", *inside, *bound_to_its_parent(command)]

    def run(
        self,
        *command: str,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """What a command on the node says; with `check` it must succeed."""
        done = subprocess.run(
            self.entering(command),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**_ENVIRONMENT, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def process(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> NodeProcess:
        """A server of the node, not started; its log is on this machine."""
        return _Entering(self, name, command, {**_ENVIRONMENT, **(environment or {})})

    def program(
        self, *arguments: str, stdin: str | None = None, timeout: float = 400.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`k8s-trace-tui ARGUMENTS` on the node, of this very checkout."""
        return self.run(sys.executable, "-m", "tui.cli", *arguments, stdin=stdin, timeout=timeout, check=check)

    def crictl(self, *arguments: str) -> str:
        """What `crictl ARGUMENTS` says on the node."""
        return self.run("crictl", *arguments).stdout

    def kubectl(self, *arguments: str, user: str = ADMIN, stdin: str | None = None, check: bool = True) -> str:
        """What the release's kubectl says on the node."""
        files = {ADMIN: "super-admin.conf", CLUSTER_ADMIN: "admin.conf"}
        environment = {"KUBECONFIG": f"/etc/kubernetes/{files[user]}"}
        return self.run("kubectl", *arguments, stdin=stdin, environment=environment, check=check).stdout

    def client(self, user: str = ADMIN) -> Client:
        """Asks this node's API server, from the outside, as one of the cluster's users."""
        return self.cluster.client(self.lan, user, address=self.address)

    def local_client(self, user: str = ADMIN) -> Client:
        """The same for threads that are in the network already, such as a `Probe`'s."""
        return Client((self.address, 6443), self.cluster.authority.pair.certificate, self.cluster.users[user])

    # --- its parts -------------------------------------------------------------------------------------------
    def _ok(self, *command: str) -> bool:
        return self.run(*command, check=False).returncode == 0

    def _lay_files(self) -> None:
        for built in self._built.values():
            for binary in built.iterdir():
                link = self.path(f"/usr/local/bin/{binary.name}")
                link.unlink(missing_ok=True)
                link.symlink_to(binary)
        for name in (".bashrc", ".profile", ".bash_profile", ".bash_login", ".zshenv", ".ssh", ".kube"):
            own = self.path(f"{HOME}/{name}")  # what this machine's root does at a login is no part of a node
            if own.is_dir() and not own.is_symlink():
                shutil.rmtree(own)
            else:
                own.unlink(missing_ok=True)
        endpoint = "unix:///run/containerd/containerd.sock"
        self._write("/etc/crictl.yaml", f"runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\n")
        self._write("/etc/containerd/config.toml", self._template("containerd.toml"))
        network = {"cniVersion": "1.0.0", "name": "no-wire", "plugins": [{"type": "no-wire"}]}
        self._write("/etc/cni/net.d/10-no-wire.conflist", json.dumps(network))
        self._write("/opt/cni/bin/no-wire", (_TEMPLATES / "no-wire").read_text())
        self.path("/opt/cni/bin/no-wire").chmod(0o755)
        for folder in ("/etc/ca-certificates", "/usr/local/share/ca-certificates"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        if self.path("/etc/kubernetes/pki/ca.crt").exists():
            return  # it was up before
        self._write("/var/lib/kubelet/config.yaml", self._template("kubelet.yaml"))
        for folder in (MANIFESTS, "/etc/kubernetes/tmp"):
            self.path(folder).mkdir(parents=True)
        self._lay_certificates()

    def _lay_certificates(self) -> None:
        pki, cluster = self.path("/etc/kubernetes/pki"), self.cluster
        cluster.authority.pair.write(pki / "ca")
        cluster.front_proxy.pair.write(pki / "front-proxy-ca")
        cluster.etcd.pair.write(pki / "etcd/ca")
        names = [self.name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        hosts = [*names, "10.96.0.1", "127.0.0.1", self.address, *{cluster.address} - {self.address}]
        cluster.authority.issue("kube-apiserver", hosts=hosts, client=False).write(pki / "apiserver")
        kubelets = cluster.authority.issue("kube-apiserver-kubelet-client", groups=["kubeadm:cluster-admins"])
        kubelets.write(pki / "apiserver-kubelet-client")
        cluster.front_proxy.issue("front-proxy-client").write(pki / "front-proxy-client")
        own = [self.name, "localhost", "127.0.0.1", "::1", self.address]
        cluster.etcd.issue(self.name, hosts=own).write(pki / "etcd/server")
        cluster.etcd.issue(self.name, hosts=own).write(pki / "etcd/peer")
        cluster.etcd.issue("kube-etcd-healthcheck-client").write(pki / "etcd/healthcheck-client")
        cluster.etcd.issue("kube-apiserver-etcd-client").write(pki / "apiserver-etcd-client")
        private, public = cluster.service_account_keys
        write_private(pki / "sa.key", private)
        (pki / "sa.pub").write_bytes(public)
        issue, users = cluster.authority.issue, cluster.users
        node = f"system:node:{self.name}"
        for name, user, pair, address in (
            ("super-admin", ADMIN, users[ADMIN], cluster.address),
            ("admin", CLUSTER_ADMIN, users[CLUSTER_ADMIN], cluster.address),
            ("kubelet", node, issue(node, groups=["system:nodes"]), cluster.address),
            (
                "controller-manager",
                "system:kube-controller-manager",
                issue("system:kube-controller-manager"),
                self.address,
            ),
            ("scheduler", "system:kube-scheduler", issue("system:kube-scheduler"), self.address),
        ):
            server = f"https://{address}:6443"
            kubeconfig = Kubeconfig(server, cluster.authority.pair.certificate, {user: pair})
            kubeconfig.write(self.path(f"/etc/kubernetes/{name}.conf"))

    def _lay_manifests(self) -> None:
        """As kubeadm does: written elsewhere on the same file system, mode 0600, and moved in."""
        for name in STATIC_PODS:
            staged = self.path(f"/etc/kubernetes/tmp/{name}.yaml")
            write_private(staged, self._template(f"{name}.yaml").encode())
            staged.rename(self.path(f"{MANIFESTS}/{name}.yaml"))

    def _template(self, name: str) -> str:
        return Template((_TEMPLATES / name).read_text()).substitute(
            address=self.address,
            cluster=",".join(f"{name}=https://{address}:2380" for name, address in self.members.items()),
            etcd=self.etcd_version,
            node=self.name,
            pause=images.PAUSE,
            verbosity=self.verbosity,
            version=self.version,
        )

    def _write(self, path: str, content: str) -> None:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(content)

    def _import_images(self) -> None:
        kubernetes, etcd = self._built[f"kubernetes-{self.release}"], self._built[f"etcd-{ETCD}"]
        tars = images.control_plane(kubernetes, self.version, etcd, self.etcd_version)
        pause = {"pause": self._built["pause"] / "pause"}
        tars += [images.image(images.PAUSE, pause, shell=False, entrypoint="/pause"), images.image(images.SHELL, {})]
        for tar in tars:
            with tar.open("rb") as file:
                done = subprocess.run(
                    self.entering(["ctr", "-n", "k8s.io", "images", "import", "-"]),
                    stdin=file,
                    env=_ENVIRONMENT,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
            assert done.returncode == 0, f"{tar.name}: {done.stdout}{done.stderr}"

    def _finish(self) -> None:
        """What kubeadm does through the API at the end of `init`."""
        client, seconds = self.client(), START_S * len(self.members)
        rbac = "rbac.authorization.k8s.io"
        subject = {"apiGroup": rbac, "kind": "Group", "name": "kubeadm:cluster-admins"}
        role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"}
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "kubeadm:cluster-admins"},
            "roleRef": role,
            "subjects": [subject],
        }
        made = client.request("POST", f"/apis/{rbac}/v1/clusterrolebindings", binding)
        assert made.code in (201, 409), made.body
        path = f"/api/v1/nodes/{self.name}"
        wait_until(lambda: client.code(path) == 200, f"{self.name} has registered", seconds=seconds, by=self.kubelet)
        labels = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}
        patched = client.request("PATCH", path, labels, content_type="application/merge-patch+json")
        assert patched.code == 200, patched.body

        def ready() -> bool:
            conditions = client.request("GET", path).json()["status"].get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

        wait_until(ready, f"{self.name} is ready", seconds=seconds, by=self.kubelet)

    def _keep_logs(self) -> None:
        """Say where the logs of a node that did not come up were put."""
        kept = Path(tempfile.mkdtemp(prefix="real-node-"))
        for log in self.run_folder.path.glob("*.log"):
            shutil.copy(log, kept)
        pods = self.run_folder.path / "disk/var/log/pods"
        if pods.is_dir():
            shutil.copytree(pods, kept / "pods", symlinks=True)
        print(f"real: node {self.name} did not come up; its logs are in {kept}", flush=True)


class _Entering(NodeProcess):
    """Enters the node as it is when it is started: after a `power_off` it is another one."""

    def __init__(self, node: Node, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(name, command, node.run_folder, environment=environment)
        self._node = node
        self._inside = list(command)

    def start(self) -> None:
        self.command = self._node.entering(self._inside)
        super().start()
