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
    "tests/receiver/traces/test_path.py",
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
    "tests/receiver/traces/test_verdicts_of_recordings.py": "recorded, and judged",
    "tests/receiver/traces/test_changes.py": "recorded, and judged",
    "tests/receiver/traces/test_comparing.py": "recorded, and judged",
    "tests/receiver/traces/test_links.py": "recorded, and judged",
    "tests/receiver/traces/test_explain.py": "recorded",
    "tests/receiver/traces/test_hotspots.py": "recorded",
    "tests/receiver/traces/test_listing.py": "recorded",
    "tests/receiver/traces/test_pairing.py": "recorded",
    "tests/receiver/traces/test_path.py": "recorded",
    "tests/receiver/traces/test_phases.py": "recorded",
    "tests/receiver/traces/test_reader.py": "recorded",
}
"""What one worker runs as a whole, because it reads what was read or sent once for all of it: by test or file, the
fixture. Twenty seconds of a worker go into judging all recordings."""


def place(nodeid: str) -> int:
    """Where a test stands in the order."""
    return next((number for number, start in enumerate(LONG) if nodeid.startswith(start)), len(LONG))


def unit(nodeid: str) -> str:
    """What one worker runs as a whole: a test, those that share a fixture, or a file."""
    file, test = nodeid.partition("::")[0], nodeid.partition("[")[0]
    shared = TOGETHER.get(test) or TOGETHER.get(file)
    return shared or (nodeid if nodeid.startswith(APART) else file)


class LongestFirst(LoadScopeScheduling):
    """Gives each worker the next unit as soon as it has two tests left."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)  # type: ignore[arg-type]
        config.option.loadscopereorder = False  # our order, not by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
