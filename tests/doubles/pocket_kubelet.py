"""A kubelet and its CRI for tests: it runs static pods out of a directory, as a real one was seen to.

Every file whose name has no leading dot is a pod, by whatever extension. A change of its parsed content is another
pod uid: the old pod is told to end and killed after its grace period, the new one starts at the worker's next try,
10 to 15 s after the change and again after as much, never before the old one is gone. The same bytes again are the
same uid. Two files with one pod name fight: the later event wins, and at each rescan the name that sorts last. A
container that ends is restarted at once the first time, then after 10, 20, 40 ... 300 s. A hostPath of type File or
Directory that is missing keeps the pod from starting. Ended containers are kept for a while, logs go with the pod.

What the API shows of a pod, its mirror, is late and lies: while the API is away it cannot be written, so that it is
Ready from before; after that it has the new hash up to 7.5 s after the container started, and is Ready 17 to 38 s
after; the same bytes again change nothing of it. And an etcd that is to start anew waits for its old mirror to be
deleted, by a call to the API that needs etcd, until that call gives up after some 31 s.

It answers /healthz as a real one does, on the port that etc/default/kubelet names (`--healthz-port=N`; none without
it, and none for 0), and stands in ROOT/proc, where a node's processes are looked for.

A Python that starts takes a fifth of a second of a core, and hundreds of kubelets and API servers are started in a run
of the tests: so they are forks of one process, which waits for the root of the next on its standard input (`Kubelets`).

SIGUSR1 ends the kubelet alone, as `systemctl stop kubelet` does: containers and CRI live on, and nothing is started.
SIGUSR2 starts it again.

Times are multiplied by `--pace`. State for the double of crictl lies in ROOT/run/pocket: `cri/ID` (one record each),
`stop/ID` (somebody wants it stopped; holds the time-out), `faults/NAME` (read by the stub of the API server). Beside
it `mirror/POD` (JSON, for the double of the API) and `kubelet.log` (what a kubelet says at verbosity 0).
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading  # noqa: F401  the API server's, loaded once
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml

PAUSE = 0.02
"""Seconds between two looks at what there is to do: a kubelet lives as long as its test, and looks all the time."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Process:
    """A process, whoever's child it is, as far as a kubelet's is used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._ended, number)

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Until it has ended."""
        if not select.select([self._ended], [], [], seconds)[0]:
            raise TimeoutError(f"process {self.pid} does not end")

    def __del__(self) -> None:
        os.close(self._ended)


class Kubelets:
    """What kubelets are forked from. It ends with who started it."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, root: Path, pace: float) -> Process:
        """One that runs what lies below a root."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps([str(root), pace, dict(os.environ)]) + "\n")
        return Process(int(self._parent.stdout.readline()))


class Child:
    """A process that was forked from here, with the part of a Popen that is used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """Its code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Its code, once it has ended."""
        code = self.poll(0)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass
class Desired:
    """What a file asks for."""

    file: str
    uid: str
    pod: dict[str, Any]


@dataclass
class Running:
    """A container. `process` is None for a controller: that one lives in here, and ends when the API is long away."""

    id: str
    name: str
    uid: str
    pod: dict[str, Any]
    attempt: int
    log: str
    process: subprocess.Popen[bytes] | Child | None
    started: float
    stamp: str
    exit_code: int | None = None
    finished: str = ""
    ended: float = 0.0
    kill_at: float | None = None
    killed: bool = False
    api_lost: float | None = None
    api_seen: bool = False


@dataclass
class Mirror:
    """What the API shows of a pod."""

    hash: str
    command: list[str]
    ready: bool = True
    hash_at: float | None = None
    ready_at: float | None = None


@dataclass
class Worker:
    """What is going on about one pod name."""

    desired: Desired | None = None
    current: Running | None = None
    next_try: float = 0.0
    crashes: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    mirror: Mirror | None = None
    stalled: str = ""
    """The uid whose start waited for the old mirror already."""


def stamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


class Kubelet:
    def __init__(self, root: Path, pace: float) -> None:
        self.root = root
        self.pace = pace
        self.manifests = root / "etc/kubernetes/manifests"
        self.home = root / "run/pocket"
        for name in ("cri", "stop", "faults", "mirror"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        self.seen: dict[str, tuple[int, int, int]] = {}
        self.workers: dict[str, Worker] = {}
        self.containers: dict[str, Running] = {}
        self.rescan_at = 0.0
        self.random = random.Random(1)
        self.ending = False
        self.asked_at = self.renewed_at = 0.0
        self.reads = self.renewed = False
        self.trust: tuple[int, ssl.SSLContext] | None = None
        self.process = root / "proc" / str(os.getpid())
        self.parent = os.getppid()
        self.health: socket.socket | None = None
        self.wanted = self.running = True
        self.stops, self.still = str(self.home / "stop"), str(self.home / "faults/still")
        self.listens = str(self.home / "port")

    # --- itself ------
    def show_itself(self) -> None:
        """Be seen: as a process, and by its health."""
        settings = self.root / "etc/default/kubelet"
        arguments = settings.read_text().strip().partition("=")[2].split() if settings.exists() else []
        self.process.mkdir(parents=True, exist_ok=True)
        (self.process / "comm").write_text("kubelet\n")
        (self.process / "stat").write_text(f"{os.getpid()} (kubelet) S 1\n")
        (self.process / "cmdline").write_bytes(b"\0".join(word.encode() for word in ["kubelet", *arguments, ""]))
        ports = [int(word.partition("=")[2]) for word in arguments if word.startswith("--healthz-port=")]
        if ports and ports[-1]:
            self.health = socket.create_server(("127.0.0.1", ports[-1]))
            self.health.setblocking(False)

    def hide_itself(self) -> None:
        shutil.rmtree(self.process, ignore_errors=True)
        if self.health is not None:
            self.health.close()
            self.health = None

    def pause(self) -> None:
        """Until it looks again; meanwhile it answers those who ask for its health."""
        until = time.monotonic() + PAUSE
        while (left := until - time.monotonic()) > 0:
            if self.health is None:
                time.sleep(left)
            elif select.select([self.health], [], [], left)[0]:
                with suppress(OSError):  # nobody waits for it any more
                    self.answer(self.health.accept()[0])

    def answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.2)
            asked = connection.recv(4096).split(b" ")[1:2]
            code, body = ("200 OK", "ok") if asked == [b"/healthz"] else ("404 Not Found", "404 page not found\n")
            head = f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(f"{head}{body}".encode())

    # --- files -----------------------------------------------------------------------------------------
    def scan(self, now: float) -> None:
        there: dict[str, tuple[int, int, int]] = {}
        with os.scandir(self.manifests) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    status = os.stat(entry.path)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                there[entry.name] = (status.st_mtime_ns, status.st_ino, status.st_size)
        changed = [name for name, mark in there.items() if self.seen.get(name) != mark]
        changed.sort(key=lambda name: there[name][0])
        for name in changed:
            pod = self.read(name)
            if pod is not None:
                self.want(pod, now)
        for name in self.seen.keys() - there.keys():
            for worker in self.workers.values():
                if worker.desired is not None and worker.desired.file == name:
                    worker.desired = None
        self.seen = there
        if now >= self.rescan_at:
            self.rescan_at = now + 20 * self.pace
            wanted: dict[str, Desired] = {}
            for name in sorted(there):
                pod = self.read(name)
                if pod is not None:
                    wanted[pod.pod["metadata"]["name"]] = pod
            for pod_name, worker in self.workers.items():
                if pod_name not in wanted:
                    worker.desired = None
            for pod in wanted.values():
                self.want(pod, now)

    def read(self, name: str) -> Desired | None:
        try:
            pod = yaml.load((self.manifests / name).read_bytes(), yaml.CSafeLoader)
            if pod["kind"] != "Pod" or not pod["metadata"]["name"] or not pod["spec"]["containers"]:
                return None
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            return None
        digest = hashlib.md5(json.dumps([name, pod], sort_keys=True, default=str).encode()).hexdigest()
        return Desired(name, digest, pod)

    def want(self, desired: Desired, now: float) -> None:
        worker = self.workers.setdefault(desired.pod["metadata"]["name"], Worker())
        if worker.desired is not None and worker.desired.uid == desired.uid:
            return
        worker.desired = desired
        busy = worker.current is not None and worker.current.exit_code is None
        # the first try is at once, and refused while a pod of that name is there
        worker.next_try = now + (10 * self.random.uniform(1, 1.5) * self.pace if busy else 0)

    # --- pods --------------------------------------------------------------------------------------------
    def tend(self, worker: Worker, now: float) -> None:
        current = worker.current
        if current is not None and current.exit_code is None:
            self.collect(current, now)
        if current is not None and current.exit_code is None:
            if worker.desired is None or worker.desired.uid != current.uid:
                grace = float(current.pod["spec"].get("terminationGracePeriodSeconds", 30))
                self.end(current, now, grace * self.pace)
                if now >= worker.next_try:  # refused while a pod of that name is there; nothing wakes it up
                    worker.next_try = now + 10 * self.random.uniform(1, 1.5) * self.pace
            return
        if worker.desired is not None and now >= worker.next_try:
            if self.stalls(worker, now):
                return
            self.start(worker, now)

    def stalls(self, worker: Worker, now: float) -> bool:
        """Whether the outdated mirror has to go first, by an API that needs what is to be started."""
        desired, mirror = worker.desired, worker.mirror
        assert desired is not None
        if mirror is None or mirror.hash == desired.uid or worker.stalled == desired.uid or self.api_reads():
            return False
        worker.stalled = desired.uid
        # refused at once where nobody listens; it hangs where an API server waits for its etcd
        if not self.api_answers():
            return False
        self.say(
            '"Failed deleting a mirror pod" err="context deadline exceeded" pod=' + desired.pod["metadata"]["name"]
        )
        worker.next_try = now + 31 * self.pace
        return True

    def say(self, line: str) -> None:
        with (self.home / "kubelet.log").open("a") as log:
            log.write(line + "\n")

    # --- what the API shows ----------------------------------------------------------------------------
    def reflect(self, worker: Worker, now: float) -> None:
        running, mirror = worker.current, worker.mirror
        if running is None or running.exit_code is not None:
            return
        command = [*running.pod["spec"]["containers"][0].get("command", ())]
        if mirror is None:
            if self.api_reads():
                worker.mirror = Mirror(running.uid, command)
                self.show(running.pod["metadata"]["name"], worker.mirror)
            return
        if mirror.hash != running.uid and mirror.hash_at is None and self.api_reads():
            mirror.hash_at = now + self.random.uniform(0, 7.5) * self.pace
            mirror.ready_at = now + self.random.uniform(17, 38) * self.pace
        if mirror.hash_at is not None and now >= mirror.hash_at:
            mirror.hash, mirror.command, mirror.ready, mirror.hash_at = running.uid, command, False, None
            self.say('"Deleted mirror pod as it didn\'t match the static Pod"')
            self.show(running.pod["metadata"]["name"], mirror)
        if mirror.hash_at is None and mirror.ready_at is not None and now >= mirror.ready_at:
            mirror.ready, mirror.ready_at = True, None
            self.show(running.pod["metadata"]["name"], mirror)

    def show(self, name: str, mirror: Mirror) -> None:
        draft = self.home / f"draft-{name}"
        draft.write_text(json.dumps({"hash": mirror.hash, "ready": mirror.ready, "command": mirror.command}))
        draft.rename(self.home / "mirror" / name)

    def api_reads(self) -> bool:
        """Whether the API answers what it has to ask etcd for; asked once a second."""
        now = time.monotonic()
        if now - self.asked_at < self.pace:
            return self.reads
        self.asked_at, self.reads = now, False
        path = b"GET /api/v1/namespaces/kube-system/pods/x HTTP/1.1\r\nHost: api\r\n\r\n"
        try:
            port = self.port()
            with (
                socket.create_connection(("127.0.0.1", port), 0.2) as plain,
                self.credentials().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                connection.settimeout(0.2)
                connection.sendall(path)
                self.reads = b" 200 " in connection.recv(64)
        except (OSError, ValueError):
            pass
        return self.reads

    def credentials(self) -> ssl.SSLContext:
        """Those of kubelet for the API; read again when the authority's file is another one."""
        pki = self.root / "etc/kubernetes/pki"
        made = (pki / "ca.crt").stat().st_mtime_ns
        if self.trust is None or self.trust[0] != made:
            context = ssl.create_default_context(cafile=pki / "ca.crt")
            context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
            self.trust = made, context
        return self.trust[1]

    def collect(self, running: Running, now: float) -> None:
        """See whether it has ended, and kill it when its grace is over."""
        code: int | None = None
        if running.process is not None:
            code = running.process.poll()
            if code is None and running.kill_at is not None and now >= running.kill_at and not running.killed:
                running.killed = True
                running.process.kill()
                code = running.process.wait()
        elif running.kill_at is not None:
            code = 0
        else:
            if self.lease_renewed(now):
                running.api_seen, running.api_lost = True, None
            elif running.api_lost is None:
                running.api_lost = now
            elif running.api_seen and now - running.api_lost > 11 * self.pace:
                code = 1
        if code is None:
            return
        running.exit_code = 128 - code if code < 0 else code
        running.finished, running.ended = stamp(), now
        self.record(running)
        worker = self.workers[running.pod["metadata"]["name"]]
        if worker.desired is not None and worker.desired.uid == running.uid:
            crashes = worker.crashes.get(running.uid, 0)
            wait = 0.5 if crashes == 0 else min(300, 10 * 2 ** (crashes - 1))
            worker.crashes[running.uid] = crashes + 1
            worker.next_try = now + wait * self.pace

    def lease_renewed(self, now: float) -> bool:
        """Whether the API answered the controllers; they renew their leases every 2 s."""
        if now - self.renewed_at >= 2 * self.pace:
            self.renewed_at, self.renewed = now, self.api_answers()
        return self.renewed

    def api_answers(self) -> bool:
        try:
            port = self.port()
            with socket.create_connection(("127.0.0.1", port), 0.2):
                return True
        except (OSError, ValueError):
            return False

    def port(self) -> int:
        """The API server's."""
        with open(self.listens) as file:
            return int(file.read())

    def end(self, running: Running, now: float, grace: float) -> None:
        if running.kill_at is None:
            running.kill_at = now + grace
            if running.process is not None:
                running.process.send_signal(signal.SIGTERM)

    def start(self, worker: Worker, now: float) -> None:
        assert worker.desired is not None
        pod, uid = worker.desired.pod, worker.desired.uid
        spec = pod["spec"]
        places: dict[str, str] = {}
        for volume in spec.get("volumes", ()):
            host = volume.get("hostPath", {})
            path = self.root / str(host.get("path", "")).lstrip("/")
            kind = host.get("type", "")
            if kind == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            if (kind == "File" and not path.is_file()) or (kind == "Directory" and not path.is_dir()):
                worker.next_try = now + 2 * self.pace
                return
            places[volume["name"]] = str(path)
        container = spec["containers"][0]
        mounts = {mount["mountPath"]: places[mount["name"]] for mount in container.get("volumeMounts", ())}
        attempt = worker.attempts.get(uid, -1) + 1
        worker.attempts[uid] = attempt
        name = container["name"]
        log = f"/var/log/pods/kube-system_{pod['metadata']['name']}_{uid}/{name}/{attempt}.log"
        path = self.root / log[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        process: subprocess.Popen[bytes] | Child | None = None
        command = [*container.get("command", ()), *container.get("args", ())]
        if name == "kube-apiserver":
            process = self.serve(command, path, mounts)
        elif name == "etcd":  # the real one, by the path that its manifest says
            with path.open("wb") as output:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        identity = hashlib.sha256(f"{uid}{attempt}{now}".encode()).hexdigest()
        running = Running(identity, name, uid, pod, attempt, log, process, now, stamp())
        worker.current = running
        self.containers[identity] = running
        self.record(running)

    def serve(self, command: list[str], log: Path, mounts: dict[str, str]) -> Child:
        """Start an API server."""
        environment = {
            "POCKET_MOUNTS": json.dumps(mounts),
            "POCKET_HOME": str(self.home),
            "POCKET_PACE": str(self.pace),
            "HOSTNAME_OF_NODE": (self.root / "etc/hostname").read_text().strip(),
        }
        # a signal that is sent at once is for itself, and not for what of its kubelet is in it still
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            become(partial(run_apiserver, command, environment), mask, log)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Child(pid)

    # --- CRI ---------------------------------------------------------------------------------------------
    def record(self, running: Running) -> None:
        lines = {
            "id": running.id,
            "name": running.name,
            "namespace": "kube-system",
            "state": "CONTAINER_RUNNING" if running.exit_code is None else "CONTAINER_EXITED",
            "attempt": running.attempt,
            "exitCode": running.exit_code or 0,
            "startedAt": running.stamp,
            "finishedAt": running.finished or "1970-01-01T00:00:00Z",
            "uid": running.uid,
            "logPath": str(running.log),
            "program": running.pod["spec"]["containers"][0].get("command", [""])[0],
        }
        path = self.home / "cri" / running.id
        draft = self.home / f"draft-{running.id}"
        draft.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        draft.rename(path)

    def obey(self, now: float) -> None:
        for name in os.listdir(self.stops):
            if name.startswith("."):
                continue
            path = self.home / "stop" / name
            running = self.containers.get(path.name)
            if running is None or running.exit_code is not None:
                path.unlink(missing_ok=True)
                continue
            try:
                self.end(running, now, float(path.read_text() or 0) * self.pace)
            except ValueError:
                continue
            self.collect(running, now)

    def forget(self, now: float) -> None:
        """An ended pod's containers and logs, and all but the last two attempts of a living one."""
        for identity, running in list(self.containers.items()):
            if running.exit_code is None:
                continue
            worker = self.workers[running.pod["metadata"]["name"]]
            mine = worker.desired is not None and worker.desired.uid == running.uid
            old = worker.attempts.get(running.uid, 0) - running.attempt > 1
            if (mine and old) or (not mine and worker.current is not running and now - running.ended > 35 * self.pace):
                (self.home / "cri" / identity).unlink(missing_ok=True)
                (self.root / running.log[1:]).unlink(missing_ok=True)
                del self.containers[identity]

    def run(self) -> None:
        self.show_itself()
        try:
            # nobody ends it where the tests were killed
            while not self.ending and os.getppid() == self.parent:
                # it lives, and does nothing, so that a test may say what its containers did
                if os.path.exists(self.still):
                    (self.home / "held").touch()
                    self.pause()
                    continue
                now = time.monotonic()
                if self.wanted is not self.running:
                    self.running = self.wanted
                    (self.show_itself if self.running else self.hide_itself)()
                self.obey(now)
                if not self.running:
                    for one in self.containers.values():
                        if one.exit_code is None:
                            self.collect(one, now)
                    self.pause()
                    continue
                self.scan(now)
                for worker in self.workers.values():
                    self.tend(worker, now)
                    self.reflect(worker, now)
                self.forget(now)
                self.pause()
        finally:
            self.hide_itself()
            for running in self.containers.values():
                if running.process is not None and running.process.poll() is None:
                    running.process.kill()
                    running.process.wait()


def become(what: Callable[[], None], mask: set[signal.Signals], log: Path | None = None) -> NoReturn:
    """What a fork does instead of what it was forked from: nothing of that one's signals and files stays."""
    try:
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if log is not None:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
        os.dup2(2, 1)
        os.closerange(3, 256)
        what()
    except BaseException:  # noqa: BLE001  told, and the end of it
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_apiserver(command: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sys.argv = command
    import stub_apiserver  # it reads both as it is loaded

    stub_apiserver.main()


def run_kubelet(root: Path, pace: float, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    kubelet = Kubelet(root, pace)

    # not by SystemExit: in a finalizer that would be ignored
    def end(*_: object) -> None:
        kubelet.ending = True

    def come_and_go(number: int, _frame: object) -> None:
        kubelet.wanted = number == signal.SIGUSR2

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGUSR1, come_and_go)
    signal.signal(signal.SIGUSR2, come_and_go)
    kubelet.run()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end what they started
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here asks how a kubelet ended
    gc.freeze()
    while line := sys.stdin.readline():
        root, pace, environment = json.loads(line)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            become(partial(run_kubelet, Path(root), pace, environment), mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
