"""What bodies of requests and answers cost: reading, decoding, encrypting, encoding, writing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from receiver.traces.model import Node
from receiver.traces.phases import Phase
from receiver.traces.rules.case import NOTABLE_NS, WRITES, Case, Finding, size_text, time_text

LARGE_BODY: Final = 1 << 20
LARGE_ANSWER: Final = 1 << 20
LARGE_LIST: Final = 500
"""Objects from which a list is large, if it took a notable time or its size is not known to be small."""
_ADMISSION: Final = ("About to store object in database", "About to check admission control", "About to delete object")


def refused(case: Case) -> Iterable[Finding]:
    """The verb span's event `limitedReadBody` tells the length, the server span the size; 413 is the limit of the API
    server, `request is too large` that of etcd (3.2)."""
    if case.code is None or case.code < 400:
        return
    verbs = case.named(*WRITES)
    at = (verbs or [case.head])[0].span.span_id
    sizes = [int(text) for text in (case.attribute(case.head, "request_size"),) if _is_count(text)]
    sizes += [int(v["len"]) for node in verbs for _, _, v in case.events(node) if _is_count(v.get("len", ""))]
    size = max(sizes, default=0)
    body = f"a body of {size_text(size)}" if size >= LARGE_BODY else "the object"
    said = [case.error[1], *(case.message(node) for node in case.etcd_calls if node.span.status == 2)]
    if case.code == 413 or any("too large" in text for text in said):
        whose = "etcd" if any("etcdserver" in text for text in said) else "the API server"
        text = f"The object is too large: {whose} refused {body} ({case.code})."
        yield Finding("object too large", text, "object too large", case.phases.ns[Phase.DECODING], True, at)
    elif size >= LARGE_BODY and case.code in (400, 415, 422):
        why = "it is not what its content type says" if case.code != 422 else "its content is invalid"
        ns = case.phases.ns[Phase.DECODING]
        took = f", after {case.took(ns)} of reading it" if ns else ""
        text = f"{body[:1].upper()}{body[1:]} was refused with {case.code}: {why}{took}."
        yield Finding("body refused", text, "body refused", ns, True, at)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def arrived_slowly(case: Case) -> Iterable[Finding]:
    """Reading the body ends with the event `limitedReadBody succeeded`, decoding it with `About to store object in
    database` or its like; what is then left before the first call are plugins inside the API server, which have no
    spans (3.2)."""
    ns = case.phases.ns[Phase.DECODING]
    if not case.notable(ns):
        return
    for node in case.named(*WRITES):
        events = list(case.events(node))
        read = next((at for at, name, _ in events if name.startswith("limitedReadBody")), 0)
        decoded = next((at for at, name, _ in events if name.startswith(_ADMISSION)), 0)
        if read >= 0.5 * ns:
            text = f"The client was slow to send its body: {case.took(read)} until it had arrived."
            yield Finding("slow body", text, "slow body", ns, False, node.span.span_id)
        elif decoded and ns - decoded >= 0.5 * ns:
            text = f"Admission plugins inside the API server took {case.took(ns - decoded)}; they have no spans."
            yield Finding("admission slow", text, "admission plugins", ns, False, node.span.span_id)
        else:
            where = "of decoding its body" if decoded else "went by before its first call (decoding, admission plugins)"
            text = f"{case.took(ns)} {where}." if not decoded else f"The request spent {case.took(ns)} {where}."
            yield Finding("decoding slow", text, "decoding", ns, False, node.span.span_id)
        return


def encryption(case: Case) -> Iterable[Finding]:
    """The KMS plugin's gRPC is not traced, what waits for it is: `Transform...Storage with ...` (3.2)."""
    ns = case.phases.ns[Phase.ENCRYPTION]
    if case.notable(ns):
        nodes = [n for n in case.nodes if n.span.name.startswith(("TransformToStorage", "TransformFromStorage"))]
        node = max(nodes, key=case.time_of, default=case.head)
        name = case.attribute(node, "transformer.provider.name")
        who = f"The KMS plugin {name}" if name else "Encryption (KMS)"
        text = f"{who} took {case.took(ns)}; what it does has no spans."
        yield Finding("KMS slow", text, "KMS slow", ns, False, node.span.span_id)


class _Answer(NamedTuple):
    """What the span that wrote the answer tells; times in ns, size 0 where it is not known."""

    node: Node | None = None
    size: int = 0
    encoding: int = 0
    writing: int = 0


def _answer(case: Case) -> _Answer:
    best = _Answer()
    for node in case.named("SerializeObject"):
        size, begun, done = 0, node.span.duration, node.span.duration
        for at, name, values in case.events(node):
            if _is_count(values.get("size", "")):
                size = max(size, int(values["size"]))
            if name == "About to start writing response":
                begun = at
            elif name.startswith("Write call"):
                done = at
        if best.node is None or node.span.duration > best.node.span.duration:
            best = _Answer(node, size, begun, max(0, done - begun))
    if not best.size and _is_count(text := case.attribute(case.head, "response_size")):
        best = best._replace(size=int(text))
    return best


def answer_slow(case: Case) -> Iterable[Finding]:
    """`SerializeObject` encodes, then writes: its event `About to start writing response` parts both, though a big
    answer is partly written while it is encoded (3.2, 10)."""
    ns = case.phases.ns[Phase.ENCODING]
    node, size, encoding, writing = _answer(case)
    if node is None or case.stream or not case.notable(ns):
        return
    encoding, writing = min(encoding, ns), min(writing, ns)
    what = f"an answer of {size_text(size)}" if size else "the answer"
    if writing >= encoding:
        text = f"The client was slow to read {what}: {case.took(writing)} of writing, after {time_text(encoding)} of "
        text += "encoding."
        yield Finding("slow client", text, "slow reader", writing, False, node.span.span_id)
    else:
        text = f"Encoding {what} took {case.took(encoding)}, writing it {time_text(writing)}"
        text += "; a slow reader may be part of both." if size >= LARGE_ANSWER else "."
        yield Finding("encoding slow", text, "encoding", encoding, False, node.span.span_id)


def large_list(case: Case) -> Iterable[Finding]:
    """`cacher.GetList` tells how many objects it listed, `SerializeObject` the bytes; a list that went past the watch
    cache has `List(recursive=true) etcd3` (3.2)."""
    lists = case.named("List", "WatchList")
    if not lists or case.stream:
        return
    cached = case.named("cacher.GetList", "cacher list")
    counts = [
        int(values["count"])
        for node in (*cached, *lists)
        for _, _, values in case.events(node)
        if _is_count(values.get("count", ""))
    ]
    count = max(counts, default=0)
    answer = _answer(case)
    if answer.size < LARGE_ANSWER and (count < LARGE_LIST or case.duration < NOTABLE_NS):
        return
    direct = case.named("List(recursive=true) etcd3")  # the other one only asks how fresh the cache is (recorded)
    whence = " from etcd instead of the watch cache" if direct else " from the watch cache" if cached else ""
    parts = [f"{count:,} objects"] if count else []
    parts += [size_text(answer.size)] if answer.size else []
    text = f"A large list: {', '.join(parts)}{whence}"
    encoding = case.phases.ns[Phase.ENCODING]
    told = not encoding or case.notable(encoding)  # then `answer_slow` tells
    text += "." if told else f"; encoding and writing it took {case.took(encoding)}."
    yield Finding("large list", text, "large list", case.duration // 2, False, (direct or lists)[0].span.span_id)
