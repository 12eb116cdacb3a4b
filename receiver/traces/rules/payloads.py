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
        ns = max((_lead(case, node) for node in verbs), default=0)
        yield Finding("object too large", text, "object too large", ns, True, at)
    elif size >= LARGE_BODY and case.code in (400, 415, 422):
        why = "it is not what its content type says" if case.code != 422 else "its content is invalid"
        read = [at for node in verbs for at, name, _ in case.events(node) if name.startswith("limitedReadBody")]
        ns = min(max(read, default=0), case.duration)
        took = f", after {case.took(ns)} of reading it" if ns else ""
        text = f"{body[:1].upper()}{body[1:]} was refused with {case.code}: {why}{took}."
        yield Finding("body refused", text, "body refused", ns, True, at)


def _lead(case: Case, verb: Node) -> int:
    """Nanoseconds of a verb span before its first call, 0 where there is none."""
    step = case.step(verb)
    return step.lead if step is not None and not step.leaf else 0


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def before_the_first_call(case: Case) -> Iterable[Finding]:
    """Reading the body ends with the event `limitedReadBody succeeded`, converting it with `Conversion done`, all that
    comes before admission with `About to store object in database` or its like; what is then left before the first call
    are plugins inside the API server, which have no spans (3.2)."""
    for node in case.named(*WRITES):
        step = case.step(node)
        if step is None or not case.notable(step.lead):
            continue
        ns, at = step.lead, node.span.span_id
        events = [(min(at, ns), name) for at, name, _ in case.events(node)]
        read = next((at for at, name in events if name.startswith("limitedReadBody")), 0)
        if read >= 0.5 * ns and case.code == 413:
            return  # it was not read to its end: `refused` tells why
        if read >= 0.5 * ns:
            text = f"The client was slow to send its body: {case.took(read)} until it had arrived."
            yield Finding("slow body", text, "slow body", read, False, at)
            return
        if step.leaf:
            continue  # nothing was called: told by how the request ended
        converting = next((at for at, name in events if name.startswith("About to convert")), 0)
        converted = next((at for at, name in events if name.startswith("Conversion done")), 0)
        admitted = next((at for at, name in events if name.startswith(_ADMISSION)), 0)
        plugins = ns - admitted if admitted else 0
        conversion = max(0, converted - converting) if converting else 0
        if plugins >= 0.5 * ns:
            text = f"Admission plugins inside the API server took {case.took(plugins)}; they have no spans."
            yield Finding("admission slow", text, "admission plugins", plugins, False, at)
        elif conversion >= 0.5 * ns:
            text = f"Converting the body to the expected version took the API server {case.took(conversion)}."
            yield Finding("body conversion slow", text, "converting the body", conversion, False, at)
        elif admitted:
            text = f"The API server spent {case.took(admitted - read)} between reading the body and admission; no span "
            text += "tells what on."
            yield Finding("before admission", text, "before admission", admitted - read, False, at)
        else:
            text = f"{case.took(ns)} went by in the API server before its first call; no event tells what on."
            yield Finding("before first call", text, "before first call", ns, False, at)
        return


def encryption(case: Case) -> Iterable[Finding]:
    """The KMS plugin's gRPC is not traced, what waits for it is: `Transform...Storage with ...`, and where a
    transformer has no such span (before 1.29, KMS v1) the time between the storage's events `Encode succeeded` and
    `TransformToStorage succeeded` (3.2)."""
    ns = case.phases.ns[Phase.ENCRYPTION]
    if case.notable(ns):
        nodes = [n for n in case.nodes if n.span.name.startswith(("TransformToStorage", "TransformFromStorage"))]
        node = max(nodes, key=case.time_of, default=case.head)
        name = case.attribute(node, "transformer.provider.name")
        who = f"The KMS plugin {name}" if name else "Encryption (KMS)"
        text = f"{who} took {case.took(ns)}; what it does has no spans."
        yield Finding("KMS slow", text, "KMS slow", ns, False, node.span.span_id)
        return
    writes = [(_transformed(case, node), node) for node in case.named("Create etcd3", "GuaranteedUpdate etcd3")]
    total = min(sum(took for took, _ in writes), case.duration)
    if case.notable(total):
        node = max(writes, key=lambda write: write[0])[1]
        text = (
            f"Encrypting the object before it was stored took {case.took(total)}: most likely a KMS plugin, which has "
        )
        text += "no span here."
        yield Finding("KMS slow", text, "KMS slow", total, False, node.span.span_id)


def _transformed(case: Case, write: Node) -> int:
    """Nanoseconds that a write to storage spent on transforming what it had encoded, as its events tell."""
    step = case.step(write)
    if step is None or any(child.span.name.startswith("TransformToStorage") for child in write.children):
        return 0
    total, encoded = 0, -1
    for at, name, _ in case.events(write):
        if name.startswith("Encode succeeded"):
            encoded = at
        elif name.startswith("TransformToStorage") and encoded >= 0:
            total, encoded = total + at - encoded, -1
    return min(total, step.lead + step.rest)


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
