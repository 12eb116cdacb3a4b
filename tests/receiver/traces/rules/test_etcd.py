"""etcd: slow, stalled, far away, late, failing, and other writers."""

from __future__ import annotations

import pytest

from tests.receiver.traces.scenes import Scene, causes
from tests.receiver.traces.shapes import GRPC, SERVER


@pytest.mark.parametrize(
    ("ms", "own", "cause", "text"),
    [
        (800, (50, 700), "etcd slow",
         "etcd took 800 ms (40 %) for Txn, 700 ms of it inside etcd itself: its disk, or its members were slow to "
         "agree."),
        (800, (300, 290), "etcd slow",
         "etcd took 800 ms (40 %) for Txn, 290 ms of it inside etcd itself; the rest went by on the way there and "
         "back."),
        (800, (398, 2), "etcd far away",
         "etcd is far away: Txn took 800 ms (40 %), of which 2.00 ms inside etcd itself; 398 ms went by on the way "
         "there and 400 ms on the way back."),
        (1800, (1790, 5), "etcd stalled",
         "etcd stalled: 1.79 s (90 %) went by before it took up Txn, which then took it 5.00 ms."),
        (800, (790, 5), "etcd late",
         "etcd took up Txn only after 790 ms (40 %) and answered it in 5.00 ms: it, or the connection to it, was "
         "busy."),
        (800, (5, 10), "etcd answer late",
         "etcd answered Txn after 15.0 ms, but 785 ms (39 %) more went by until the API server had the answer: the "
         "network, or an API server without a free CPU."),
        (800, (-50, 10), "etcd slow",
         "etcd took 800 ms (40 %) for Txn, 0 ms of it inside etcd itself; the rest went by on the way there and back."),
        (800, None, "etcd slow",
         "etcd took 800 ms (40 %) for Txn; its own spans are not here, so whether it or the way to it is slow cannot "
         "be known."),
    ],
)  # fmt: skip
def test_where_the_time_of_a_call_went(ms: float, own: tuple[float, float] | None, cause: str, text: str) -> None:
    scene = Scene(ms=2000).begin("Create", ms=2000)
    scene.etcd(100, ms, own)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert found.sentences[0] == text


def test_since_3_7_etcd_tells_how_long_its_members_took() -> None:
    scene = Scene().begin("Create")
    scene.etcd(100, 800, (10, 780))
    served = scene.spans[-1][3].span_id
    scene.span("txn", parent=served, service="etcd", scope="go.etcd.io/etcd", at=111, ms=770)
    scene.say((120, "Send raft proposal", {}), (850, "Receive raft result", {}))
    assert scene.verdict().sentences[0] == (
        "etcd took 800 ms (80 %) for Txn, 780 ms of it inside etcd itself, 730 ms waiting for its members to agree and "
        "its disk to write."
    )


def test_a_read_waits_for_no_disk() -> None:
    scene = Scene("Get", code=200).begin("Get")
    scene.etcd(100, 800, (10, 780), "KV/Range")
    assert (
        scene.verdict().sentences[0].endswith("inside etcd itself: a large range, or its members were slow to agree.")
    )


def test_many_calls_that_are_only_slow_together() -> None:
    scene = Scene("Delete", code=200).begin("Delete")
    for number in range(40):
        scene.etcd(number * 24, 20, (2, 10))
    found = scene.verdict()
    assert found.sentences[0] == (
        "etcd took 800 ms (80 %) in 40 calls, the longest Txn 20.0 ms; 400 ms of it inside etcd itself."
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("etcdserver: request timed out", "etcd failed for Txn: etcdserver: request timed out."),
        ("connection error: dial tcp 10.0.0.2:2379: connect: connection refused",
         "etcd could not be reached for Txn: connection error: dial tcp 10.0.0.2:2379: connect: connection refused."),
    ],
)  # fmt: skip
def test_etcd_that_fails(said: str, text: str) -> None:
    scene = Scene(code=500, ms=20).begin("Create", ms=20)
    scene.fail(said, at=15)
    scene.etcd(1, 5, None, status=2, message=said)
    assert scene.verdict().sentences == (text,)


def test_what_etcd_no_longer_has_is_no_failure_of_its() -> None:
    scene = Scene("List", code=410, ms=20).begin("List", ms=20)
    values = {"rpc.grpc.status_code": 11}
    scene.etcd(1, 5, None, "KV/Range", status=2, message="etcdserver: mvcc: required revision has been compacted",
               values=values)  # fmt: skip
    assert causes(scene.verdict()) == []


def conflict(retries: int, ms: float, code: int = 200) -> Scene:
    scene = Scene("Update", code=code).begin("Update")
    if code == 409:
        scene.fail("Operation cannot be fulfilled on pods: the object has been modified; please apply your changes")
    scene.span("GuaranteedUpdate etcd3", parent=scene.verb, at=1, ms=ms)
    scene.say(*((2 + number, "Retry value restored", {}) for number in range(retries)))
    return scene


def test_conflict_retries_that_cost_something() -> None:
    for retries, ms, times in ((1, 400, "once"), (4, 20, "4 times")):
        found = conflict(retries, ms).verdict()
        assert causes(found) == ["conflict retries"]
        assert found.sentences[0].startswith(f"Other writers were faster: the change was tried again {times}, ")


def test_a_retry_or_two_that_cost_nothing_are_not_remarkable() -> None:
    for retries in (1, 2):
        assert "conflict retries" not in causes(conflict(retries, 20).verdict())


def test_a_conflict_that_is_the_answer() -> None:
    for retries in (0, 1):
        assert conflict(retries, 20, 409).verdict().sentences[0] == (
            "Another writer was faster: the object had been changed since it was read, so 409 was the answer."
        )


def test_etcds_side_of_a_slow_call_alone() -> None:
    scene = Scene()
    scene.spans.clear()
    scene.span("etcdserverpb.KV/Txn", SERVER, b"\xaa" * 8, service="etcd", scope=GRPC, ms=900)
    found = scene.verdict()
    assert causes(found) == ["etcd slow"]
    assert found.sentences == (
        "etcd answered Txn in 900 ms; the side that called is not in this trace.",
        "etcd took 900 ms (100 %): its disk, or its members were slow to agree.",
    )


def test_more_writes_than_are_looked_into() -> None:
    """Those that took longest are looked into, wherever they stand, and what is not is not counted as if it were."""
    scene = Scene().begin("Update")
    for number in range(100):
        slow = number == 99
        scene.span("GuaranteedUpdate etcd3", parent=scene.verb, at=5 * number, ms=400 if slow else 4)
        scene.say(*[(5 * number + 1, "Retry value restored", {})] * (3 if slow else 1))
    found = scene.verdict()
    assert causes(found) == ["conflict retries"]
    assert found.sentences[0].startswith("Other writers were faster: the change was tried again more than 66 times, ")
