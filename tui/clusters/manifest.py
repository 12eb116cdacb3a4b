"""A static pod manifest: which container runs the program, its flags, volumes and mounts, and edits of them.

The kubelet reads the first document of a file as one Pod. Flags are words of `command` or `args`; the ways in which
people write them are all read, and where a way cannot be edited safely the refusal names the line.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tui.clusters.model import PlanRefused
from tui.clusters.yaml_text import Leaf, Path, Value, YamlText

METADATA: Final[Path] = ("metadata",)
ANNOTATIONS: Final[Path] = ("metadata", "annotations")
VOLUMES: Final[Path] = ("spec", "volumes")
CONTAINERS: Final[Path] = ("spec", "containers")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as it stands in a list of words: `--name=value` ("="), `--name` and `value` after it ("next"), or
    `--name` alone ("bare", value "")."""

    name: str  # without dashes, underscores as dashes
    value: str
    form: str
    path: Path  # of the word with the name
    value_path: Path  # of the word with the value
    spelled: str  # `--tracing_config_file`


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a directory or file of the node is seen in the container."""

    index: int
    name: str
    container_path: str
    read_only: bool
    sub_path: str
    odd: bool  # subPathExpr: only the kubelet knows where it leads
    host_path: str  # "" when the volume is none of hostPath
    host_type: str
    kind: str  # of the volume: `hostPath`, `emptyDir`, "" when there is no such volume


@dataclass(frozen=True, slots=True)
class Pod:
    """A manifest that parses, and the container in it that runs `program`. `filled` are keys that were there without a
    value before something was put below them: they stay when that is taken away again."""

    yaml: YamlText
    program: str
    container: int
    filled: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """The manifest's path on the node."""
        return self.yaml.path

    @property
    def at(self) -> Path:
        """The container's path within the file."""
        return (*CONTAINERS, self.container)

    @property
    def image(self) -> str:
        """The container's image."""
        return self.yaml.words((*self.at, "image"))

    @property
    def container_name(self) -> str:
        """The container's name."""
        return self.yaml.words((*self.at, "name"))

    @property
    def full_name(self) -> tuple[str, str]:
        """Namespace and name, by which the kubelet knows the pod."""
        return pod_name(self.yaml)

    @property
    def grace_seconds(self) -> int:
        """How long the kubelet waits before it kills: 30 unless the pod says otherwise."""
        text = self.yaml.words(("spec", "terminationGracePeriodSeconds"))
        return min(int(text), 3600) if re.fullmatch(r"\d{1,9}", text) else 30

    @property
    def user(self) -> tuple[int | None, int | None]:
        """User and group that the container runs as, None where the manifest leaves it to the image."""
        found: list[int | None] = []
        for key in ("runAsUser", "runAsGroup"):
            text = self.yaml.words((*self.at, "securityContext", key)) or self.yaml.words(
                ("spec", "securityContext", key)
            )
            found.append(int(text) if re.fullmatch(r"\d{1,9}", text) else None)
        return found[0], found[1]

    def refusal(self, path: Path, why: str) -> PlanRefused:
        """A sentence that names the file and the line of what stands at a path."""
        return self.yaml.refusal(self.yaml.line(path), why)

    # --- flags -----------------------------------------------------------------------------------
    def words(self) -> tuple[tuple[Path, str], ...]:
        """What follows the program's name in `command` and `args`.

        Raises:
            PlanRefused: the program is started in a way whose flags cannot be told, or a word is no string.
        """
        found: list[tuple[Path, str]] = []
        for key in ("command", "args"):
            path: Path = (*self.at, key)
            listed = self.yaml.get(path)
            if isinstance(listed, Leaf) and listed.tag != "null":
                raise self.refusal(path, f"`{key}` is one string where a list is needed; write it as a list.")
            for index in range(self.yaml.size(path)):
                word = self.yaml.get((*path, index))
                if not isinstance(word, Leaf) or word.tag != "str":
                    raise self.refusal((*path, index), f"this item of `{key}` is no string; put it in quotes.")
                found.append(((*path, index), word.text))
        if self.yaml.merged(self.at):
            raise self.refusal(self.at, "the container takes keys from elsewhere (`<<`); write them out.")
        if not found:
            raise self.refusal(self.at, "the container has neither `command` nor `args`, so its flags cannot be told.")
        for index, (path, text) in enumerate(found):
            if text.rpartition("/")[2] == self.program:
                return tuple(found[index + 1 :])
            if len(text.split()) > 1 and re.search(rf"(^|[\s/;&|(]){re.escape(self.program)}(\s|$)", text):
                raise self.refusal(
                    path,
                    f"{self.program} is started by a shell from one string, so its flags cannot be edited safely; "
                    "make a list with a flag an item of it.",
                )
        if self.yaml.size((*self.at, "command")):
            raise self.refusal(
                (*self.at, "command"),
                f"the command does not name {self.program}, so which words are its flags cannot be told.",
            )
        return tuple(found)

    def flags(self) -> tuple[Flag, ...]:
        """Every flag of the program, in their order. Raises PlanRefused as `words` does."""
        words = self.words()
        found: list[Flag] = []
        for index, (path, text) in enumerate(words):
            if not text.startswith("-") or not text.strip("-"):
                continue
            head, equals, value = text.partition("=")
            name = head.lstrip("-").replace("_", "-")
            following = words[index + 1] if index + 1 < len(words) else None
            if equals:
                found.append(Flag(name, value, "=", path, path, head))
            elif following is not None and not following[1].startswith("-"):
                found.append(Flag(name, following[1], "next", path, following[0], head))
            else:
                found.append(Flag(name, "", "bare", path, path, head))
        return tuple(found)

    def flag(self, name: str) -> Flag | None:
        """The flag of that name. Raises PlanRefused where it stands twice, or its value is a variable."""
        found = [flag for flag in self.flags() if flag.name == name]
        if len(found) > 1:
            raise self.refusal(found[1].path, f"--{name} stands here a second time; leave one of them.")
        if found and "$(" in found[0].value:
            raise self.refusal(found[0].path, f"the value of --{name} is a variable; write it out.")
        return found[0] if found else None

    def value(self, name: str, default: str = "") -> str:
        """The last value of a flag, for reading only."""
        found = [flag.value for flag in self.flags() if flag.name == name]
        return found[-1] if found else default

    def with_flag(self, name: str, value: str) -> Pod:
        """With that flag at that value: in its place where it stands, else after all others."""
        flag = self.flag(name)
        if flag is None:
            if any(text == "--" for _, text in self.words()):
                raise self.refusal(self.at, "a lone -- ends the flags, so none can be added; remove it.")
            args: Path = (*self.at, "args")
            command: Path = (*self.at, "command")
            where = args if self.yaml.size(args) or not self.yaml.size(command) else command
            return self._with_item(where, f"--{name}={value}")
        if flag.form == "next":
            return self._with(self.yaml.replace(flag.value_path, value))
        return self._with(self.yaml.replace(flag.path, f"{flag.spelled}={value}"))

    def without_flag(self, name: str) -> Pod:
        """Without that flag and, where it is a word of its own, its value."""
        flag = self.flag(name)
        if flag is None:
            return self
        pod = self._without(flag.value_path) if flag.form == "next" else self
        return pod._without(flag.path)

    def environment(self) -> Mapping[str, tuple[Path, str | None]]:
        """Environment variables that the manifest sets; the value is None where it comes from elsewhere."""
        found: dict[str, tuple[Path, str | None]] = {}
        path: Path = (*self.at, "env")
        for index in range(self.yaml.size(path)):
            value = self.yaml.get((*path, index, "value"))
            name = self.yaml.words((*path, index, "name"))
            found[name] = ((*path, index), value.text if isinstance(value, Leaf) else None)
        return found

    # --- files -----------------------------------------------------------------------------------
    def mounts(self) -> tuple[Mount, ...]:
        """What is mounted into the container."""
        volumes: dict[str, tuple[str, str, str]] = {}
        for index in range(self.yaml.size(VOLUMES)):
            at = self.yaml.get((*VOLUMES, index))
            kinds = [key for key in at if key != "name"] if isinstance(at, dict) else []
            host = (*VOLUMES, index, "hostPath")
            volumes[self.yaml.words((*VOLUMES, index, "name"))] = (
                self.yaml.words((*host, "path")),
                self.yaml.words((*host, "type")),
                kinds[0] if kinds else "",
            )
        found: list[Mount] = []
        path: Path = (*self.at, "volumeMounts")
        for index in range(self.yaml.size(path)):
            item: Path = (*path, index)
            name = self.yaml.words((*item, "name"))
            host_path, host_type, kind = volumes.get(name, ("", "", ""))
            found.append(
                Mount(
                    index,
                    name,
                    posixpath.normpath(self.yaml.words((*item, "mountPath")) or "/nowhere"),
                    self.yaml.words((*item, "readOnly")).lower() == "true",
                    self.yaml.words((*item, "subPath")),
                    bool(self.yaml.words((*item, "subPathExpr"))),
                    host_path,
                    host_type,
                    kind,
                )
            )
        return tuple(found)

    def covering(self, path: str) -> Mount | None:
        """The mount in which a path of the container lies, the closest one."""
        clean = posixpath.normpath(path)
        over = [mount for mount in self.mounts() if _within(clean, mount.container_path)]
        return max(over, key=lambda mount: len(mount.container_path), default=None)

    def host_path(self, path: str) -> str:
        """Where a path of the container lies on the node, "" when that cannot be told: no mount, or not of the node."""
        mount = self.covering(path)
        if mount is None or not mount.host_path or mount.odd:
            return ""
        rest = posixpath.relpath(posixpath.normpath(path), mount.container_path)
        return posixpath.normpath(posixpath.join(mount.host_path, mount.sub_path, "" if rest == "." else rest))

    def check_mounts(self) -> None:
        """Refuse what makes the Pod invalid: equal volume names, equal mount paths, a mount of no volume."""
        names: set[str] = set()
        for index in range(self.yaml.size(VOLUMES)):
            name = self.yaml.words((*VOLUMES, index, "name"))
            if name in names:
                raise self.refusal((*VOLUMES, index), f"a second volume has the name {name[:60]!r}; leave one of them.")
            names.add(name)
        paths: set[str] = set()
        for mount in self.mounts():
            at = (*self.at, "volumeMounts", mount.index)
            if mount.container_path in paths:
                raise self.refusal(at, f"{mount.container_path[:120]} is mounted a second time; leave one of them.")
            if mount.name not in names:
                raise self.refusal(at, f"there is no volume {mount.name[:60]!r} for this mount.")
            paths.add(mount.container_path)

    def with_directory(self, name: str, directory: str) -> Pod:
        """With a directory of the node mounted read-only at its own path, and made where it is not there."""
        with_mount = self._with_item(
            (*self.at, "volumeMounts"), {"mountPath": directory, "name": name, "readOnly": True}
        )
        return with_mount._with_item(
            VOLUMES, {"hostPath": {"path": directory, "type": "DirectoryOrCreate"}, "name": name}
        )

    def without_directory(self, name: str, directory: str) -> Pod:
        """Without that mount and, where no other container has a mount of it, its volume."""
        pod = self
        for mount in pod.mounts():
            if mount.name == name and mount.container_path == directory and mount.host_path == directory:
                pod = pod._without((*pod.at, "volumeMounts", mount.index))
                if not pod._mounted_elsewhere(name):
                    index = next(i for i, volume in enumerate(pod.volume_names()) if volume == name)
                    pod = pod._without((*VOLUMES, index))
                break
        return pod

    def volume_names(self) -> list[str]:
        """The names of all volumes, in their order."""
        return [self.yaml.words((*VOLUMES, index, "name")) for index in range(self.yaml.size(VOLUMES))]

    def _mounted_elsewhere(self, name: str) -> bool:
        for key in ("containers", "initContainers", "ephemeralContainers"):
            for index in range(self.yaml.size(("spec", key))):
                path: Path = ("spec", key, index, "volumeMounts")
                for mount in range(self.yaml.size(path)):
                    if self.yaml.words((*path, mount, "name")) == name:
                        return True
        return False

    # --- annotations -----------------------------------------------------------------------------
    def annotation(self, key: str) -> str:
        """The text of an annotation, "" for none."""
        return self.yaml.words((*ANNOTATIONS, key))

    def with_annotation(self, key: str, value: str) -> Pod:
        """With that annotation at that value."""
        annotations = self.yaml.get(ANNOTATIONS)
        if annotations is None:
            return self._with(self.yaml.add(METADATA, "annotations", {key: value}))
        if isinstance(annotations, Leaf):
            return self._filled(ANNOTATIONS, {key: value})
        if isinstance(annotations, dict) and key in annotations:
            same = annotations[key] == Leaf("str", value)
            return self if same else self._with(self.yaml.replace((*ANNOTATIONS, key), value))
        return self._with(self.yaml.add(ANNOTATIONS, key, value))

    def without_annotation(self, key: str) -> Pod:
        """Without that annotation."""
        annotations = self.yaml.get(ANNOTATIONS)
        if not isinstance(annotations, dict) or key not in annotations:
            return self
        return self._without((*ANNOTATIONS, key))

    def _with(self, yaml: YamlText) -> Pod:
        return replace(self, yaml=yaml)

    def _filled(self, path: Path, value: Value) -> Pod:
        return replace(self, yaml=self.yaml.fill(path, value), filled=self.filled | {str(path[-1])})

    def _without(self, path: Path) -> Pod:
        return self._with(self.yaml.remove(path, keep=path[-2] in self.filled))

    def _with_item(self, path: Path, value: Value) -> Pod:
        listed = self.yaml.get(path)
        if listed is None:
            return self._with(self.yaml.add(path[:-1], str(path[-1]), [value]))
        if isinstance(listed, Leaf) and listed.tag == "null":
            return self._filled(path, [value])
        return self._with(self.yaml.append(path, value))


def pod_name(yaml: YamlText) -> tuple[str, str]:
    """Namespace and name of what a file holds."""
    return yaml.words(("metadata", "namespace"), "default"), yaml.words(("metadata", "name"))


def is_pod(yaml: YamlText) -> bool:
    """Whether a file holds a Pod."""
    return yaml.words(("kind",)) == "Pod" and yaml.words(("apiVersion",)) == "v1"


def pods_running(yaml: YamlText, program: str) -> Iterator[Pod]:
    """A Pod for each container of the file that runs `program`: by its name, its image or its words."""
    for index in range(yaml.size(CONTAINERS)):
        at: Path = (*CONTAINERS, index)
        image = yaml.words((*at, "image")).partition("@")[0].rpartition("/")[2].partition(":")[0]
        words = [
            yaml.words((*at, key, word)).rpartition("/")[2]
            for key in ("command", "args")
            for word in range(yaml.size((*at, key)))
        ]
        if program in words or program in (image, yaml.words((*at, "name"))):
            yield Pod(yaml, program, index)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
