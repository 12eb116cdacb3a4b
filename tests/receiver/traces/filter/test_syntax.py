"""The grammar: what is understood and how, and what is said of all else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.traces.filter.fields import FIELDS, Kind
from receiver.traces.filter.patterns import MAX_PATTERN, Pattern, PatternError
from receiver.traces.filter.syntax import (
    EVERYTHING,
    MAX_DEPTH,
    MAX_QUERY,
    MAX_TERMS,
    MAX_VALUES,
    All,
    Condition,
    Either,
    Node,
    Not,
    OneSpan,
    QueryError,
    Word,
    attributes,
    nodes,
    parse,
    quoted,
    written,
)
from tests.work import calls_of


def has(name: str, *values: str, op: str = "=") -> Condition:
    return Condition(name, op, values)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", EVERYTHING),
        ("   ", EVERYTHING),
        ("Pods", Word("pods")),
        ('"two words"', Word("two words")),
        ('"verb=get"', Word("verb=get")),
        ("/api=v1", Word("/api=v1")),
        ("it’s", Word("it’s")),
        ('""', Word("")),
        ("apps/v1", Word("apps/v1")),
        ("List(recursive=true)", Word("list(recursive=true)")),
        ("namespace=KUBE-system", has("ns", "kube-system")),
        ("NS=a", has("ns", "a")),
        ("ns=", has("ns", "")),
        ("ns == a", has("ns", "a")),
        ("ua='Go http'", has("ua", "go http")),
        ("name=a=b", has("name", "a=b")),
        ("name='a=b'c", has("name", "a=bc")),
        ('ns=a,"b,c",""', has("ns", "a", "b,c", "")),
        ("code=5xx,404", has("code", "5xx", "404")),
        ("verb!=get", Not(has("verb", "get"))),
        ("!verb=get", Not(has("verb", "get"))),
        ("! ! x", Not(Not(Word("x")))),
        ("name=~Web-(a|b){1,3}", has("name", "Web-(a|b){1,3}", op="=~")),
        ("name!~'a b'", Not(has("name", "a b", op="=~"))),
        ("duration > 1.5s", has("duration", "1500000000", op=">")),
        ("duration>=1m30s", has("duration", "90000000000", op=">=")),
        ("etcd<20µs", has("etcd", "20000", op="<")),
        ("age<0", has("age", "0", op="<")),
        ("settled=TRUE", has("settled", "yes")),
        ("a b && c", All((Word("a"), Word("b"), Word("c")))),
        ("a||b c", Either((Word("a"), All((Word("b"), Word("c")))))),
        ("(a||b)c", All((Either((Word("a"), Word("b"))), Word("c")))),
        ("!(a b)", Not(All((Word("a"), Word("b"))))),
        ("Any(span=x kind=server)", OneSpan(All((has("span", "x"), has("kind", "server"))))),
        ("any", Word("any")),
    ],
)
def test_what_is_understood(text: str, tree: Node) -> None:
    assert parse(text) == tree


def test_attributes_are_read_by_all_names_of_their_concept() -> None:
    first, second, third = attributes(
        parse("http.response.status_code>=500 any(@limit<10 k8s.pod.name=~'web-.*') http.response.status_code>=500")
    )
    assert first.keys == ("http.response.status_code", "http.status_code")
    assert (second.keys, second.op, second.values) == (("limit",), "<", ("10",))
    assert (third.keys, third.values) == (("k8s.pod.name",), ("web-.*",))
    (size,) = attributes(parse("size>1MiB"))
    assert "http.response.body.size" in size.keys
    assert (size.values, size.size) == (("1048576",), True)


@pytest.mark.parametrize(
    ("text", "underlined", "says"),
    [
        ("x colour=red", "colour", "colour is no field"),
        ("resorce=pods", "resorce", "use resource"),
        ("verb>get", ">", "is no number"),
        ("ns=a duration>5", "5", "5 has no unit"),
        ("duration>5parsecs", "5parsecs", "parsecs is no unit"),
        ("duration=~5s", "=~", "takes no pattern"),
        ("spans>many", "many", "whole number"),
        ("size>big", "big", "is no size"),
        ("settled=perhaps", "perhaps", "yes or no"),
        ("component=scheduler", "scheduler", "one of apiserver"),
        ("code=abc", "abc", "is no status code"),
        ("code>5xx", "5xx", "is no status code"),
        ("code=1000", "1000", "is no status code"),
        ("trace=xyz", "xyz", "is no trace id"),
        ("trace=" + "0" * 33, "0" * 33, "is no trace id"),
        ("http.x>big", "big", "only numbers"),
        ("name=~[z-a]", "[z-a]", "no pattern"),
        ("name=~(?=a)", "(?=a)", "no pattern"),
        ("a name~=x", "~=", "write =~"),
        ("ns=a,,b", ",", "no value"),
        ("name=~", " ", "no value"),
        ("duration>1s,2s", ",", "takes one value"),
        (">5", ">", "no field before"),
        ("=x", "=", "no field before"),
        ("(a b", "(", "without its )"),
        ("x any(a", "any(", "without its )"),
        ("a b)", ")", "without its ("),
        ("name=a(b", "a(b", "without its )"),
        ("()", "()", "nothing inside"),
        ("a ||", "||", "nothing after"),
        ("|| a", "||", "nothing before"),
        ("a || || b", "||", "nothing after"),
        ("a &&", "&&", "missing"),
        ("a !", "!", "nothing after"),
        ("any(verb=get)", "verb", "outside any"),
        ("any(any(a))", "any(", "already"),
        ('"open', '"open', 'a " without its end'),
        ("it's", "'s", "a ' without its end"),
        ("x" * (MAX_QUERY + 1), "x", "longer than"),
        ("!" * (MAX_DEPTH + 2) + "x", "!", "deep"),
        ("(" * 3000, "(", "deep"),
        ("x " * (MAX_TERMS + 1), "x ", "more than"),
        ("ns=" + ",".join("a" * (MAX_VALUES + 1)), ",a", "more than"),
        ("name=~" + "a" * (MAX_PATTERN + 1), "a" * (MAX_PATTERN + 1), "longer than"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_underlined(text: str, underlined: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    error = caught.value
    assert says in str(error)
    assert str(error).count(". ") == 0
    assert len(str(error)) < 250
    start, end = error.at
    assert (text[start:end] or " ") == underlined


@given(st.text(max_size=60) | st.text(alphabet="\"'=!<>~()|&, axany@.5ms", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_filter_or_a_place_in_it(text: str) -> None:
    error, tree = None, EVERYTHING

    def attempt() -> None:
        nonlocal error, tree
        try:
            tree = parse(text)
        except QueryError as problem:
            error = problem

    _, calls = calls_of(attempt)
    assert calls < 20_000
    if error is not None:
        start, end = error.at
        assert 0 <= start < end <= len(text) + 1
        return
    assert parse(written(tree)) == tree
    for node in nodes(tree):
        start, end = node.at
        assert 0 <= start <= end <= len(text)


VALUES = {
    Kind.TEXT: st.text(max_size=12),
    Kind.ID: st.text("0123456789abcdef", min_size=1, max_size=32),
    Kind.CODE: st.sampled_from(("", "200", "404", "5xx")),
    Kind.COUNT: st.integers(0, 10**9).map(str),
    Kind.TIME: st.sampled_from(("0ns", "5ms", "1.5s", "2h3m")),
    Kind.SIZE: st.sampled_from(("0", "10kib", "1.5mib")),
    Kind.FLAG: st.sampled_from(("yes", "no", "true")),
}


@st.composite
def conditions(draw: st.DrawFn) -> str:
    field = draw(st.sampled_from([field for field in FIELDS.values() if field.kind in VALUES]))
    ordered = field.kind in (Kind.COUNT, Kind.TIME, Kind.SIZE)
    op = draw(st.sampled_from(("=", "!=", *((">", ">=", "<", "<=") if ordered else ()))))
    many = draw(st.lists(VALUES[field.kind], min_size=1, max_size=1 if op[0] in "<>" else 3))
    return f"{field.name}{op}{','.join(quoted(value) for value in many)}"


FILTERS = st.recursive(
    conditions() | st.text(max_size=8).map(quoted),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' || '.join(parts)})"),
        inner.map(lambda part: f"!{part}"),
    ),
    max_leaves=8,
)


@given(FILTERS)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_again(text: str) -> None:
    tree = parse(text)
    assert parse(written(tree)) == tree


@given(st.text(max_size=60) | st.text(alphabet="\"'= ax,()", max_size=20))
def test_any_value_can_be_written(value: str) -> None:
    assert parse(f"ua={quoted(value)} {quoted(value)}") == All((has("ua", value.casefold()), Word(value.casefold())))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(a|aa)+$", "a" * 60_000 + "b"),
        (r"^(\w+\s?)*$", "word " * 12_000 + "!"),
        (r"(.*a){9}.{1,400}b$", "a" * 65_000 + "c"),
    ],
)
def test_patterns_that_explode_elsewhere_do_not_here(pattern: str, text: str) -> None:
    assert not Pattern(pattern).holds(text)


def test_patterns_too_large_to_search_are_none() -> None:
    for text in (
        "(((((a{900}){900}){900}){900}){900})",
        "(",
        "\\",
        "(?<=a)b",
        r"(a)\1",
    ):
        with pytest.raises(PatternError):
            Pattern(text)
    assert Pattern("WEB-.$").holds("my web-1")
    assert not Pattern("^web").holds("my web-1")
    assert not Pattern("x").holds("\udcff")
