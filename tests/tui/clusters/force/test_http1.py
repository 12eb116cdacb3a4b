"""HTTP/1.1 as the proxy reads it: however the bytes are split it is the same, and what is ambiguous is refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.clusters.force.http1 import (
    HEAD_BYTES,
    Body,
    Chunked,
    Malformed,
    Sized,
    UntilEnd,
    head_end,
    read_request,
    read_response,
)


@dataclass
class Message:
    """What a receiver understood."""

    line: tuple[Any, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes


def understood(pieces: list[bytes]) -> list[Message]:
    """The requests in these pieces, read as a connection reads them."""
    waiting, found = b"", []
    body: Body | None = None
    parts: list[bytes] = []
    for piece in pieces:
        waiting += piece
        while True:
            if body is None:
                end = head_end(waiting)
                if end < 0:
                    break
                head = read_request(waiting[:end])
                waiting = waiting[end:]
                body = Chunked() if head.length is None else Sized(head.length)
                parts = []
                line = (head.method, head.target, head.old)
                found.append(Message(line, [(name, value) for name, _, value in head.fields], b""))
            if not body.done:
                used = body.feed(waiting, parts)
                assert 0 <= used <= len(waiting)
                assert used == len(waiting) or body.done, "it stops before the body's end"
                waiting = waiting[used:]
                if not body.done:
                    break
            found[-1].body = b"".join(parts)
            assert body.taken == len(found[-1].body)
            body = None
    return found


token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30).map(lambda t: t.strip().encode())


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Message]:
    """A request as bytes, and what it means."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PATCH", b"HEAD"]))
    target = b"/" + draw(st.binary(max_size=20)).hex().encode()
    names = draw(st.lists(token, max_size=4))
    fields = [(b"Host", b"a")] + [(b"X-" + name, draw(value)) for name in names]
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    body = b"".join(chunks)
    if draw(st.booleans()):
        fields.append((b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        shape = draw(st.sampled_from([b"%x", b"%X", b"00%x", b"%x;a=b", b"%x ;q"]))
        framed = b"".join(shape % len(chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
        trailers = draw(st.lists(st.tuples(token, value), max_size=2))
        framed += b"0\r\n" + b"".join(b"T-%b: %b\r\n" % pair for pair in trailers) + b"\r\n"
    else:
        framed = body
        if body or draw(st.booleans()):
            fields.append((b"Content-Length", b"%d" % len(body)))
    head = b"%b %b HTTP/1.1\r\n" % (method, target)
    head += b"".join(b"%b:%b%b\r\n" % (name, draw(st.sampled_from([b"", b" ", b"\t "])), v) for name, v in fields)
    return head + b"\r\n" + framed, Message((method, target, False), fields, body)


@given(st.lists(requests(), min_size=1, max_size=4), st.data())
def test_any_split_of_the_bytes_gives_the_same_messages(made: list[tuple[bytes, Message]], data: st.DataObject) -> None:
    whole = b"".join(text for text, _ in made)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    wanted = [message for _, message in made]
    assert understood(pieces) == wanted
    assert understood([whole[i : i + 1] for i in range(len(whole))]) == wanted


@settings(max_examples=200)
@given(st.lists(requests(), min_size=1, max_size=2), st.data())
def test_what_is_not_http_is_refused_and_never_crashes(made: list[tuple[bytes, Message]], data: st.DataObject) -> None:
    """Messages with a few bytes put in, taken out or replaced, and noise."""
    text = bytearray(b"".join(one for one, _ in made))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 2))
        text[at : at + gone] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"\r", b"0\r\n\r\n"]))
        )
    for noise in (bytes(text), data.draw(st.binary(max_size=200))):
        with suppress(Malformed):
            understood([noise])
        for read in (read_request, read_response):
            for body in (noise, b"HTTP/1.1 200 OK\r\n" + noise + b"\r\n\r\n"):
                with suppress(Malformed):
                    read(body)
        for body in (Chunked(), Sized(7), UntilEnd()):
            with suppress(Malformed):
                assert body.feed(noise) <= len(noise)


HOST = b"Host: a\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 19 + b"\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 3\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n", 501),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n", 501),
        (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n", 501),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n", 400),  # a folded line
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\nB: c\r\n", 400),
        (b"GET / HTTP/1.1\n" + HOST, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x00\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b": b\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no field\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST, 400),
        (b"GET / HTTP/1.1\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST, 400),
        (b"GET / HTTP/2.0\r\n" + HOST, 400),
        (b"GET /a b HTTP/1.1\r\n" + HOST, 400),
        (b"GET http://other/ HTTP/1.1\r\n" + HOST, 400),
        (b"CONNECT other:443 HTTP/1.1\r\n" + HOST, 400),
        (b"\r\nGET / HTTP/1.1\r\n" + HOST, 400),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(Malformed) as refused:
        read_request(head + b"\r\n")
    assert refused.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabcd\r\n0\r\n\r\n",  # longer than it says
        b"3\nabc\n0\n\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"\r\n",
        b"-1\r\n",
        b"1" * 16 + b"\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nAuthorization: Bearer x\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\n" + b"".join(b"T: %060d\r\n" % i for i in range(1200)) + b"\r\n",
        b"1;" + b"x" * 5000,
    ],
)
def test_a_chunked_body_that_is_none_is_refused(body: bytes) -> None:
    whole, single = Chunked(), Chunked()
    with pytest.raises(Malformed):
        whole.feed(body)
    with pytest.raises(Malformed):
        [single.feed(body[at : at + 1]) for at in range(len(body))]


def test_a_head_is_bounded_and_needs_whole_line_ends_at_once() -> None:
    assert head_end(b"GET / HTTP/1.1\r\nHost: a\r") == -1
    with pytest.raises(Malformed) as large:
        head_end(b"A" * HEAD_BYTES)
    assert large.value.status == 431
    with pytest.raises(Malformed):
        head_end(b"GET / HTTP/1.1\nHost: a\n")  # it would be waited for for ever


@pytest.mark.parametrize(
    ("head", "framing"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, False, 5)),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", (200, True, None)),
        (b"HTTP/1.0 404 Not \xe9\r\n\r\n", (404, False, None)),
        (b"HTTP/1.1 100 Continue\r\n\r\n", (100, False, None)),
    ],
)
def test_answers(head: bytes, framing: tuple[int, bool, int | None]) -> None:
    read = read_response(head)
    assert (read.code, read.chunked, read.length) == framing
