"""The order of a parallel run: what takes long begins first, and what shares costly fixtures stays on one worker.

pytest-xdist's own `load` gives each worker a twelfth of the tests in the order of their files at once: a minute of mypy
began in the last third, and at the end one worker ran what it had been given while the others were done.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

LONG = (
    "tests/test_house.py::test_strict_types",
    "tests/e2e/test_recordings.py",
    "tests/tui/clusters/test_screen_live.py",
    "tests/tui/clusters/test_sampling_live.py",
    "tests/tui/clusters/test_etcd.py",
    "tests/receiver/traces/test_verdicts_of_recordings.py",
    "tests/receiver/traces/test_changes.py",
    "tests/receiver/traces/test_comparing.py",
    "tests/receiver/traces/test_durations.py",
    "tests/receiver/traces",
    "tests/receiver/store/test_room.py",
    "tests/tui/clusters/test_faults.py",
    "tests/tui/clusters/test_traps.py",
    "tests/tui/clusters/test_folder_rollout.py",
    "tests/tui/clusters/test_ssh.py",
    "tests/tui/clusters/test_node_tools.py",
    "tests/tui/clusters/test_node_state.py",
    "tests/tui/clusters",
    "tests/e2e",
    "tests/tui/test_tracing.py",
    "tests/tui/test_tracing_screen.py",
    "tests/receiver/store",
    "tests/receiver/test_process.py",
)
"""Beginnings of node ids, the longest first (`pytest --durations=60`). What is not named comes after, file by file."""

APART = (
    "tests/test_house.py",
    "tests/e2e/",
    "tests/receiver/store/",
    "tests/receiver/test_process.py",
    "tests/tui/clusters/",
    "tests/tui/test_cli.py",
    "tests/tui/test_tracing",
)
"""Where each test may run on any worker; elsewhere a file is run by one."""

TOGETHER = {
    "tests/e2e/test_recordings.py::test_same_trees_whatever_the_order": "mixed",
    "tests/e2e/test_recordings.py::test_counts_are_those_of_the_largest_recording": "full",
    "tests/e2e/test_recordings.py::test_every_request_is_told_as_its_spans_tell_it": "full",
    "tests/e2e/test_recordings.py::test_a_traceparent_is_honoured_or_becomes_a_link": "full",
}
"""What one worker runs all the same, because it reads what was sent once: by test, the name of the fixture."""


def place(nodeid: str) -> int:
    """Where a test stands in the order."""
    return next((number for number, start in enumerate(LONG) if nodeid.startswith(start)), len(LONG))


def unit(nodeid: str) -> str:
    """What one worker runs as a whole: a test, those that share a fixture, or a file."""
    name = nodeid.partition("[")[0]
    if name in TOGETHER:
        return TOGETHER[name]
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


class LongestFirst(LoadScopeScheduling):
    """Gives each worker the next unit as soon as it has two tests left."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)  # type: ignore[arg-type]
        config.option.loadscopereorder = False  # our order, not by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
