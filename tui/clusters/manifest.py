"""A static pod manifest: where its parts stand in the text, and edits that move no other byte.

ruamel.yaml tells the line of each node; lines are put in, replaced or taken out, and the result is parsed again: if it
differs from what was meant by anything else, the edit is refused. What is written in a form that this cannot be sure
about (flow style, aliases, several documents, one string for a shell) is refused with its line.
"""

from __future__ import annotations

import copy
import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tui.clusters.model import PlanRefused

MOST_BYTES: Final = 256 << 10
_ITEM: Final = re.compile(r"^(\s*- +)(\S.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read: `pod` is what it says, `content` its bytes."""

    path: str
    content: bytes
    pod: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the pod."""
        return str((self.pod.get("metadata") or {}).get("name") or "")

    def container(self, program: str) -> Mapping[str, Any]:
        """The container that runs a program (`kube-apiserver`, `etcd`).

        Raises:
            PlanRefused: there is none, or it is started in a way that cannot be edited.
        """
        for one in _containers(self.pod):
            words = [str(word) for word in (*(one.get("command") or ()), *(one.get("args") or ()))]
            if not words:
                continue
            if one.get("name") == program or posixpath.basename(words[0]) == program:
                if any(" --" in word for word in words):
                    raise PlanRefused(
                        f"{self.path}: {program} is started by a shell line, whose flags are one string; "
                        "write them as a list, or edit the file by hand."
                    )
                return one
        raise PlanRefused(f"{self.path} has no container that runs {program}, so there is nothing to trace in it.")


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    spec = pod.get("spec")
    for one in spec.get("containers") or () if isinstance(spec, Mapping) else ():
        if isinstance(one, Mapping):
            yield one


def read(path: str, content: bytes) -> Manifest | None:
    """A manifest, None for what is no pod.

    Raises:
        PlanRefused: it is not YAML, or holds more than one document.
    """
    documents = [one for one in _documents(path, content) if one is not None]
    if len(documents) > 1:
        raise PlanRefused(f"{path} holds {len(documents)} documents; the kubelet takes one pod a file: split it.")
    if not documents or not isinstance(documents[0], Mapping) or documents[0].get("kind") != "Pod":
        return None
    return Manifest(path, content, documents[0])


def _documents(path: str, content: bytes) -> list[Any]:
    import yaml

    if len(content) > MOST_BYTES:
        raise PlanRefused(f"{path} is larger than {MOST_BYTES >> 10} KiB, which no manifest is.")
    try:
        return list(yaml.load_all(content.decode("utf-8"), Loader=yaml.SafeLoader))
    except UnicodeDecodeError:
        raise PlanRefused(f"{path} is not UTF-8.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise PlanRefused(
            f"{path}{where} is not YAML ({getattr(error, 'problem', None) or getattr(error, 'reason', 'see there')})."
        ) from None


def flag(container: Mapping[str, Any], name: str) -> str | None:
    """A flag's value, `true` for one without a value, None where it is not given; the last one counts."""
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    found: str | None = None
    for at, word in enumerate(words):
        for dashes in ("--", "-"):
            if word == dashes + name:
                following = words[at + 1] if at + 1 < len(words) else "--"
                found = "true" if following.startswith("-") else following
            elif word.startswith(f"{dashes}{name}="):
                found = word.partition("=")[2]
    return found


def host_path(manifest: Manifest, container: Mapping[str, Any], path: str) -> str:
    """Where on the node a file lies that the container sees as `path`; "" when it is under no mount."""
    volumes = {
        str(volume.get("name")): str((volume.get("hostPath") or {}).get("path") or "")
        for volume in (manifest.pod.get("spec") or {}).get("volumes") or ()
        if isinstance(volume, Mapping)
    }
    best, found = -1, ""
    for mount in container.get("volumeMounts") or ():
        if not isinstance(mount, Mapping):
            continue
        inside = str(mount.get("mountPath") or "").rstrip("/")
        below = path == inside or path.startswith(inside + "/")
        if inside and below and len(inside) > best and volumes.get(str(mount.get("name"))):
            sub = str(mount.get("subPath") or "")
            base = posixpath.join(volumes[str(mount["name"])], sub) if sub else volumes[str(mount["name"])]
            best, found = len(inside), base.rstrip("/") + path[len(inside) :]
    return found


# --- edits ------------------------------------------------------------------------------------------
class Editor:
    """Edits of one manifest, checked as a whole by `done`."""

    def __init__(self, manifest: Manifest, program: str) -> None:
        """
        Raises:
            PlanRefused: see `Manifest.container`.
        """
        self._manifest = manifest
        self._program = program
        manifest.container(program)
        self._text = manifest.content.decode("utf-8")
        self._newline = "\r\n" if "\r\n" in self._text else "\n"
        self._wanted: dict[str, Any] = copy.deepcopy(dict(manifest.pod))

    # Each edit changes the text by lines, and what is wanted as an object; then the lines are looked up anew.
    def set_flag(self, name: str, value: str) -> None:
        """Give a flag, or another value to it."""
        container, lines = self._node(), self._lines()
        key, words = self._words(container)
        word = f"--{name}={value}"
        held = [at for at, one in enumerate(words) if str(one).startswith((f"--{name}=", f"-{name}="))]
        bare = [at for at, one in enumerate(words) if str(one) in (f"--{name}", f"-{name}")]
        if len(held) + len(bare) > 1:
            raise self._refused(words.lc.item((held + bare)[1])[0], f"--{name} stands there twice; take one away")
        if bare:
            raise self._refused(words.lc.item(bare[0])[0], f"--{name} and its value are two lines; make them one")
        plain = (
            word
            if re.fullmatch(r"[\w./:=,@%+-]+", word)
            else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        )
        if held:
            at = words.lc.item(held[0])[0]
            lines[at] = self._item(lines, at)[0] + plain + self._newline
            self._mine()[key][held[0]] = word
        else:
            at = words.lc.item(len(words) - 1)[0]
            lead = self._item(lines, at)[0]
            if not lines[at].endswith(("\n", "\r")):
                lines[at] += self._newline
            lines.insert(at + 1, lead + plain + self._newline)
            self._mine()[key].append(word)
        self._text = "".join(lines)

    def drop_flag(self, name: str) -> None:
        """Take a flag away; nothing where it is not given."""
        container, lines = self._node(), self._lines()
        key, words = self._words(container)
        for at, one in enumerate(words):
            if str(one) in (f"--{name}", f"-{name}"):
                raise self._refused(words.lc.item(at)[0], f"--{name} and its value are two lines; make them one")
        for at in reversed(range(len(words))):
            if str(words[at]).startswith((f"--{name}=", f"-{name}=")):
                line = words.lc.item(at)[0]
                self._item(lines, line)
                del lines[line]
                del self._mine()[key][at]
        self._text = "".join(lines)

    def add_mount(self, name: str, path: str) -> None:
        """Mount a directory of the node at the same path, read-only; it is made where it is not there.

        Raises:
            PlanRefused: something else has that name or place already.
        """
        mount = {"mountPath": path, "name": name, "readOnly": True}
        volume = {"hostPath": {"path": path, "type": "DirectoryOrCreate"}, "name": name}
        mine = self._mine()
        for other in mine.get("volumeMounts") or ():
            if other.get("name") == name or str(other.get("mountPath")).rstrip("/") == path:
                raise PlanRefused(f"{self._manifest.path} mounts something at {path} or as {name} already.")
        for other in self._wanted["spec"].get("volumes") or ():
            if other.get("name") == name:
                raise PlanRefused(f"{self._manifest.path} has a volume {name} already.")
        self._put_first(self._node, "volumeMounts", [f"- mountPath: {path}", f"  name: {name}", "  readOnly: true"])
        mine["volumeMounts"].insert(0, mount)
        self._put_first(
            lambda: self._root()["spec"], "volumes",
            ["- hostPath:", f"    path: {path}", "    type: DirectoryOrCreate", f"  name: {name}"],
        )  # fmt: skip
        self._wanted["spec"]["volumes"].insert(0, volume)

    def drop_mount(self, name: str) -> None:
        """Take away what `add_mount` made; nothing where it is not there."""
        for parent, key, wanted in (
            (self._node, "volumeMounts", self._mine()),
            (lambda: self._root()["spec"], "volumes", self._wanted["spec"]),
        ):
            items: Any = parent().get(key) or ()
            for at, one in enumerate(items):
                if one.get("name") == name:
                    lines, first = self._lines(), items.lc.item(at)[0]
                    dash = lines[first].index("-")
                    last = first + 1
                    while last < len(lines) and re.match(rf"\s{{{dash + 1},}}\S", lines[last]):
                        last += 1
                    del lines[first:last]
                    self._text = "".join(lines)
                    del wanted[key][at]
                    break

    def set_annotation(self, name: str, value: str) -> None:
        """Give an annotation, or another value to it."""
        lines, metadata = self._lines(), self._root()["metadata"]
        annotations = metadata.get("annotations")
        wanted = self._wanted["metadata"]
        text = f'{name}: "{value}"{self._newline}'
        if annotations and name in annotations:
            at, column = annotations.lc.key(name)
            lines[at] = lines[at][:column] + text
        elif annotations:
            at = metadata.lc.key("annotations")[0]
            first = min(annotations.lc.key(key)[0] for key in annotations)
            column = annotations.lc.key(next(iter(annotations)))[1]
            if first <= at:
                raise self._refused(at, "the annotations are in flow style; write them in lines")
            lines.insert(at + 1, " " * column + text)
        else:
            if "annotations" in metadata:
                raise self._refused(metadata.lc.key("annotations")[0], "the annotations are empty; take the key away")
            key = next(iter(metadata))
            at, column = metadata.lc.key(key)
            lines.insert(at, f"{' ' * column}annotations:{self._newline}{' ' * (column + 2)}{text}")
        self._text = "".join(lines)
        wanted.setdefault("annotations", {})[name] = value

    def drop_annotation(self, name: str) -> None:
        """Take an annotation away; nothing where it is not there. With the last one goes the key."""
        lines, metadata = self._lines(), self._root()["metadata"]
        annotations = metadata.get("annotations")
        if not annotations or name not in annotations:
            return
        at = annotations.lc.key(name)[0]
        del lines[at]
        del self._wanted["metadata"]["annotations"][name]
        if not self._wanted["metadata"]["annotations"]:
            del lines[metadata.lc.key("annotations")[0]]
            del self._wanted["metadata"]["annotations"]
        self._text = "".join(lines)

    def done(self) -> bytes:
        """The edited file.

        Raises:
            PlanRefused: it would not say exactly what was meant.
        """
        content = self._text.encode("utf-8")
        if [one for one in _documents(self._manifest.path, content) if one is not None] != [self._wanted]:
            raise PlanRefused(
                f"{self._manifest.path} is written in a way that cannot be edited safely (aliases, flow style or "
                "several parts of one line); make the change by hand."
            )
        return content

    # -- the text -----------------------------------------------------------------------------------------
    def _lines(self) -> list[str]:
        return self._text.splitlines(keepends=True)

    def _root(self) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        yaml = YAML()  # round trip: with places
        try:
            roots = [one for one in yaml.load_all(io.StringIO(self._text)) if one is not None]
        except (YAMLError, ValueError) as error:
            raise PlanRefused(f"{self._manifest.path} cannot be edited ({str(error).splitlines()[0]}).") from None
        return roots[0]

    def _node(self) -> Any:
        at = self._position()
        return self._root()["spec"]["containers"][at]

    def _position(self) -> int:
        chosen = self._manifest.container(self._program)
        return next(at for at, one in enumerate(self._manifest.pod["spec"]["containers"]) if one is chosen)

    def _mine(self) -> dict[str, Any]:
        mine: dict[str, Any] = self._wanted["spec"]["containers"][self._position()]
        return mine

    def _words(self, container: Any) -> tuple[str, Any]:
        """The list that holds the flags: `args` where there is one with flags, else `command`."""
        for key in ("args", "command"):
            words = container.get(key)
            if words and (key == "command" or any(str(word).startswith("-") for word in words)):
                line = container.lc.key(key)[0]
                if words.lc.item(0)[0] <= line:
                    raise self._refused(line, f"{key} is in flow style; write a line for each flag")
                return key, words
        raise PlanRefused(f"{self._manifest.path}: the container of {self._program} has no command.")

    def _item(self, lines: list[str], at: int) -> tuple[str, str]:
        match = _ITEM.match(lines[at].rstrip("\r\n"))
        if match is None or match[2][0] in "|>&*!{[":
            raise self._refused(at, "that item is more than one plain line")
        return match[1], match[2]

    def _put_first(self, parent: Callable[[], Any], key: str, item: list[str]) -> None:
        """An item of a list of mappings, before its first one."""
        holder = parent()
        items = holder.get(key)
        if not items:
            raise PlanRefused(f"{self._manifest.path} has no {key} to add to; add the list with one entry by hand.")
        line = holder.lc.key(key)[0]
        first = items.lc.item(0)[0]
        if first <= line:
            raise self._refused(line, f"{key} is in flow style; write it in lines")
        lines = self._lines()
        match = re.match(r"(\s*)- ", lines[first])
        if match is None:
            raise self._refused(first, "no list item begins there as expected")
        lines[line + 1 : line + 1] = [match[1] + one + self._newline for one in item]
        self._text = "".join(lines)

    def _refused(self, line: int, why: str) -> PlanRefused:
        return PlanRefused(f"{self._manifest.path} line {line + 1}: {why}.")
