"""HTTP/2 frames by their headers: nothing lost, nothing reordered, however what comes is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.ingest.frames import MOST_KEPT, PREFACE, FramingError, RequestFrames, ResponseFrames
from tests.http2_client import END_HEADERS, END_STREAM, begun, frame, headers, message, reset


class Connection:
    """Takes pieces as the acceptor does: what is not handed on comes again with the next."""

    def __init__(self, admit: bool = True) -> None:
        self.admit = admit
        self.frames = RequestFrames(lambda: self.admit)
        self.passed = b""
        self.kept = b""

    def take(self, piece: bytes) -> Connection:
        data = self.kept + piece
        passed = self.frames.take(memoryview(data))
        assert 0 <= passed <= len(data)
        self.passed += data[:passed]
        self.kept = data[passed:]
        return self


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted({one % (len(data) + 1) for one in at}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 1 << 20), max_size=12)
payloads = st.binary(max_size=40) | st.sampled_from([16_384, 70_000]).map(bytes)
flags = st.sampled_from([0, END_STREAM])
streams = st.integers(0, 5).map(lambda number: 2 * number + 1)
client_frames = st.one_of(
    st.builds(lambda stream, flags, payload: ("data", frame(0, flags, stream, payload)), streams, flags, payloads),
    st.builds(lambda flags: ("headers", flags), flags),
    st.builds(lambda stream: ("reset", reset(stream)), streams),
    st.just(("ping", frame(6, 0, 0, bytes(8)))),
    st.builds(lambda stream: ("window", frame(8, 0, stream, bytes(4))), streams),
    st.builds(lambda payload: ("unknown", frame(0x55, 3, 9, payload)), st.binary(max_size=40)),
)  # fmt: skip


def built(parts: list[tuple[str, bytes | int]]) -> bytes:
    """What a client sends: new streams have rising numbers, some with headers in two frames."""
    sent, number = [PREFACE, frame(4, 0, 0)], 1
    for kind, part in parts:
        if isinstance(part, bytes):
            sent.append(part)
        elif number % 3:
            sent.append(headers(number, part))
        else:
            sent += [frame(1, part, number, b"abc"), frame(9, END_HEADERS, number, b"def")]
        number += 2 * (kind == "headers")
    return b"".join(sent)


@settings(deadline=None)
@given(st.lists(client_frames, max_size=25), CUTS)
def test_what_is_handed_on_is_what_came_in_order_and_streams_are_the_same_however_it_is_cut(
    parts: list[tuple[str, bytes | int]], cuts: list[int]
) -> None:
    data = built(parts)
    whole, pieces = Connection().take(data), Connection()
    for piece in cut(data, cuts):
        pieces.take(piece)
        assert pieces.passed + pieces.kept == data[: len(pieces.passed) + len(pieces.kept)]
    assert pieces.passed + pieces.kept == data
    assert pieces.passed == whole.passed
    assert pieces.frames.streams == whole.frames.streams
    assert pieces.frames.reset == whole.frames.reset
    assert pieces.frames.frames == whole.frames.frames
    # Whatever follows the last data or end of a stream is nothing but headers without data.
    assert whole.kept == b"" or whole.frames.empty


@settings(deadline=None)
@given(st.lists(client_frames, max_size=12), CUTS)
def test_a_stream_that_is_not_admitted_stops_the_connection_before_it(
    parts: list[tuple[str, bytes | int]], cuts: list[int]
) -> None:
    data = built(parts)
    one = Connection(admit=False)
    for piece in cut(data, cuts):
        one.take(piece)
    assert one.frames.streams == {}
    first = next((part for kind, part in parts if kind == "headers"), None)
    assert (one.passed == data) == (first is None)
    one.admit = True
    assert one.take(b"").passed == Connection().take(data).passed


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_what_is_no_http2_is_refused_and_never_anything_else(pieces: list[bytes]) -> None:
    for prefix in (b"", PREFACE):
        one = Connection()
        try:
            for piece in (prefix, *pieces):
                one.take(piece)
        except FramingError:
            continue
        assert one.passed + one.kept == prefix + b"".join(pieces)


def test_headers_wait_for_data() -> None:
    one = Connection().take(PREFACE)
    for piece in (headers(1), headers(3), frame(6, 0, 0, bytes(8)), frame(8, 0, 0, bytes(4))):
        assert one.take(piece).passed == PREFACE
        assert one.frames.empty
    assert one.frames.streams == {}
    one.take(frame(0, 0, 3, b"x"))
    assert one.kept == b""
    assert one.frames.streams == {1: False, 3: True}
    one.take(headers(5)).take(frame(0, 0, 3, b"more of another"))
    assert one.kept == b"", "what another stream waits for comes through"
    assert one.take(headers(7, END_STREAM)).frames.streams[7] is False
    one.take(headers(9)).take(reset(9))
    assert one.frames.reset == [9]
    one.take(headers(11)).take(frame(0, END_STREAM, 11))
    assert one.kept == b""


def test_no_more_is_kept_than_so_much() -> None:
    one = Connection().take(PREFACE)
    for number in range(1, 2_000, 2):
        one.take(headers(number))
        assert len(one.kept) < MOST_KEPT + 200
    assert len(one.frames.streams) > 50


def test_a_large_message_is_never_kept() -> None:
    one = Connection().take(PREFACE + begun(1, 1 << 20) + (1 << 20).to_bytes(3, "big") + bytes((0, 1, 0, 0, 0, 1)))
    assert one.kept == b""
    for _ in range(16):
        one.take(bytes(1 << 16))
        assert one.kept == b""
    assert one.take(headers(3)).kept != b""


@pytest.mark.parametrize(
    "hostile",
    [
        frame(0, 0, 0, b"x"),  # data of no stream
        frame(1, 4, 0, b"x"),  # headers of none
        frame(1, 5, 2, b"x"),  # a server's stream
        frame(3, 0, 0, bytes(4)),
        frame(3, 0, 1, bytes(5)),
        frame(4, 0, 1),
        frame(4, 0, 0, bytes(5)),
        frame(5, 4, 1, bytes(4)),  # a client promises nothing
        frame(6, 0, 0, bytes(7)),
        frame(6, 0, 1, bytes(8)),
        frame(8, 0, 0, bytes(3)),
        frame(9, 4, 1, b"x"),  # continues nothing
        frame(1, END_STREAM, 1, b"x") + frame(6, 0, 0, bytes(8)),  # a frame among headers
        frame(1, END_STREAM, 1, b"x") + frame(0, 0, 1, b"x"),
        frame(1, END_STREAM, 1, b"x") + frame(9, 4, 3, b"x"),
        frame(1, END_STREAM, 1, b"x") + frame(9, 0, 1, bytes(1 << 14)) * 5,  # headers without end
        frame(1, END_STREAM, 1, bytes(1 << 17)),
    ],
)
def test_frames_that_cannot_be(hostile: bytes) -> None:
    for pieces in ([PREFACE + hostile], [PREFACE, *(hostile[at : at + 1] for at in range(len(hostile)))]):
        one = Connection()
        with pytest.raises(FramingError):
            all(one.take(piece) for piece in pieces)


def test_another_protocol() -> None:
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PRI * HTTP/2.0\r\n\r\nXX", b"X"):
        with pytest.raises(FramingError):
            Connection().take(text)
    assert Connection().take(PREFACE[:10]).kept == PREFACE[:10]


server_frames = st.one_of(
    st.builds(lambda stream, flags, payload: frame(0, flags, stream, payload), streams, flags, payloads),
    st.builds(lambda stream, flags: frame(1, 4 | flags, stream, b"abc"), streams, flags),
    st.builds(reset, streams),
    st.just(frame(4, 1, 0)),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(server_frames, max_size=20), CUTS)
def test_the_streams_that_a_server_ends_are_seen_however_it_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    expected = [
        int.from_bytes(one[5:9], "big") for one in frames if one[3] == 3 or (one[3] in (0, 1) and one[4] & END_STREAM)
    ]
    responses, found = ResponseFrames(), []
    for piece in cut(b"".join(frames), cuts):
        found += responses.take(memoryview(piece))
    assert found == expected


def test_an_answer_begins_and_ends() -> None:
    responses = ResponseFrames()
    assert responses.take(memoryview(frame(1, END_HEADERS, 1, b"abc") + frame(1, END_HEADERS | END_STREAM, 3))) == [3]
    assert responses.answers == [1], "one that ends at once is not among them"
    one = Connection().take(PREFACE + headers(1) + message(1, b"x"))
    one.frames.streams.clear()
    one.frames.answered[1] = None
    one.take(reset(1))
    assert (one.frames.answered, one.frames.reset) == ({}, [])


def test_a_whole_call() -> None:
    one = Connection().take(PREFACE + headers(1) + message(1, b"spans"))
    assert one.frames.streams == {1: True}
    assert (one.frames.empty, one.frames.full) == (False, False)
