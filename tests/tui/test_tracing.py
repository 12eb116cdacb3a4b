"""`trace -- COMMAND` as an operator runs it: real processes, a real receiver, and an API server that follows the rules
of the releases about tracing and exports real OTLP."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from receiver.control import ControlClient
from tests import program
from tests.conftest import StartReceiver
from tests.doubles.tracing_api import ADMIN, PLAIN, TracingApi
from tests.live_receiver import LiveReceiver
from tui import tracing
from tui.cli import main
from tui.clusters.force.groups import recall

# A client that honours KUBECONFIG: each argument is METHOD:PATH, `print` its codes, `wait` stays until stdin ends.
CLIENT = """
import base64, http.client, json, os, ssl, sys, urllib.parse, yaml
found = yaml.safe_load(open(os.environ["KUBECONFIG"]))
cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
server = urllib.parse.urlsplit(cluster["server"]).netloc
connection = http.client.HTTPSConnection(server, context=trust, timeout=30)
for what in sys.argv[1:]:
    times, _, what = what.rpartition("*")
    method, _, path = what.partition(":")
    for _ in range(int(times or 1)):
        body = b"{}" if method == "POST" else None
        connection.request(method, path, body, {"Authorization": "Bearer " + user["token"]})
        answer = connection.getresponse()
        answer.read()
    print(answer.status, flush=True)
"""

# Runs a client, then waits to be interrupted.
INTERRUPTED = """
import os, signal, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]])
try:
    print("terminal", os.isatty(0), os.isatty(1), os.isatty(2), flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(5)
"""


@dataclass
class Bench:
    """Where commands are traced: the API server, the receiver, and an environment of its own."""

    folder: Path
    api: TracingApi
    live: LiveReceiver
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *words: str, **options: str | bool) -> list[str]:
        """The command line that traces `words`; options as `wait="3"`, `open=True`."""
        given = [
            part
            for name, value in {"wait": "10", "db": str(self.live.db), **options}.items()
            for part in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
        ]
        return [sys.executable, "-m", "tui.cli", "trace", *given, *(("--", *words) if words else ())]

    def run(self, *words: str, **options: str | bool) -> subprocess.CompletedProcess[str]:
        """Trace a command from this process, which saves a second."""
        for name in ("KUBECONFIG", "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
            self.monkeypatch.setenv(name, self.environment[name])
        self.monkeypatch.setattr(tempfile, "tempdir", None)
        self.capfd.readouterr()
        command = self.command(*words, **options)[3:]
        code = main(command)
        return subprocess.CompletedProcess(command, code, *self.capfd.readouterr())

    def start(self, *words: str, stdin: str = "", **options: str | bool) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        return program.run(*self.command(*words, **options)[2:], input=stdin, env=self.environment)

    def client(self, *asks: str) -> list[str]:
        """The command that makes these requests, one after the other on one connection."""
        return [sys.executable, str(self.folder / "client.py"), *asks]

    def documents(self, *asks: str, **options: str | bool) -> list[dict[str, Any]]:
        """`--json` of a command that makes these requests."""
        file = self.folder / "out.json"
        done = self.run(*self.client(*asks), json=str(file), **options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in file.read_text().splitlines()]

    def use(self, token: str, **options: str) -> None:
        self.environment["KUBECONFIG"] = str(self.api.kubeconfig(token, **options))

    def left(self) -> list[str]:
        """What is left of directories of ours."""
        return [one.name for one in (self.folder / "run").iterdir()]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(
    tmp_path: Path, receiver: StartReceiver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[MakeBench]:
    started: list[TracingApi] = []

    def make(token: str = ADMIN, **options: Any) -> Bench:
        live = receiver()
        api = TracingApi(tmp_path / "api", **{"endpoint": live.address, **options})
        api.start()
        started.append(api)
        (tmp_path / "client.py").write_text(CLIENT)
        (tmp_path / "run").mkdir(mode=0o700)
        made = Bench(tmp_path, api, live, monkeypatch, capfd)
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        made.environment = {
            **clean,
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "TMPDIR": str(tmp_path / "run"),
            "TERM": "xterm-256color",
        }
        made.use(token)
        return made

    yield make
    for api in started:
        api.stop()


# --- the kubeconfig and what is kept ---
KUBECTL = """
import os, pathlib, subprocess, sys, urllib.parse, yaml
found = yaml.safe_load(open(os.environ["KUBECONFIG"]))
if "--context" in sys.argv:
    print("error: context does not exist", file=sys.stderr)
    sys.exit(1)
host = urllib.parse.urlsplit(found["clusters"][0]["cluster"]["server"]).netloc.replace(":", "_")
kept = pathlib.Path(os.environ.get("KUBECACHEDIR") or os.path.expanduser("~/.kube/cache")) / "discovery" / host
asks = ["GET:/api/v1/nodes"] if kept.is_dir() else ["GET:/api", "GET:/apis", "GET:/api/v1/nodes"]
kept.mkdir(parents=True, exist_ok=True)
sys.exit(subprocess.run([sys.executable, CLIENT, *asks]).returncode)
"""
"""Discovers as kubectl does: once for each host and port, kept where KUBECACHEDIR says."""


def kubectl(at: Bench) -> list[str]:
    program = at.folder / "kubectl"
    program.write_text(f"#!{sys.executable}\nCLIENT = {str(at.folder / 'client.py')!r}\n{KUBECTL}")
    program.chmod(0o755)
    return [str(program)]


def test_discovery_is_kept_for_the_next_run_and_told_apart(bench: MakeBench) -> None:
    at = bench()
    file = at.folder / "out.json"
    first = at.run(*kubectl(at), "get", json=str(file))
    assert "kubectl get: 3 requests (2 of discovery), 3 traced" in first.stderr
    assert re.search(r"get .*/apis +\(discovery\)", first.stderr)
    assert [json.loads(line)["discovery"] for line in file.read_text().splitlines()] == [True, True, False]
    second = at.run(*kubectl(at), "get")
    assert "kubectl get: 1 request, 1 traced" in second.stderr, "as untraced, when kubectl has it"
    assert not (at.folder / ".kube").exists()
    assert at.left() == []


def test_a_command_that_names_a_context_is_told_where_to_name_it(bench: MakeBench) -> None:
    at = bench()
    done = at.run(*kubectl(at), "--context", "my prod", "get", "pods")
    assert done.returncode == 1
    assert "k8s-trace-tui trace --context 'my prod' -- kubectl ..." in done.stderr
    assert "holds the context lab alone" in done.stderr


# --- what is told ---------------------------------------------------------------------------------------
def test_each_request_is_told_and_equals_what_the_other_commands_say(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at = bench()
    found = at.documents("GET:/api/v1/nodes", "POST:/api/v1/namespaces/shop/pods", "GET:/api/v1/pods/missing")
    assert [(one["method"], one["code"], one["how"], one["why"]) for one in found] == [
        ("GET", 200, "forced", None),
        ("POST", 201, "forced", None),
        ("GET", 404, "forced", None),
    ]
    audits = {headers["audit-id"] for _, _, headers, _ in at.api.requests if "traceparent" in headers}
    assert {one["audit_id"] for one in found} == audits
    assert stat.S_IMODE((at.folder / "out.json").stat().st_mode) == 0o600
    assert at.left() == []

    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    for one in found:
        assert main(["show", "--json", one["trace_id"], "--db", str(at.live.db)]) == 0
        assert json.loads(capfd.readouterr().out) == one["show"]
        assert main(["traces", "--json", f"trace={one['trace_id']}", "--db", str(at.live.db)]) == 0
        assert json.loads(capfd.readouterr().out) == one["trace"]
    (group,) = recall(at.live.db)
    assert group.traces == tuple(one["trace_id"] for one in found)


def test_text_has_a_line_and_a_verdict_for_each(bench: MakeBench) -> None:
    at = bench()
    done = at.run(*at.client("GET:/api/v1/namespaces/shop/pods/cart"))
    assert done.stdout == "200\n"
    assert re.search(r"1 request, 1 traced, \d+ spans", done.stderr)
    assert re.search(r"^ 200 .*get pods shop/cart$", done.stderr, re.M)
    assert "Nothing remarkable" in done.stderr
    assert "still arriving" not in done.stderr


_NOTHING_COMES = (
    "the sampler did not take this request",
    "none before 1.33 takes a caller's trace",
    "arm it once (one restart)",
    "exporters send every 5 s",
)


@pytest.mark.parametrize(
    ("token", "options", "words"),
    [
        (PLAIN, {}, "the sampler did not take this request"),
        (PLAIN, {"per_million": 1_000_000}, "1 taken by the sampler"),
        (ADMIN, {"version": "v1.31.4", "per_million": 1_000_000}, "1 taken by the sampler"),
        (ADMIN, {"version": "v1.32.4"}, "none before 1.33 takes a caller's trace"),
        (ADMIN, {"configured": False, "etcd_traced": False}, "arm it once (one restart)"),
        (ADMIN, {"endpoint": "127.0.0.1:9"}, "exporters send every 5 s"),
        (ADMIN, {"etcd_traced": False}, "sampling arm --component etcd"),
        ("a token of nobody", {}, "did not know who asked (401)"),
        (ADMIN, {"answers": {"/api/v1/nodes": 403}}, "403"),
        (ADMIN, {"answers": {"/api/v1/nodes": 429}}, "429"),
        (ADMIN, {"answers": {"/api/v1/nodes": 503}}, "answered with 503"),
    ],
)
def test_what_is_missing_and_why(bench: MakeBench, token: str, options: dict[str, Any], words: str) -> None:
    at = bench(token, **options)
    done = at.run(*at.client("GET:/api/v1/nodes"), wait="0.5" if words in _NOTHING_COMES else "10")
    assert done.returncode == 0, "the exit code is the command's own"
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    for secret in (ADMIN, PLAIN, token):
        assert secret not in done.stderr
    assert at.left() == []


# --- the command is its own -----------------------------------------------------------------------------
def test_streams_and_exit_codes_are_the_commands(bench: MakeBench) -> None:
    at = bench()
    done = at.start("sh", "-c", "cat; echo error >&2; exit 7", stdin="in\n")
    assert (done.returncode, done.stdout) == (7, "in\n")
    assert done.stderr.splitlines()[0] == "error"
    assert "No request of sh came through" in done.stderr
    assert at.run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    missing = at.run("no-such-program")
    assert missing.returncode == 127
    assert "There is no program no-such-program" in missing.stderr
    plain = at.folder / "plain"
    plain.write_text("")
    assert at.run(str(plain)).returncode == 126
    assert at.left() == []
    assert recall(at.live.db) == [], "a command without requests is no group"


@dataclass
class Terminal:
    """A command on a terminal of its own."""

    pid: int
    fd: int
    said: bytes = b""

    def until(self, words: bytes, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < end, self.said[-2000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                self.said += os.read(self.fd, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code, after all that it said."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if select.select([self.fd], [], [], 0.1)[0]:
                    self.said += os.read(self.fd, 65536)
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def on_terminal(command: list[str], environment: dict[str, str]) -> Terminal:
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    return Terminal(pid, fd)


def test_the_command_sees_a_terminal_and_gets_ctrl_c(bench: MakeBench) -> None:
    at = bench()
    script = at.folder / "interrupted.py"
    script.write_text(INTERRUPTED)
    client = at.client("GET:/api/v1/nodes")
    terminal = on_terminal(at.command(sys.executable, str(script), *client[1:]), at.environment)
    terminal.until(b"terminal True True True")
    terminal.type(b"\x03")
    assert terminal.wait() == 5
    assert b"interrupted" in terminal.said
    assert b"1 request, 1 traced" in terminal.said, "after Ctrl-C in the command its requests are told"
    assert at.left() == []


def test_after_sigkill_the_next_start_takes_away_what_was_left(bench: MakeBench) -> None:
    at = bench()
    config = Path(at.environment["KUBECONFIG"])
    inline = json.loads(config.read_text())
    issued = at.api.issue("kubernetes-super-admin")
    inline["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(issued.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(issued.key.read_bytes()).decode(),
    }
    config.write_text(json.dumps(inline))
    ours = subprocess.Popen(
        at.command("sh", "-c", "echo $$; exec sleep 60"), stdout=subprocess.PIPE, text=True, env=at.environment
    )
    assert ours.stdout is not None
    child = int(ours.stdout.readline())
    ours.kill()
    ours.wait()
    os.kill(child, signal.SIGKILL)
    ours.stdout.close()
    left = at.left()
    assert left, "nothing of ours could take it away"
    assert all(name.startswith(f"k8s-trace-tui-trace-{ours.pid}-") for name in left)
    assert {stat.S_IMODE((at.folder / "run" / name).stat().st_mode) for name in left} == {0o700}
    at.start("true")
    assert at.left() == [], "the next start does, keys of the kubeconfig among it"


def test_a_wait_that_is_cut_short_concludes_nothing(bench: MakeBench) -> None:
    at = bench(endpoint="127.0.0.1:9")
    terminal = on_terminal(at.command(*at.client("GET:/api/v1/nodes"), wait="600"), at.environment)
    terminal.until(b"waiting for spans")
    terminal.type(b"\x03")
    assert terminal.wait() == 0
    assert b"600 s" not in terminal.said
    assert b"exporters send every 5 s" in terminal.said


def test_what_is_refused_and_what_cannot_be_written(bench: MakeBench) -> None:
    at = bench()
    done = at.run(*at.client("GET:/api/v1/nodes"), json="/dev/full")
    assert done.returncode == 0
    assert "cannot be written to /dev/full (No space left on device)" in done.stderr
    for words in (("true",), ("kubectl", "delete", "pod", "cart"), ("kubectl",)):
        refused = at.run(*words, read_only=True)
        assert refused.returncode == 2
        assert "--read-only lets only" in refused.stderr
    assert at.run("true", json="-").returncode == 1, "standard output is the command's"


def test_sigterm_is_passed_on(bench: MakeBench) -> None:
    at = bench()
    ours = subprocess.Popen(
        at.command("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=at.environment,
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == b"ready\n"
    ours.terminate()
    assert ours.wait(30) == 9
    ours.stdout.close()
    assert at.left() == []


# --- many -------------------------------------------------------------------------------------------------
def test_a_thousand_requests_of_one_command(bench: MakeBench) -> None:
    at = bench()
    found = at.documents("1000*GET:/api/v1/namespaces/shop/configmaps/flags", wait="30")
    assert len(found) == 1000
    assert {one["how"] for one in found} == {"forced"}
    assert len({one["trace_id"] for one in found}) == 1000
    (group,) = recall(at.live.db)
    assert len(group.traces) == 1000


def test_two_at_once_keep_apart(bench: MakeBench) -> None:
    at = bench()
    both = [
        program.start(
            *at.command(*at.client(f"20*GET:/api/v1/namespaces/{name}/pods"))[2:],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=at.environment,
        )
        for name in ("one", "two")
    ]
    told = [process.communicate(timeout=60)[1] for process in both]
    for name, text in zip(("one", "two"), told, strict=True):
        assert "20 requests, 20 traced" in text
        assert text.count(f"list pods {name}/") == 20
    first, second = recall(at.live.db)
    assert not set(first.traces) & set(second.traces)
    assert len(first.traces) == len(second.traces) == 20


def test_runs_are_compared_and_writes_are_not_repeated(bench: MakeBench) -> None:
    at = bench()
    found = at.documents("GET:/api/v1/nodes", compare="3")
    assert [one.get("run") for one in found] == [1, 2, 3, None]
    told = found[-1]["comparison"]
    assert (told["runs"], told["traced_runs"]) == (3, 3)
    assert [one["name"] for one in told["whole"]] == ["the command", "its requests"]
    assert all(one["min_ns"] <= one["median_ns"] <= one["max_ns"] for one in told["phases"] + told["requests"])
    assert {"etcd", "filters"} <= {one["name"] for one in told["phases"]}
    write = at.client("POST:/api/v1/namespaces/shop/pods")
    done = at.run(*write, compare="3")
    assert "changes something (POST /api/v1/namespaces/shop/pods), so it is not run again" in done.stderr
    assert done.stdout == "201\n"
    assert at.run(*write, compare="2", yes=True).stdout == "201\n201\n"
    assert at.run(*at.client("POST:/api/v1/namespaces/shop/pods?dryRun=All"), compare="2").stdout == "201\n201\n"


# --- credentials -------------------------------------------------------------------------------------------
def test_an_identity_makes_the_difference(bench: MakeBench) -> None:
    at = bench(PLAIN)
    refused = at.run(issue_identity=True)
    assert refused.returncode == 2, "nothing is asked for without an answer"
    assert not at.api.csrs
    issued = at.run(issue_identity=True, yes=True, days="2")
    assert issued.returncode == 0, issued.stderr
    assert "as alice, in kubeadm:cluster-admins as now, and in system:monitoring, valid for 2 days" in issued.stderr
    (file,) = (at.folder / "config/k8s-trace-tui/identities").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = at.run(*at.client("GET:/api/v1/nodes"))
    assert "with the identity of alice" in done.stderr
    assert "1 request, 1 traced" in done.stderr
    without = at.run(*at.client("GET:/api/v1/nodes"), no_identity=True, wait="1")
    assert "1 request, 0 traced" in without.stderr


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "/no/such/plugin", "installHint": "Ask Ann."}}, "is not here: install it (Ask Ann),"),
        ({"exec": {"command": "sh", "args": ["-c", "echo no session >&2; exit 1"]}}, "cannot be had"),
        ({"client-certificate": "/no/such/file.pem", "client-key": "/no/such/key.pem"}, "file.pem"),
    ],
)
def test_without_credentials_nothing_is_run(bench: MakeBench, user: dict[str, Any], words: str) -> None:
    at = bench()
    file = Path(at.environment["KUBECONFIG"])
    document = json.loads(file.read_text())
    if "exec" in user:
        user["exec"] |= {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    document["users"][0]["user"] = user
    file.write_text(json.dumps(document))
    done = at.run("sh", "-c", "echo it ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert at.left() == []


def test_a_server_that_is_not_there(bench: MakeBench) -> None:
    at = bench()
    at.use(ADMIN, server="https://127.0.0.1:9")
    done = at.run(*at.client("GET:/api/v1/nodes"))
    assert done.returncode == 0
    assert done.stdout == "502\n"
    assert "cannot be reached" in done.stderr
    assert done.stderr.count("cannot be reached") == 2, "before, and for the request"
    assert "restarting?." not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a command"),
        (["--issue-identity", "--", "true"], "runs no command"),
        (["--days", "3", "--", "true"], "--days is for"),
        (["--compare", "0", "--", "true"], "not a number"),
        (["--wait", "-1", "--", "true"], "not a number of seconds"),
    ],
)
def test_a_command_line_that_is_not_understood(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", *arguments]) == 2
    assert words in capsys.readouterr().err


# --- other clients, the plugin, the screens -------------------------------------------------------------------
def test_the_python_client_and_curl_and_kubectl(bench: MakeBench) -> None:
    at = bench()
    script = at.folder / "python_client.py"
    script.write_text(
        "from kubernetes import client, config\n"
        "config.load_kube_config()\n"
        "core = client.CoreV1Api()\n"
        "print([node.metadata.name for node in core.list_node().items])\n"
        "print(core.read_namespaced_pod_log('cart', 'shop').count('a line'))\n"
    )
    done = at.run(sys.executable, str(script))
    assert done.stdout == "['cp1']\n3\n"
    assert "2 requests, 2 traced" in done.stderr
    assert "get pods/log shop/cart" in done.stderr
    if shutil.which("curl"):
        # what is in a kubeconfig, as curl takes it
        curl = (
            "import base64, os, subprocess, sys, yaml; found = yaml.safe_load(open(os.environ['KUBECONFIG']));"
            "cluster = found['clusters'][0]['cluster']; ca = os.environ['KUBECONFIG'] + '.ca';"
            "open(ca, 'wb').write(base64.b64decode(cluster['certificate-authority-data']));"
            "token = found['users'][0]['user']['token'];"
            "url = cluster['server'] + '/api/v1/nodes/cp1';"
            "code = subprocess.call(['curl', '-sS', '--cacert', ca, '-H', f'Authorization: Bearer {token}', url]);"
            "os.unlink(ca); sys.exit(code)"
        )
        done = at.run(sys.executable, "-c", curl)
        assert json.loads(done.stdout)["metadata"]["name"] == "cp1"
        assert "get nodes cp1" in done.stderr
    if shutil.which("kubectl"):
        done = at.run("kubectl", "get", "pods", "-n", "shop", "-o", "name")
        assert done.stdout == "pod/pod-1\npod/pod-2\n"
        assert "list pods shop/" in done.stderr


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("get", "pods"), ("kubectl", "get", "pods")),
        (("diff", "-f", "x"), ("kubectl", "diff", "-f", "x")),
        (("kubectl", "top"), ("kubectl", "top")),
        (("sh", "-c", "x"), ("sh", "-c", "x")),
    ],
)
def test_the_plugin_of_kubectl_puts_its_name_before(words: tuple[str, ...], command: tuple[str, ...]) -> None:
    assert tracing.plugin_words(words) == command


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_as_a_plugin_of_kubectl(bench: MakeBench) -> None:
    at = bench()
    (at.folder / "bin").mkdir()
    plugin = at.folder / "bin/kubectl-trace_tui"
    plugin.write_text(f"#!{sys.executable}\nimport sys\nfrom tui.cli import plugin\nsys.exit(plugin())\n")
    plugin.chmod(0o755)
    done = subprocess.run(
        ["kubectl", "trace-tui", "--db", str(at.live.db), "--", "get", "pods", "-n", "shop", "-o", "name"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**at.environment, "PATH": f"{at.folder / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "pod/pod-1\npod/pod-2\n"), done.stderr
    assert "list pods shop/" in done.stderr


def test_without_a_receiver_one_is_started(bench: MakeBench) -> None:
    at = bench()
    at.live.stop()  # its port is free now
    done = at.run(*at.client("GET:/api/v1/nodes"), listen=at.live.address)
    try:
        assert "1 request, 1 traced" in done.stderr
    finally:
        client = ControlClient.connect(at.live.db)
        client.request("stop")
        client.close()


def test_the_database_is_not_overwritten(bench: MakeBench) -> None:
    at = bench()
    for file in (at.live.db, at.live.db.with_name("spans.db.commands")):
        done = at.run("sh", "-c", "echo it ran", json=str(file))
        assert (done.returncode, done.stdout) == (1, "")
        assert "would be overwritten" in done.stderr


def test_the_file_of_before_stays_until_there_is_something_to_write(bench: MakeBench) -> None:
    at = bench()
    file = at.folder / "out.json"
    file.write_text("before")
    at.run("true", json=str(file))
    at.run("no-such-command-anywhere", json=str(file))
    assert file.read_text() == "before"
    at.run(*at.client("GET:/api/v1/nodes"), json=str(file), wait="0")
    assert json.loads(file.read_text().splitlines()[0])["run"] == 1
    assert not [name for name in os.listdir(at.folder) if name.startswith(".out.json")]


def test_open_shows_the_commands_requests_alone(bench: MakeBench) -> None:
    at = bench(per_million=1_000_000)
    at.run(*at.client("GET:/api/v1/namespaces/other/pods"))  # not of the command
    command = at.command("sh", "-c", f"{' '.join(at.client('GET:/api/v1/namespaces/mine/pods'))}; exit 3", open=True)
    terminal = on_terminal(command, {**at.environment, "COLUMNS": "120", "LINES": "30"})
    terminal.until(b"mine")
    terminal.until(b"sh (1 request)")
    assert b"other" not in terminal.said
    terminal.type(b"q")
    assert terminal.wait() == 3
    assert b"1 request, 1 traced" in terminal.said
