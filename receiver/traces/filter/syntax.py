"""The grammar: text to a tree of conditions, each with its place in the text.

    filter    = every { "||" every }
    every     = { one }                                juxtaposition is AND; `&&` may stand between
    one       = "!" one | "(" filter ")" | "any(" filter ")" | condition | word
    condition = name operator value { "," value }      = != > >= < <= =~ !~; patterns take no list

A value or word ends at a space, at `||` and at a `)` that it did not open itself, so `name=~web-(a|b)` needs no quotes.
Quotes of either kind hold anything together. Blanks around an operator are allowed on both sides.

Everything is bounded: length, depth, conditions and values, so that parsing takes a millisecond at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from receiver.traces.filter.attributes import Attribute
from receiver.traces.filter.fields import FIELDS, Kind, Level, WrongValue, check, nearest, resolve
from receiver.traces.semantics import ALIASES

MAX_QUERY: Final = 4_096
"""Longest filter in characters."""
MAX_DEPTH: Final = 32
"""Parentheses and `!` inside each other."""
MAX_TERMS: Final = 64
"""Words and conditions of a filter."""
MAX_VALUES: Final = 256
"""Values of one list."""

Place = tuple[int, int]
"""Where something stands in the text of a filter: first character, and the one after the last."""


class QueryError(Exception):
    """A filter is not understood; str() is one sentence for the operator.

    `at` is what to underline in the text, `expected` what could stand there (a few words, "" where that is not known),
    `offers` names that may have been meant.
    """

    def __init__(self, says: str, at: Place = (0, 0), expected: str = "", offers: tuple[str, ...] = ()) -> None:
        super().__init__(says)
        self.at = at
        self.expected = expected
        self.offers = offers


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word, casefolded."""

    text: str
    at: Place = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition. `name` is one of `FIELDS`, or "" where `attribute` says what is read. `op` is never negative, `!=`
    and `!~` are a `Not` around it. Values are casefolded but for patterns. `wrote` is the name as it was written."""

    name: str
    op: str
    values: tuple[str, ...]
    attribute: Attribute | None = None
    wrote: str = field(default="", compare=False)
    at: Place = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold. `inline`: written as `!=` or `!~`."""

    of: Node
    inline: bool = field(default=False, compare=False)
    at: Place = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class All:
    """Each part holds; without parts everything does."""

    parts: tuple[Node, ...] = ()
    at: Place = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Either:
    """One of the parts holds."""

    parts: tuple[Node, ...]
    at: Place = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class OneSpan:
    """`any(...)`: some one span of the trace fulfils all of it."""

    of: Node
    at: Place = field(default=(0, 0), compare=False)


EVERYTHING: Final = All()
Node = Word | Condition | Not | All | Either | OneSpan


def parse(text: str) -> Node:
    """The tree of a filter; `All()` for an empty one.

    Raises:
        QueryError: it is not understood.
    """
    if len(text) > MAX_QUERY:
        raise QueryError(f"The filter is longer than {MAX_QUERY:,} characters: shorten it.", (MAX_QUERY, len(text)))
    return _Parser(text).whole()


def nodes(root: Node) -> Iterator[Node]:
    """All nodes of a tree, parents first."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, (All, Either)):
            stack.extend(reversed(node.parts))
        elif isinstance(node, (Not, OneSpan)):
            stack.append(node.of)


def attributes(root: Node) -> tuple[Attribute, ...]:
    """What of a filter must be read in the bodies of spans, each once."""
    return tuple(
        dict.fromkeys(n.attribute for n in nodes(root) if isinstance(n, Condition) and n.attribute is not None)
    )


# --- writing --------------------------------------------------------------------------------------
_PLAIN: Final = re.compile(r"[\w./:@-]+")


def quoted(value: str) -> str:
    """A value as it is written in a filter, whatever is in it: `Query.parse(f"name={quoted(x)}")` looks for x."""
    if _PLAIN.fullmatch(value) and value[0] != "@":
        return value
    return "'\"'".join(f'"{part}"' for part in value.split('"'))


def written(node: Node) -> str:
    """A tree as text: `parse` makes the same tree of it."""
    if isinstance(node, Word):
        return quoted(node.text)
    if isinstance(node, Condition):
        return _test(node, node.op)
    if isinstance(node, Not):
        if node.inline and isinstance(node.of, Condition):
            return _test(node.of, {"=": "!=", "=~": "!~"}[node.of.op])
        return "!" + _grouped(node.of)
    if isinstance(node, OneSpan):
        return f"any({written(node.of)})"
    if isinstance(node, Either):
        return " || ".join(_grouped(part) if isinstance(part, Either) else written(part) for part in node.parts)
    return " ".join(_grouped(part) for part in node.parts)


def _grouped(node: Node) -> str:
    return f"({written(node)})" if isinstance(node, (All, Either)) else written(node)


def _test(node: Condition, op: str) -> str:
    name = node.name or node.wrote or (node.attribute.name if node.attribute is not None else "")
    timed = node.name in FIELDS and FIELDS[node.name].kind is Kind.TIME
    return f"{name}{op}{','.join(value + 'ns' if timed else quoted(value) for value in node.values)}"


# --- reading --------------------------------------------------------------------------------------
_NAME: Final = re.compile(r"@?[^\W\d][\w.\-]*(?:(?<=\w)/[\w.\-/]*)?|@[\w./\-]+")
_OPERATOR: Final = re.compile(r">=|<=|!=|=~|!~|==|~=|=>|=<|<>|~|=|>|<")
_SPACED: Final = re.compile(r"\s+(?:(>=|<=|!=|=~|!~|==|=|>|<)(?=\s))\s*")
_IN_WORDS: Final = {"AND": "leave it out", "OR": "write ||", "NOT": "write !"}
"""How other languages write what stands for itself here."""
_WRONG: Final = {"~=": "=~", "~": "=~", "=>": ">=", "=<": "<=", "<>": "!="}
_OPERATORS: Final = "= != > >= < <= =~ !~"


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.terms = 0

    def whole(self) -> Node:
        node = self.either(0, None)
        if self.at < len(self.text):  # only a parenthesis ends the loops before the text ends
            raise QueryError(
                "There is a ) without its (: remove it, or quote the word.", (self.at, self.at + 1), "a condition"
            )
        return node

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def starts(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def either(self, depth: int, span: Place | None) -> Node:
        """`span`: where the any( around it stands, None outside."""
        begin = self.at
        parts = [self.every(depth, span)]
        while self.starts("||"):
            at = self.at
            self.at += 2
            parts.append(self.every(depth, span))
            if any(part == EVERYTHING for part in parts[-2:]):
                side = "before" if parts[-2] == EVERYTHING else "after"
                raise QueryError(
                    f"There is nothing {side} the ||: write a condition there.", (at, at + 2), "a condition"
                )
        return parts[0] if len(parts) == 1 else Either(tuple(parts), (begin, self.at))

    def every(self, depth: int, span: Place | None) -> Node:
        parts: list[Node] = []
        self.space()
        begin = self.at
        while self.at < len(self.text) and not self.starts(")") and not self.starts("||"):
            if self.starts("&&"):
                at = self.at
                self.at += 2
                self.space()
                if not parts or self.at >= len(self.text) or self.starts(")") or self.starts("||"):
                    raise QueryError(
                        "There is a condition missing beside the &&: write one, or leave && out.",
                        (at, at + 2),
                        "a condition",
                    )
                continue
            parts.append(self.one(depth, span))
            self.space()
        if len(parts) == 1:
            return parts[0]
        end = parts[-1].at[1] if parts else begin
        return All(tuple(parts), (begin, end))

    def one(self, depth: int, span: Place | None) -> Node:
        begin = self.at
        if depth > MAX_DEPTH:
            raise QueryError(f"The filter is nested more than {MAX_DEPTH} deep: simplify it.", (begin, begin + 1))
        called = re.compile(r"any\(", re.IGNORECASE).match(self.text, begin)
        if self.starts("(") or called:
            return self.group(depth, span, called is not None)
        operator = _OPERATOR.match(self.text, begin)
        if operator and not (operator[0] == "!" or self.text[begin] == "~"):
            raise QueryError(
                f"There is no field before the {operator[0]}: write one, or quote the word.",
                operator.span(),
                "a field or a word",
            )
        if self.starts("!"):
            self.at += 1
            self.space()
            if self.at >= len(self.text) or self.starts(")") or self.starts("||") or self.starts("&&"):
                raise QueryError(
                    "There is nothing after the !: write what must not hold.", (begin, begin + 1), "a condition"
                )
            of = self.one(depth + 1, span)
            return Not(of, False, (begin, self.at))
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise QueryError(f"The filter has more than {MAX_TERMS} conditions: shorten it.", (begin, len(self.text)))
        name = _NAME.match(self.text, begin)
        if name:
            end = name.end()
            operator = _OPERATOR.match(self.text, end)
            if operator and ("/" not in name[0] or "." in name[0].partition("/")[0] or name[0][0] == "@"):
                self.at = operator.end()
                return self.condition(name[0], operator[0], operator.span(), begin, span)
            spaced = _SPACED.match(self.text, end)
            if spaced and resolve(name[0]) is not None:
                self.at = spaced.end()
                return self.condition(name[0], spaced[1], spaced.span(1), begin, span)
        text, quotes = self.value("", first=False)
        if text in _IN_WORDS and not quotes:
            raise QueryError(
                f"{text} is a word to search for: {_IN_WORDS[text]}, or quote it.", (begin, self.at), _IN_WORDS[text]
            )
        return Word(text.casefold(), (begin, self.at))

    def group(self, depth: int, span: Place | None, one_span: bool) -> Node:
        begin = self.at
        self.at += 4 if one_span else 1
        opened = (begin, self.at)
        if one_span and span is not None:
            raise QueryError("any( is about one span already: take the inner any( away.", opened, "a condition")
        node = self.either(depth + 1, opened if one_span else span)
        if not self.starts(")"):
            raise QueryError("There is a ( without its ): close it, or quote the word.", opened, ")")
        if node == EVERYTHING:
            raise QueryError(
                "There is nothing inside the parentheses: write a condition.", (begin, self.at + 1), "a condition"
            )
        self.at += 1
        return OneSpan(node, (begin, self.at)) if one_span else node

    def condition(self, wrote: str, op: str, op_at: Place, begin: int, span: Place | None) -> Node:
        if op in _WRONG:
            raise QueryError(
                f"{wrote[:40]}{op} is not understood: write {_WRONG[op]}.", op_at, f"one of {_OPERATORS}", (_WRONG[op],)
            )
        op = "=" if op == "==" else op
        named = (begin, begin + len(wrote))
        found = resolve(wrote)
        if found is None:
            offers = nearest(wrote)
            meant = f"use {' or '.join(offers)}" if offers else "use one such as verb, ns, code, duration"
            raise QueryError(
                f"{wrote[:40]} is no field: {meant}, @{wrote[:40]} for an attribute, or quote the word.",
                named,
                "a field",
                offers,
            )
        if span is not None and found.level is Level.TRACE:
            raise QueryError(
                f"{wrote[:40]} belongs to a whole trace: write it outside any(...).", named, "a field of spans"
            )
        negative = op[0] == "!"
        positive = {"!=": "=", "!~": "=~"}.get(op, op)
        values: list[str] = []
        while True:
            at = self.at
            text, quotes = self.value("" if positive == "=~" else ",", first=True)
            if positive != "=~":
                text = text.casefold()
            more = positive != "=~" and self.starts(",")
            if not text and not quotes and (values or more or positive != "="):
                what = "the comma" if values else op
                raise QueryError(
                    f'There is no value at {what}: write one, or "" for none.', (at, max(at + 1, self.at)), "a value"
                )
            try:
                values.append(check(found, positive, text))
            except WrongValue as wrong:
                place = op_at if wrong.operator else (at, max(at + 1, self.at))
                raise QueryError(f"{wrote[:40]}{op}{text[:40]} is wrong: {wrong}.", place, wrong.expected) from None
            if not more:
                break
            if positive != "=":
                raise QueryError(
                    f"{wrote[:40]}{op} takes one value: lists go with = and !=.", (self.at, self.at + 1), "one value"
                )
            if len(values) >= MAX_VALUES:
                raise QueryError(f"The list has more than {MAX_VALUES} values: shorten it.", (self.at, len(self.text)))
            self.at += 1
        place = (begin, self.at)
        attribute = None
        if found.kind in (Kind.ATTRIBUTE, Kind.SIZE):
            attribute = Attribute(
                found.name, found.keys, positive, tuple(values), found.kind is Kind.SIZE, found.keys == ALIASES["code"]
            )
        name = found.name if found.name in FIELDS else ""
        node = Condition(name, positive, tuple(values), attribute, wrote, place)
        return Not(node, True, place) if negative else node

    def value(self, stops: str, first: bool) -> tuple[str, bool]:
        """(a word or value from here, whether a part of it was in quotes). `first`: it may begin with a parenthesis."""
        text, begin, opened, quotes = self.text, self.at, 0, False
        parts: list[str] = []
        at = begin
        while at < len(text):
            character = text[at]
            if character in "\"'":
                end = text.find(character, at + 1)
                if end < 0:
                    raise QueryError(
                        f"The filter has a {character} without its end: close it.", (at, len(text)), character
                    )
                parts.append(text[at + 1 : end])
                quotes, at = True, end + 1
                continue
            if character.isspace() and not opened:
                break
            if character == "(" and (first or at > begin):
                opened += 1
            elif character == ")":
                if not opened:
                    break
                opened -= 1
            elif not opened and (character in stops or text.startswith("||", at)):
                break
            parts.append(character)
            at += 1
        if opened:
            raise QueryError("There is a ( without its ): close it, or quote the word.", (begin, at), ")")
        self.at = at
        return "".join(parts), quotes
