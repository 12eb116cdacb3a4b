"""YAML files as text whose parts are known by place: edits are spliced in, and no other byte moves.

ruamel.yaml composes the nodes with their marks; nothing is ever dumped. After each edit the new text is composed
again and compared, value by value, with what the edit was to give: a splice that did anything else is refused. So is a
text that PyYAML reads otherwise: it follows libyaml, as Go's reader does, by which the kubelet reads a manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tui.clusters.model import MOST_BYTES, PlanRefused

Key: TypeAlias = "str | int"
Path: TypeAlias = "tuple[Key, ...]"
Value: TypeAlias = "str | bool | int | dict[str, Value] | list[Value]"
"""What can be written. Mappings are written in the order that they have."""

_MOST_NODES: Final = 50_000
_DEEPEST: Final = 60
_TAG: Final = "tag:yaml.org,2002:"
_ALIAS: Final = re.compile(r"(?:[\s,\[-]|#[^\n]*)*\*[^\s,\[\]{}]+")
_PLAIN: Final = re.compile(r"[A-Za-z/_-][A-Za-z0-9_./=@%+-]*(?::[A-Za-z0-9_./=@%+-]+)*")
_NOT_TEXT: Final = re.compile(r"(?i)y|n|yes|no|true|false|on|off|null|-+|---.*|[-+.].*inf|.*nan|-[0-9.].*|-")


class Fault(Exception):
    """Why a text cannot be used, and the line (from 1; 0 unknown)."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.line = line


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar: its tag without the YAML prefix (`str`, `int`, `bool`, `null`...) and its text."""

    tag: str
    text: str


Tree: TypeAlias = "Leaf | dict[str, Tree] | list[Tree]"


@dataclass(frozen=True, slots=True)
class _Splice:
    start: int
    end: int
    text: str


class YamlText:
    """One file. Immutable: each edit gives another. Lines count from 1.

    Raises (on construction):
        PlanRefused: it is no YAML, has several documents with content, two equal keys, or is out of bounds.
    """

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        self.content = content
        if len(content) > MOST_BYTES:
            raise PlanRefused(f"{path} is over {MOST_BYTES >> 20} MiB, which no such file is; nothing was changed.")
        try:
            whole = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise PlanRefused(
                f"{path}, line {line}: this is not UTF-8, so it is not edited; correct it first."
            ) from None
        self._bom = "\ufeff" if whole.startswith("\ufeff") else ""
        self.text = whole[len(self._bom) :]
        try:
            self._root = _compose(self.text)
            self._shared = _shared(self._root)
            self.tree: Tree = _tree(self._root, [0], 0)
            _check_reading(self.text, self.tree)
        except Fault as fault:
            raise self.refusal(fault.line, f"{fault.why}, so it is not edited; correct it first.") from None

    # --- reading ---------------------------------------------------------------------------------
    def get(self, path: Path) -> Tree | None:
        """The value at a path, None where there is none."""
        at: Tree = self.tree
        for step in path:
            if isinstance(at, dict) and isinstance(step, str):
                if step not in at:
                    return None
                at = at[step]
            elif isinstance(at, list) and isinstance(step, int) and -1 < step < len(at):
                at = at[step]
            else:
                return None
        return at

    def words(self, path: Path, default: str = "") -> str:
        """The text of a scalar that is not null."""
        at = self.get(path)
        return at.text if isinstance(at, Leaf) and at.tag != "null" else default

    def size(self, path: Path) -> int:
        """How many items a list has, 0 for none."""
        at = self.get(path)
        return len(at) if isinstance(at, list) else 0

    def line(self, path: Path) -> int:
        """The line on which the value at a path, or the nearest one around it, begins."""
        node = self._root
        line = 1
        for step in path:
            try:
                node = self._step(node, step)
            except KeyError:
                break
            line = node.start_mark.line + 1
        return line

    def plain(self, path: Path) -> bool:
        """Whether the scalar at a path stands without quotes."""
        return self._node(path).style in (None, "")

    def merged(self, path: Path) -> bool:
        """Whether the mapping at a path, or one around it, takes keys from elsewhere (`<<`)."""
        return any(isinstance(at, dict) and "<<" in at for at in (self.get(path[:n]) for n in range(len(path) + 1)))

    def says_the_same(self, other: YamlText) -> bool:
        """Whether every reader of YAML finds the same in both, whatever comments, spacing, order of keys, and quotes
        that mean nothing. In doubt it says no: of `1` and `01`, `null` and nothing, keys from elsewhere (`<<`)."""
        mine = _meaning(self._root)
        return mine is not None and self._bom == other._bom and mine == _meaning(other._root)

    def refusal(self, line: int, why: str) -> PlanRefused:
        """A sentence that names this file and, where it is known, the line."""
        return PlanRefused(f"{self.path}, line {line}: {why}" if line else f"{self.path}: {why}")

    # --- edits -----------------------------------------------------------------------------------
    def replace(self, path: Path, new: str) -> YamlText:
        """Another text for the scalar at a path, in the quotes that it has."""
        node = self._editable(path)
        if not isinstance(self.get(path), Leaf):
            raise self.refusal(self.line(path), "a list or mapping stands where a word was expected.")
        if node.style in ("|", ">") or node.start_mark.line != node.end_mark.line:
            raise self.refusal(
                self.line(path), "the value runs over several lines, so it is not edited; put it on one."
            )
        old = self.text[node.start_mark.index : node.end_mark.index]
        if old[:1] in ("&", "!"):
            raise self.refusal(
                self.line(path), "the value has an anchor or a tag, so it is not edited; write it plain."
            )
        flow = self._in_flow(path)
        splice = _Splice(node.start_mark.index, node.end_mark.index, _scalar(new, old[:1], flow))
        return self._with(splice, lambda tree: _put(tree, path, Leaf("str", new)))

    def replace_number(self, path: Path, new: int) -> YamlText:
        """Another whole number for the scalar at a path."""
        node = self._editable(path)
        splice = _Splice(node.start_mark.index, node.end_mark.index, str(new))
        if node.start_mark.line != node.end_mark.line or self.text[splice.start : splice.start + 1] in ("&", "!"):
            raise self.refusal(self.line(path), "the value is not a plain one on one line, so it is not edited.")
        return self._with(splice, lambda tree: _put(tree, path, Leaf("int", str(new))))

    def append(self, path: Path, value: Value) -> YamlText:
        """One more item at the end of the list at a path."""
        node = self._editable(path)
        now = self.get(path)
        if not isinstance(now, list):
            raise self.refusal(self.line(path), "there is no list, though one was expected.")
        if node.flow_style:
            splice = self._flow_splice(node, self._end_of_item(node, len(now) - 1), json.dumps(value))
        else:
            column = node.start_mark.column
            lines = _block(value, column + 2)
            lines[0] = " " * column + "- " + lines[0].lstrip(" ")
            splice = self._lines_after(self._end_of_item(node, len(now) - 1), lines)
        return self._with(splice, lambda tree: _put(tree, path, [*now, _as_tree(value)]))

    def add(self, path: Path, key: str, value: Value) -> YamlText:
        """One more key at the end of the mapping at a path."""
        node = self._editable(path)
        now = self.get(path)
        if not isinstance(now, dict):
            raise self.refusal(self.line(path), "there is no mapping, though one was expected.")
        if node.flow_style:
            last = node.value[-1] if node.value else None
            if last is not None and _empty(last[1]):
                raise self.refusal(last[0].start_mark.line + 1, "a key without a value ends a mapping in braces.")
            splice = self._flow_splice(
                node, self._end_of_pair(last) if last else -1, f"{json.dumps(key)}: {json.dumps(value)}"
            )
        else:
            column = node.start_mark.column
            splice = self._lines_after(self._end_of_pair(node.value[-1]), self._key_lines(key, value, column))
        return self._with(splice, lambda tree: _put(tree, path, {**now, key: _as_tree(value)}))

    def fill(self, path: Path, value: Value) -> YamlText:
        """A value for the key at a path that has none (null)."""
        self._editable(path[:-1])
        holder = self._node(path[:-1])
        pair = next(pair for pair in holder.value if pair[0].value == path[-1])
        if not _empty(pair[1]) or holder.flow_style:
            raise self.refusal(self.line(path[:-1]), f"`{path[-1]}` has a value of another kind than expected.")
        if isinstance(value, (dict, list)):
            lines = self._key_lines(str(path[-1]), value, holder.start_mark.column)[1:]
            splice = self._lines_after(self._end_of_pair(pair), lines)
        else:
            end = self._end_of_pair(pair)
            splice = _Splice(end, end, " " + _block(value, 0)[0])
        return self._with(splice, lambda tree: _put(tree, path, _as_tree(value)))

    def remove(self, path: Path, *, keep: bool = False) -> YamlText:
        """Without the item or key at a path. A block list or mapping that is left empty goes with its key, unless it is
        to `keep` that: then the key has no value, as before `fill`."""
        holder = self._editable(path[:-1])
        now = self.get(path[:-1])
        step = path[-1]
        if isinstance(now, list) and isinstance(step, int):
            index = step
            ends = [self._end_of_item(holder, i) for i in range(len(holder.value))]
            parts = [(item.start_mark.index, end) for item, end in zip(holder.value, ends, strict=True)]
        elif isinstance(now, dict) and isinstance(step, str):
            index = next(i for i, pair in enumerate(holder.value) if pair[0].value == step)
            parts = [(pair[0].start_mark.index, self._end_of_pair(pair)) for pair in holder.value]
        else:
            raise self.refusal(self.line(path), "there is nothing to remove.")
        for inner in self._inside(holder.value[index]):
            if inner.anchor and id(inner) in self._shared:
                raise self.refusal(
                    inner.start_mark.line + 1, f"`&{inner.anchor}` is used elsewhere; it is not removed."
                )
        if holder.flow_style:
            start, end = parts[index]
            if index > 0:
                start = parts[index - 1][1]
            elif len(parts) > 1:
                end = parts[1][0]
            return self._with(_Splice(start, end, ""), lambda tree: _drop(tree, path))
        if len(parts) == 1 and not keep:
            return self.remove(path[:-1])
        left = _put(self.tree, path[:-1], Leaf("null", "")) if len(parts) == 1 else _drop(self.tree, path)
        start = self._line_start(parts[index][0])
        if isinstance(step, int):
            start = self._dash_line(holder.start_mark, parts[index][0], first=index == 0)
        elif self.text[start : parts[index][0]].strip(" "):
            raise self.refusal(self.line(path), "something else stands on the same line, so it is not removed.")
        end = self._next_line(parts[index][1])
        if not self.text[start:end].endswith("\n"):
            start = len(self.text[:start].removesuffix("\n").removesuffix("\r"))
        return self._with(_Splice(start, end, ""), lambda tree: left)

    # --- places ----------------------------------------------------------------------------------
    def _node(self, path: Path) -> Any:
        node = self._root
        for step in path:
            node = self._step(node, step)
        return node

    @staticmethod
    def _step(node: Any, step: Key) -> Any:
        if isinstance(step, int):
            if not isinstance(node.value, list) or step >= len(node.value) or isinstance(node.value[step], tuple):
                raise KeyError(step)
            return node.value[step]
        if isinstance(node.value, list):
            for pair in node.value:
                if isinstance(pair, tuple) and pair[0].value == step:
                    return pair[1]
        raise KeyError(step)

    def _editable(self, path: Path) -> Any:
        """The node at a path, unless an edit there would show elsewhere too."""
        node = self._root
        for at, step in enumerate((None, *path)):
            if step is not None:
                try:
                    node = self._step(node, step)
                except KeyError:
                    raise self.refusal(
                        self.line(path[: at - 1]), f"there is no {_place(path[:at])} here, though one was expected."
                    ) from None
            if id(node) in self._shared:
                name = f"`*{node.anchor}`" if node.anchor else "an alias"
                raise self.refusal(
                    node.start_mark.line + 1,
                    f"this part is used again by {name}, so an edit would change more than it should; write it out.",
                )
        return node

    def _in_flow(self, path: Path) -> bool:
        return any(self._node(path[:n]).flow_style for n in range(len(path)))

    def _inside(self, part: Any) -> Iterator[Any]:
        waiting = list(part) if isinstance(part, tuple) else [part]
        while waiting:
            node = waiting.pop()
            yield node
            if isinstance(node.value, list):
                for child in node.value:
                    waiting.extend(child if isinstance(child, tuple) else (child,))

    def _end(self, node: Any) -> int:
        """Where the last character of a node's own text ends."""
        if isinstance(node.value, list) and not node.flow_style and node.value:
            last = node.value[-1]
            return (
                self._end_of_pair(last) if isinstance(last, tuple) else max(self._end(last), node.start_mark.index + 1)
            )
        if _empty(node):
            # Its mark stands before the next token: back over what lies between.
            return len(self.text[: node.start_mark.index].rstrip(" \r\n"))
        return int(node.end_mark.index)

    def _end_of_item(self, holder: Any, index: int) -> int:
        """Where an item of a list ends, -1 for the one before the first. An alias has the marks of its anchor."""
        if index < 0:
            return -1
        item = holder.value[index]
        before = max(self._end_of_item(holder, index - 1), holder.start_mark.index)
        if id(item) not in self._shared or item.start_mark.index > before or (index == 0 and item.anchor is None):
            return self._end(item)
        match = _ALIAS.match(self.text, before)
        return match.end() if match else self._end(item)

    def _end_of_pair(self, pair: Any) -> int:
        if _empty(pair[1]):
            colon = self.text.find(":", pair[0].end_mark.index)
            return colon + 1
        if id(pair[1]) in self._shared and pair[1].start_mark.index < pair[0].end_mark.index:
            match = re.compile(r"\s*:\s*\*[^\s,\]}]+").match(self.text, pair[0].end_mark.index)
            if match is None:
                raise self.refusal(
                    pair[0].start_mark.line + 1, "an alias stands here, so it is not edited; write it out."
                )
            return match.end()
        return self._end(pair[1])

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _next_line(self, at: int) -> int:
        if at > 0 and self.text[at - 1] == "\n":
            return at
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _dash_line(self, mark: Any, at: int, *, first: bool) -> int:
        """Start of the line with the dash of the item that begins at `at`, in the list that begins at `mark`."""
        start = self._line_start(mark.index if first else at)
        while start > 0 and self.text[start : start + mark.column + 1] != " " * mark.column + "-":
            if start <= mark.index:
                break
            start = self._line_start(start - 1)
        if self.text[start : start + mark.column + 1] != " " * mark.column + "-":
            raise self.refusal(self.text.count("\n", 0, at) + 1, "the dash of this item stands on a line with others.")
        return start

    def _lines_after(self, at: int, lines: Sequence[str]) -> _Splice:
        """Whole lines after the one in which `at` lies, with the line ends that this one has."""
        end = self._next_line(at)
        before = self.text[:end]
        newline = "\r\n" if before.endswith("\r\n") or (not before.endswith("\n") and "\r\n" in before) else "\n"
        if before.endswith("\n"):
            return _Splice(end, end, "".join(line + newline for line in lines))
        return _Splice(end, end, "".join(newline + line for line in lines))

    def _flow_splice(self, node: Any, end: int, text: str) -> _Splice:
        """One more part in braces or brackets, after the one that ends at `end`; -1: they are empty."""
        if end < 0:
            opening = "[" if self.text[node.end_mark.index - 1] == "]" else "{"
            at = self.text.index(opening, node.start_mark.index) + 1
            return _Splice(at, at, text)
        return _Splice(end, end, f", {text}")

    def _key_lines(self, key: str, value: Value, column: int) -> list[str]:
        """A key and its value as block lines; lists are indented as the other lists of the file are."""
        pad = " " * column
        name = key if _PLAIN.fullmatch(key) and ":" not in key else json.dumps(key)
        if isinstance(value, dict):
            return [f"{pad}{name}:", *_block(value, column + 2)]
        if isinstance(value, list):
            deeper = column + (2 if self._indents_lists() else 0)
            lines = [f"{pad}{name}:"]
            for item in value:
                part = _block(item, deeper + 2)
                lines += [" " * deeper + "- " + part[0].lstrip(" "), *part[1:]]
            return lines
        return [f"{pad}{name}: {_block(value, 0)[0]}"]

    def _indents_lists(self) -> bool:
        """Whether dashes stand to the right of their key, by the first block list there is."""
        waiting = [self._root]
        while waiting:
            node = waiting.pop(0)
            for child in node.value if isinstance(node.value, list) else ():
                if isinstance(child, tuple):
                    key, value = child
                    block = isinstance(value.value, list) and value.value and not value.flow_style
                    if block and not isinstance(value.value[0], tuple) and value.start_mark.line > key.start_mark.line:
                        return bool(value.start_mark.column > key.start_mark.column)
                    waiting.append(value)
                else:
                    waiting.append(child)
        return False

    def _with(self, splice: _Splice, change: Any) -> YamlText:
        """The text with a splice, if it now says what it said with `change` made, and nothing else."""
        text = self._bom + self.text[: splice.start] + splice.text + self.text[splice.end :]
        line = self.text.count("\n", 0, splice.start) + 1
        why = "an edit here would change more than it should, so nothing was changed; edit this part by hand."
        try:
            after = YamlText(self.path, text.encode("utf-8"))
        except PlanRefused:
            raise self.refusal(line, why) from None
        if after.tree != change(self.tree):
            raise self.refusal(line, why)
        return after


# --- nodes ----------------------------------------------------------------------------------------
def _compose(text: str) -> Any:
    """The only document with content of a text, as ruamel's node. Raises Fault."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="safe", pure=True)
    try:
        documents = list(reader.compose_all(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Fault(f"this is no YAML ({error.problem or error.context})", mark.line + 1 if mark else 0) from None
    except (YAMLError, RecursionError, ValueError) as error:
        why = str(error).splitlines()[0][:120] if str(error) else "nested too deeply"
        raise Fault(f"this is no YAML ({why})") from None
    full = [document for document in documents if document is not None and not _empty(document)]
    if not full:
        raise Fault("this holds nothing", 1)
    if len(full) > 1:
        raise Fault("a second document begins here, and only the first one is read", full[1].start_mark.line + 1)
    if documents[0] is not full[0]:
        raise Fault("the first document is empty, and no other is read", full[0].start_mark.line + 1)
    return full[0]


def _meaning(node: Any) -> Any:
    """A value that is equal for two nodes only where no reader tells them apart; None where that is not known."""
    if not isinstance(node.value, list):
        text = str(node.value)
        # Quoted or not makes a difference where the bare word may be something else than a string for some reader.
        bare = node.style in (None, "") and not (_PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text))
        return str(node.tag), text, bare
    pairs = bool(node.value) and isinstance(node.value[0], tuple)
    if pairs and any(key.value == "<<" for key, _ in node.value):
        return None
    parts = [(_meaning(key), _meaning(value)) for key, value in node.value] if pairs else map(_meaning, node.value)
    found = list(parts)
    if any(part is None or (pairs and None in part) for part in found):
        return None
    return str(node.tag), frozenset(found) if pairs else tuple(found)


def _check_reading(text: str, tree: Tree) -> None:
    """Raises Fault where PyYAML does not read the same."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.compose_all(text, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = f"this is no YAML for every reader ({getattr(error, 'problem', None) or 'see there'})"
        raise Fault(why, mark.line + 1 if mark else 0) from None
    if not documents or not _same(documents[0], tree):
        raise Fault("readers of YAML do not agree about this", 1)


def _same(node: Any, tree: Tree) -> bool:
    """Whether a node of PyYAML holds the same; tags are left out, since YAML 1.1 has more of them."""
    if isinstance(tree, Leaf):
        return isinstance(node.value, str) and node.value == tree.text
    if isinstance(tree, dict):
        if not isinstance(node.value, list) or len(node.value) != len(tree):
            return False
        return all(
            isinstance(pair, tuple) and pair[0].value == key and _same(pair[1], inner)
            for pair, (key, inner) in zip(node.value, tree.items(), strict=True)
        )
    if not isinstance(node.value, list) or len(node.value) != len(tree):
        return False
    return all(_same(item, inner) for item, inner in zip(node.value, tree, strict=True))


def _place(path: Path) -> str:
    """`spec.containers[0]`."""
    return "`" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".") + "`"


def _empty(node: Any) -> bool:
    return not isinstance(node.value, list) and bool(node.start_mark.index == node.end_mark.index) and not node.anchor


def _shared(root: Any) -> frozenset[int]:
    """The nodes (by id) that are reached in more than one way: those with aliases."""
    seen: set[int] = set()
    twice: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            twice.add(id(node))
            continue
        seen.add(id(node))
        if isinstance(node.value, list):
            for child in node.value:
                waiting.extend(child if isinstance(child, tuple) else (child,))
    return frozenset(twice)


def _tree(node: Any, count: list[int], depth: int) -> Tree:
    count[0] += 1
    line = node.start_mark.line + 1
    if count[0] > _MOST_NODES or depth > _DEEPEST:
        raise Fault("this holds more, or is nested deeper, than any such file", line)
    if not isinstance(node.value, list):
        return Leaf(str(node.tag).removeprefix(_TAG), str(node.value))
    if not node.value or not isinstance(node.value[0], tuple):
        if str(node.tag).endswith(":map"):
            return {}
        return [_tree(item, count, depth + 1) for item in node.value]
    made: dict[str, Tree] = {}
    for key, value in node.value:
        if isinstance(key.value, list):
            raise Fault("a list or mapping is used as a key", key.start_mark.line + 1)
        name = str(key.value)
        if name in made:
            raise Fault(f"the key {name[:60]!r} stands here a second time", key.start_mark.line + 1)
        made[name] = _tree(value, count, depth + 1)
    return made


def _as_tree(value: Value) -> Tree:
    if isinstance(value, dict):
        return {key: _as_tree(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_tree(inner) for inner in value]
    if isinstance(value, bool):
        return Leaf("bool", "true" if value else "false")
    return Leaf("int", str(value)) if isinstance(value, int) else Leaf("str", value)


def _put(tree: Tree, path: Path, value: Tree) -> Tree:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(tree, dict) and isinstance(step, str):
        return {**tree, step: _put(tree[step], rest, value)}
    assert isinstance(tree, list)
    return [_put(item, rest, value) if index == step else item for index, item in enumerate(tree)]


def _drop(tree: Tree, path: Path) -> Tree:
    step, rest = path[0], path[1:]
    if isinstance(tree, dict) and isinstance(step, str):
        if rest:
            return {**tree, step: _drop(tree[step], rest)}
        return {key: value for key, value in tree.items() if key != step}
    assert isinstance(tree, list)
    if rest:
        return [_drop(item, rest) if index == step else item for index, item in enumerate(tree)]
    return [item for index, item in enumerate(tree) if index != step]


def _scalar(text: str, quote: str, flow: bool) -> str:
    """A string in the quotes that stood there, or plain where that reads back as the same string."""
    if quote == "'" and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    if quote not in ("'", '"') and text.isprintable():
        simple = _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text)
        # In block context a comma or a bracket within the text is nothing special.
        loose = not flow and re.fullmatch(r"--?[A-Za-z][^\s#'\"`]*[^\s:#'\"`]", text) and ": " not in text
        if simple or loose:
            return text
    return json.dumps(text, ensure_ascii=False)


def _block(value: Value, column: int) -> list[str]:
    """A value as block lines, each indented by `column`; a scalar is one line."""
    pad = " " * column
    if isinstance(value, dict):
        lines: list[str] = []
        for key, inner in value.items():
            name = key if _PLAIN.fullmatch(key) and ":" not in key else json.dumps(key)
            if isinstance(inner, dict):
                lines += [f"{pad}{name}:", *_block(inner, column + 2)]
            elif isinstance(inner, list):
                lines.append(f"{pad}{name}: {json.dumps(inner)}")
            else:
                lines.append(f"{pad}{name}: {_block(inner, 0)[0]}")
        return lines
    if isinstance(value, bool):
        return [pad + ("true" if value else "false")]
    if isinstance(value, int):
        return [pad + str(value)]
    if isinstance(value, list):
        return [pad + json.dumps(value)]
    return [pad + _scalar(value, "", False)]
