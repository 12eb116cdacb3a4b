"""`python -m tests.real`: builds real components, brings a control plane up for a person, runs the tests on them.

    build [--release R ...]          compile what is missing (default: what `test` needs)
    up plain|node|three [--release R]  bring one up, print its kubeconfig, and take it down at Ctrl-C
    test [--release R] [-- PYTEST]   what gates: plain and node of 1.36, plain of one further release
    all [-- PYTEST]                  every test on every release; takes hours
    table [--release R] [--runs N]   step, said, seen: each kind of change N times (5) on a node; takes an hour

The folder that $K8S_TRACE_TUI_REAL names holds what was built and what runs. Each part says how long it took.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.real import build, plain, releases, table
from tests.real import node as nodes
from tests.real.certificates import Kubeconfig
from tests.real.lan import Forward, Lan
from tests.real.node import Node
from tests.real.plain import Plain
from tests.real.three_nodes import ThreeNodes
from tests.real.workspace import Unavailable, workspace

_REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    further: list[str] = []
    if "--" in given:
        at = given.index("--")
        given, further = given[:at], given[at + 1 :]
    asked = _parser().parse_args(given)
    try:
        workspace()
        if asked.action == "build":
            if asked.release:
                return _build([name for release in asked.release for name in nodes.needed(release)])
            return _build(_gating(releases.further()))
        if asked.action == "up":
            return _up(asked.what, asked.release or releases.GATING)
        if asked.action == "table":
            return table.run(asked.release or releases.GATING, asked.runs)
        if asked.action == "test":
            return _test(asked.release or releases.further(), further)
        return _pytest([*build.KUBERNETES], ["1.36", "1.37"], ["-m", "long or not long", *further])
    except Unavailable as reason:
        print(f"real: {reason}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    builds = actions.add_parser("build", help="compile what is missing")
    builds.add_argument("--release", action="append", choices=build.KUBERNETES, help="of Kubernetes; may be repeated")
    up = actions.add_parser("up", help="bring a control plane up, until Ctrl-C")
    up.add_argument("what", choices=("plain", "node", "three"))
    up.add_argument("--release", choices=build.KUBERNETES)
    test = actions.add_parser("test", help="what gates; pytest's arguments behind --")
    test.add_argument("--release", choices=build.KUBERNETES, help="the further one (default: by the commit's hash)")
    rows = actions.add_parser("table", help="what plans say and what is seen, measured")
    rows.add_argument("--release", choices=build.KUBERNETES)
    rows.add_argument("--runs", type=int, default=5)
    actions.add_parser("all", help="every test on every release; pytest's arguments behind --")
    return parser


def _gating(further: str) -> list[str]:
    """What `test` needs."""
    return [*nodes.needed(releases.GATING), *plain.needed(further)]


def _build(names: Sequence[str]) -> int:
    began = time.monotonic()
    for name, folder in build.build(names).items():
        print(f"real: {name}: {folder}")
    print(f"real: built in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _test(further: str, arguments: Sequence[str]) -> int:
    on_plain = list(dict.fromkeys([releases.GATING, further]))
    print(f"real: plain of {' and '.join(on_plain)}, a node of {releases.GATING} (--release {further})", flush=True)
    _build(_gating(further))
    return _pytest(on_plain, [releases.GATING], arguments)


def _pytest(on_plain: list[str], on_nodes: list[str], arguments: Sequence[str]) -> int:
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-n", "0", "-s", "--durations=20", "--durations-min=1"]
    done = subprocess.run(
        [*command, str(Path(__file__).parent), *arguments],
        cwd=_REPOSITORY,
        env={**os.environ, **releases.environment(on_plain, on_nodes)},
        check=False,
    )
    print(f"real: tested in {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode


def _up(what: str, release: str) -> int:
    if what == "plain":
        running = Plain(release, "127.0.0.1:4317", controllers=True)
        running.start()
        try:
            _stay(running.kubeconfig, f"logs and files: {running.run.path}")
        finally:
            running.close()
        return 0
    lan = Lan()
    control_plane = Node(lan, release=release) if what == "node" else ThreeNodes(lan, release=release)
    control_plane.start()
    cluster = control_plane.cluster
    each = [control_plane] if isinstance(control_plane, Node) else [*control_plane.nodes.values()]
    forward = Forward(lan, (cluster.address, 6443))
    try:
        kubeconfig = Kubeconfig(
            f"https://127.0.0.1:{forward.port}", cluster.authority.pair.certificate, cluster.users
        ).write(each[0].run_folder.path / "kubeconfig")
        shells = [
            f"a shell on {node.name}: nsenter -t {node.init_pid} -m -u -i -n -p -C bash\n"
            f"logs and files: {node.run_folder.path}"
            for node in each
        ]
        _stay(kubeconfig, "\n".join(shells))
    finally:
        forward.close()
        control_plane.close()
        lan.close()
    return 0


def _stay(kubeconfig: Path, words: str) -> None:
    """Until Ctrl-C or SIGTERM."""
    print(f"export KUBECONFIG={kubeconfig}\n{words}\nCtrl-C takes it down.", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it with the first one ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
