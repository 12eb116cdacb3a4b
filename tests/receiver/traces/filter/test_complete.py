"""Completion offers what is there, and what matches nothing is explained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.store.index import Index
from receiver.traces.filter.complete import MOST, Completion, complete
from receiver.traces.filter.fields import FIELDS
from receiver.traces.filter.nothing import explain_nothing
from receiver.traces.query import Query, QueryError, View, select
from receiver.traces.reader import summaries
from tests.receiver.traces.filter.test_answers import FILTERS, NOW, SAMPLES
from tests.receiver.traces.shapes import HTTP, SERVER, Recorder

ALL = View(Query(), None, False, False, "start", False)
INDEX = SAMPLES[0].index


def at_end(text: str) -> Completion:
    return complete(text, len(text), INDEX, ALL, NOW)


def texts(text: str) -> list[str]:
    return [offer.text for offer in at_end(text).offers]


def test_fields_then_operators_then_values() -> None:
    assert texts("")[:3] == ["verb", "resource", "ns"]
    assert texts("pods (se") == ["service", "self", "settled"] or set(texts("pods (se")) >= {
        "service",
        "self",
        "settled",
    }
    assert texts("!ve") == ["verb"]
    assert texts("verb") == ["verb=", "verb!=", "verb=~", "verb!~"]
    assert texts("duration")[0] == "duration>"
    assert "http.response.status_code" in texts("http.resp")
    assert at_end("verb=").at == (5, 5)
    assert at_end("x verb=create,g").at == (14, 15)
    assert complete("ver ns=a", 3, INDEX, ALL, NOW).at == (0, 3)


@pytest.mark.parametrize(
    "field",
    [
        *("verb", "ns", "name", "resource", "code", "service", "instance", "spans", "errors", "source", "settled"),
        *("orphan", "kind", "component"),
    ],
)
@pytest.mark.parametrize("rest", ["", "duration>8ms "])
def test_values_are_those_present_with_their_counts(field: str, rest: str) -> None:
    found = {offer.text: offer.count for offer in at_end(f"{rest}{field}=").offers}
    assert found
    for value, number in found.items():
        query = Query.parse(f"{rest}{field}={value}")
        slots = select(INDEX, replace(ALL, query=query), NOW).slots
        if field == "resource" and "/" not in value:  # a bare resource means all its subresources
            rows = summaries(INDEX, slots, NOW)
            assert number == sum(row.request is not None and not row.request.subresource for row in rows)
        else:
            assert number is None or len(slots) == number, value


def test__times_are_offered_with_how_many_are_longer() -> None:
    for field in ("duration", "etcd"):
        for offer in at_end(f"{field}>").offers:
            query = Query.parse(f"{field}>{offer.text}")
            assert len(select(INDEX, replace(ALL, query=query), NOW).slots) == offer.count


@given(st.text(alphabet="\"'=!<>~()|&, verbnsapiodur.5m@", max_size=30), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_anything_can_be_completed(text: str, cursor: int) -> None:
    found = complete(text, cursor, INDEX, ALL, NOW)
    start, end = found.at
    assert 0 <= start <= end <= len(text)
    assert len(found.offers) <= MOST + len(FIELDS)


# --- nothing --------------------------------------------------------------------------------------
def why(text: str, **switches: object) -> tuple[str, str]:
    query = Query.parse(text)
    nothing = explain_nothing(query, INDEX, replace(ALL, **switches), NOW)  # type: ignore[arg-type]
    assert nothing is not None
    return nothing.says, text[slice(*nothing.at)] if nothing.at else ""


def test_the_part_that_matches_nothing_is_named() -> None:
    assert why("verb=create ns=nowhere") == ("Nothing matches ns=nowhere, whatever the rest says.", "ns=nowhere")
    assert why("name!=web (ns=a || ns=b)")[0].startswith("Nothing matches ns=a || ns=b")
    assert why("ns=nowhere") == ("Nothing matches ns=nowhere.", "ns=nowhere")
    says, part = why("code=404 code=500")
    assert "none matches both" in says
    assert part == "code=404"
    assert explain_nothing(Query.parse("verb=create,get,update"), INDEX, ALL, NOW) is None
    empty = explain_nothing(Query.parse("x"), Index(), ALL, NOW)
    assert empty is not None
    assert empty.says == "No trace has arrived."


@pytest.mark.parametrize(
    ("text", "part", "meant"),
    [
        ("http.respnse.status_code>=500", "http.respnse.status_code>=500", "http.response.status_code is"),
        ("verb=create @http.metod=GET", "@http.metod=GET", "http.method is"),
        ("settled", "settled", "settled=yes asks"),
        ("verb=create verb:create", "verb:create", "verb=create asks"),
        ("not verb=list", "not", "! stands"),
        ("no.such.thing.at.all=1", "no.such.thing.at.all=1", "all=1."),
        ("system:nobody-is-called-so", "system:nobody-is-called-so", "so."),
    ],
)
def test_what_may_have_been_meant_is_offered(text: str, part: str, meant: str) -> None:
    says, at = why(text)
    assert at == part
    assert meant in says


@pytest.mark.parametrize("word", ["AND", "OR", "NOT"])
def test_operators_of_other_languages_are_no_words(word: str) -> None:
    with pytest.raises(QueryError, match=f"{word} is a word to search for") as wrong:
        Query.parse(f"verb=get {word} code=200")
    assert wrong.value.at == (9, 9 + len(word))
    assert Query.parse(f'"{word}" {word.lower()}')


def test_a_switch_that_hides_all_is_named() -> None:
    assert "the time window hides" in why("spans>0", window_ns=1)[0]
    rec = Recorder()
    rec.span("GET", SERVER, scope=HTTP, values={"http.target": "/livez", "http.request.method": "GET"})
    noise = explain_nothing(Query.parse("livez"), rec.index(), replace(ALL, hide_noise=True), NOW)
    assert noise is not None
    assert noise.says == "1 match, but the noise key hides them."
    assert "errors-only" in why("errors=0 code<400", errors_only=True)[0]


@given(st.sampled_from(SAMPLES), FILTERS)
@settings(max_examples=60, deadline=None)
def test_what_finds_nothing_is_explained_and_nothing_else(sample: object, text: str) -> None:
    try:
        query = Query.parse(text)
    except QueryError:
        return
    found = select(INDEX, replace(ALL, query=query), NOW).slots
    nothing = explain_nothing(query, INDEX, ALL, NOW)
    assert (nothing is None) == bool(len(found))
