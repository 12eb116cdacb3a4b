"""Runs of the same command: what may be repeated, and what they have in common."""

from __future__ import annotations

import pytest

from tui.clusters.force.collected import Found, How
from tui.clusters.force.proxy import Seen
from tui.clusters.force.repeats import Run, changes, compare


def seen(number: int, method: str, target: str, ms: int = 1, upgraded: bool = False) -> Seen:
    return Seen(number, "a" * 32, "b" * 16, "", method, target, 0, ms * 1_000_000, 200, 0, 0, "", upgraded, False)


@pytest.mark.parametrize(
    ("method", "target", "changing"),
    [
        ("GET", "/api/v1/pods", False),
        ("HEAD", "/version", False),
        ("POST", "/api/v1/namespaces/x/pods", True),
        ("POST", "/api/v1/namespaces/x/pods?dryRun=All&fieldManager=k", False),
        ("PATCH", "/api/v1/namespaces/x/pods/y?dryRun=all", True),
        ("DELETE", "/api/v1/namespaces/x/pods/y", True),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", False),
        ("GET", "/api/v1/namespaces/x/pods/y/exec?command=reboot", True),
        ("GET", "/api/v1/namespaces/x/services/y/proxy/delete-all", True),
        ("POST", "/api/v1/namespaces/x/pods/y/exec", True),
        ("POST", "//[x?dryRun=All", False),
    ],
)
def test_what_may_change_something(method: str, target: str, changing: bool) -> None:
    assert changes(seen(1, method, target)) is changing


def test_requests_are_known_again_by_path_and_place() -> None:
    runs = [
        Run(
            wall,
            [
                Found(seen(1, "GET", f"/api/v1/pods?resourceVersion={wall}", first), How.MISSING),
                Found(seen(2, "GET", "/api/v1/pods", second), How.MISSING),
            ],
            {},
        )
        for wall, first, second in ((30, 1, 5), (10, 2, 5), (20, 9, 5))
    ]
    told = compare(runs)
    assert [(one.name, one.median, one.least, one.most) for one in told.requests] == [
        ("GET /api/v1/pods", 2_000_000, 1_000_000, 9_000_000),
        ("GET /api/v1/pods (2)", 5_000_000, 5_000_000, 5_000_000),
    ]
    assert (told.whole[0].median, told.whole[0].least, told.whole[0].most) == (20, 10, 30)
    assert told.traced == 0
    assert told.phases == (), "a run without traces says nothing about phases"
