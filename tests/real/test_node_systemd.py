"""The watcher as a unit of systemd's, on a node whose systemd-run is a stand-in.

The node of these tests has no systemd as its first process, so `systemd-run` is played by its documentation
(systemd-run(1)): the command runs as a service, in a session of its own, with the manager's environment and what
`--setenv` gives, with an empty standard input, its output in the journal; the call returns when it was started.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.real.node import Node
from tests.real.rollouts import Going, change, newest, nothing_stray, outcome, settle, status

pytestmark = pytest.mark.long
PLACE = "/usr/local/bin/systemd-run"
RECORD = "/run/systemd-run.log"
STAND_IN = f"""#!{sys.executable}
import json, os, subprocess, sys
arguments = sys.argv[1:]
environment = {{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}}
options = []
while arguments and arguments[0].startswith("--"):
    option = arguments.pop(0)
    options.append(option)
    name, _, value = option.partition("=")
    if name == "--setenv":
        key, _, content = value.partition("=")
        environment[key] = content
    elif name == "--unit":
        unit = value
    elif name not in ("--quiet", "--collect"):
        sys.exit(f"systemd-run of the tests does not know {{name}}")
with open("/run/journal-of-units", "ab") as journal:
    service = subprocess.Popen(
        arguments, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=journal, stderr=journal,
        start_new_session=True,
    )
with open("{RECORD}", "a") as record:
    print(json.dumps({{"unit": unit, "options": options, "pid": service.pid}}), file=record)
"""


@pytest.fixture
def systemd(node: Node) -> Iterator[None]:
    place = node.path(PLACE)
    place.write_text(STAND_IN)
    place.chmod(0o755)
    node.run("mkdir", "-p", "/run/systemd/system")
    yield
    place.unlink()
    node.run("rm", "-rf", "/run/systemd/system", RECORD, "/run/journal-of-units")


@pytest.mark.usefixtures("systemd")
def test_the_watcher_is_a_unit_of_its_own(node: Node) -> None:
    """It lives on when the session that began it is killed, and leaves nothing behind."""
    files = node.files("/etc/kubernetes")
    going = Going(node, "arm")
    going.until("staged")
    going.kill()
    found = outcome(node)
    assert found.last.startswith("end done")
    told = node.path(RECORD).read_text()
    assert f'"unit": "k8s-trace-tui-{found.id}-1"' in told
    assert "--collect" in told
    settle(node)
    nothing_stray(node)
    assert status(node)["state"] == "armed"
    change(node, "off")
    assert newest(node).last.startswith("end done")
    assert len(node.path(RECORD).read_text().splitlines()) == 2
    settle(node)
    assert node.files("/etc/kubernetes") == files
