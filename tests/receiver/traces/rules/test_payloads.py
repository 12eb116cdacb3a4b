"""Bodies of requests and answers: too large, not what they say, slow to come, to encode, to encrypt, to be read."""

from __future__ import annotations

import pytest

from tests.receiver.traces.scenes import Scene, causes


def test_a_body_that_is_not_what_it_says() -> None:
    scene = Scene(code=400, ms=20).begin("Create", ms=20)
    scene.say((15, "limitedReadBody succeeded", {"len": 3_000_000}))
    scene.etcd(16, 1, (0.1, 0.2))
    assert scene.verdict().text == (
        "A body of 3.0 MB was refused with 400: it is not what its content type says, after 15.0 ms (75 %) of reading "
        "it."
    )


@pytest.mark.parametrize(
    ("code", "where", "text"),
    [
        (413, "code", "The object is too large: the API server refused a body of 4.0 MB (413)."),
        (500, "verb", "The object is too large: etcd refused a body of 4.0 MB (500)."),
        (500, "call", "The object is too large: etcd refused a body of 4.0 MB (500)."),
    ],
)
def test_an_object_that_is_too_large(code: int, where: str, text: str) -> None:
    scene = Scene(code=code, ms=20, **{"http.request.body.size": 4_000_000}).begin("Create", ms=20)
    said = "etcdserver: request is too large"
    if where == "verb":
        scene.fail(said, at=18)
    if where == "call":
        scene.etcd(5, 5, (1, 3), status=2, message=said)
    found = scene.verdict()
    assert causes(found) == ["object too large"]
    assert found.sentences[0] == text


@pytest.mark.parametrize(
    ("events", "cause", "text"),
    [
        ([(850, "limitedReadBody failed")], "slow body",
         "The client was slow to send its body: 850 ms (85 %) until it had arrived."),
        ([(850, "limitedReadBody succeeded")], "slow body",
         "The client was slow to send its body: 850 ms (85 %) until it had arrived."),
        ([(1, "limitedReadBody succeeded"), (5, "About to convert to expected version"), (800, "Conversion done"),
          (810, "About to store object in database")], "body conversion slow",
         "Converting the body to the expected version took the API server 795 ms (80 %)."),
        ([(1, "limitedReadBody succeeded"), (5, "About to store object in database")], "admission slow",
         "Admission plugins inside the API server took 895 ms (90 %); they have no spans."),
        ([(1, "limitedReadBody succeeded"), (700, "About to store object in database")], "before admission",
         "The API server spent 699 ms (70 %) between reading the body and admission; no span tells what on."),
        ([], "before first call",
         "900 ms (90 %) went by in the API server before its first call; no event tells what on."),
    ],
)  # fmt: skip
def test_what_passes_before_the_first_call(events: list[tuple[float, str]], cause: str, text: str) -> None:
    scene = Scene().begin("Create")
    scene.say(*((at, name, {}) for at, name in events))
    scene.etcd(900, 10, (2, 5))
    found = scene.verdict()
    assert causes(found) == [cause]
    assert found.sentences[0] == text


def test_a_body_that_is_refused_for_its_size_came_from_no_slow_client() -> None:
    """As recorded from 1.36: 3 MiB are read before the limit is reached, and most of the request's time goes there."""
    scene = Scene(code=413, ms=114, **{"http.request.body.size": 3_145_729}).begin("Create", ms=114)
    scene.say((113, "limitedReadBody failed", {"len": 0, "err": "Request entity too large: limit is 3145728"}))
    scene.span("SerializeObject", parent=scene.verb, at=113.5, ms=0.05)
    found = scene.verdict()
    assert causes(found) == ["object too large"]
    assert found.sentences[0] == "The object is too large: the API server refused a body of 3.1 MB (413)."


def test_encryption() -> None:
    for values, who in (({"transformer.provider.name": "vault"}, "The KMS plugin vault"), ({}, "Encryption (KMS)")):
        scene = Scene().begin("Create")
        scene.span("TransformToStorage with envelopeTransformer", parent=scene.verb, at=1, ms=900, values=values)
        found = scene.verdict()
        assert causes(found) == ["KMS slow"]
        assert found.sentences[0] == f"{who} took 900 ms (90 %); what it does has no spans."


@pytest.mark.parametrize("name", ["Create etcd3", "GuaranteedUpdate etcd3"])
def test_encryption_that_has_no_span(name: str) -> None:
    scene = Scene(ms=2_000).begin("Create", ms=2_000)
    scene.verb = scene.span(name, parent=scene.verb, at=10, ms=1_980)
    scene.say((20, "Encode succeeded", {"len": 900}), (1_910, "TransformToStorage succeeded", {}))
    scene.etcd(1_920, 50, (1, 48))
    found = scene.verdict()
    assert causes(found) == ["KMS slow"]
    assert found.phrase == "KMS slow"
    assert found.sentences[0] == (
        "Encrypting the object before it was stored took 1.89 s (94 %): most likely a KMS plugin, "
        "which has no span here."
    )


def answer(scene: Scene, begun: float, done: float, size: int) -> None:
    scene.span("SerializeObject", parent=scene.verb, at=10, ms=done - 10)
    scene.say(
        (begun, "About to start writing response", {"size": size}), (done, "Write call succeeded", {"size": size})
    )


@pytest.mark.parametrize(
    ("begun", "cause", "text"),
    [
        (900, "encoding slow",
         "Encoding an answer of 9.0 MB took 890 ms (89 %), writing it 90.0 ms; a slow reader may be part of both."),
        (50, "slow client",
         "The client was slow to read an answer of 9.0 MB: 940 ms (94 %) of writing, after 40.0 ms of encoding."),
    ],
)  # fmt: skip
def test_a_big_answer(begun: float, cause: str, text: str) -> None:
    scene = Scene("Get", code=200).begin("Get")
    answer(scene, begun, 990, 9_000_000)
    found = scene.verdict()
    assert causes(found) == [cause]
    assert found.sentences[0] == text


def test_a_large_list_past_the_cache() -> None:
    scene = Scene("List", code=200, ms=50).begin("List", ms=50)
    scene.say((40, "Listing from storage done", {}), (48, "Writing http response done", {"count": 7_000}))
    scene.span("List(recursive=true) etcd3", parent=scene.verb, at=1, ms=8)
    answer(scene, 30, 48, 20_000_000)
    found = scene.verdict()
    assert causes(found) == ["large list"]
    assert found.sentences[0] == (
        "A large list: 7,000 objects, 20.0 MB from etcd instead of the watch cache; encoding and writing it took "
        "38.0 ms (76 %)."
    )


def test_a_large_list_from_the_cache_asks_etcd_how_fresh_that_is() -> None:
    """Recorded: a consistent list has `List(recursive=false) etcd3` with limit 1 below `cacher.GetList`."""
    scene = Scene("List", code=200, ms=200).begin("List", ms=200)
    cacher = scene.span("cacher.GetList", parent=scene.verb, at=1, ms=50)
    scene.say((40, "Filtered items", {"count": 703}))
    scene.span("List(recursive=false) etcd3", parent=cacher, at=1, ms=8)
    assert scene.verdict().sentences[0] == "A large list: 703 objects from the watch cache."


def test_many_objects_in_no_time_are_no_large_list() -> None:
    scene = Scene("List", code=200, ms=20).begin("List", ms=20)
    scene.span("cacher.GetList", parent=scene.verb, at=1, ms=5)
    scene.say((4, "Filtered items", {"count": 703}))
    assert causes(scene.verdict()) == []
