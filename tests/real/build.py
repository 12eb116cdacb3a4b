"""Compiles Kubernetes, etcd, containerd and crictl out of their Go modules, once, into the workspace.

Each folder of `modules/` is a Go module that has upstream's commands as its tools, with all versions and checksums
pinned. What is compiled lies under a key of everything that goes into it, so that a changed module is compiled anew and
an unchanged one never. Compiling is gentle (nice 10) and alone (a lock); the finished folder appears at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from tests.real.workspace import Unavailable, held, workspace

MODULES: Final = Path(__file__).parent / "modules"
KUBERNETES: Final = ("1.34", "1.35", "1.36", "1.37")
"""Releases that can be built, oldest first."""
_NICE: Final = "10"
_GIB: Final = 1 << 30
_BUILD_S: Final = 4 * 3600.0
"""Gentle as it is, on a machine that others fill a build of minutes takes hours; it goes on where it was cut off."""
_ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
"""Static binaries, which run in an image without a C library, by the Go that is here."""


@dataclass(frozen=True, eq=False)
class Module:
    """A folder of `modules/`.

    Attributes:
        stamps: variables that the linker sets, `{version}` being the main module's.
        tags: build tags.
        renamed: what a command is called here, by what Go calls it.
        caches: bytes that Go's caches grow by when nothing of it is there yet.
    """

    name: str
    main: str = ""
    stamps: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    caches: int = _GIB

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return MODULES / self.name

    @property
    def version(self) -> str:
        """The main module's, as in `v1.36.3`; "" for a module of our own."""
        found = re.search(rf"^\s*(?:require )?{re.escape(self.main)} (v\S+)", self._go_mod(), re.MULTILINE)
        return found[1] if self.main and found else ""

    @property
    def packages(self) -> list[str]:
        """The commands' import paths."""
        blocks = re.findall(r"^tool \(\n(.*?)^\)", self._go_mod(), re.MULTILINE | re.DOTALL)
        named = [line.strip() for block in blocks for line in block.splitlines()]
        return named + re.findall(r"^tool ([^(\s]\S*)$", self._go_mod(), re.MULTILINE) or ["."]

    @property
    def commands(self) -> dict[str, str]:
        """The import path of each command, by the name of its binary here."""
        found = {}
        for package in self.packages:
            last = re.sub(r"/v\d+$", "", package).rpartition("/")[2]
            found[self.renamed.get(last, last) if package != "." else self.name] = package
        return found

    @property
    def go(self) -> tuple[int, ...]:
        """The oldest Go that compiles it."""
        found = re.search(r"^go (\S+)$", self._go_mod(), re.MULTILINE)
        return _numbers(found[1] if found else "1.24")

    @property
    def flags(self) -> list[str]:
        """Of `go build`."""
        variables = " ".join(f"-X {stamp.format(version=self.version)}" for stamp in self.stamps)
        flags = ["-trimpath", "-ldflags", f"-s -w {variables}".rstrip()]
        return [*flags, "-tags", ",".join(self.tags)] if self.tags else flags

    def key(self, go: Go) -> str:
        """A digest of all that decides what comes out."""
        parts = [path.read_bytes() for path in sorted(self.folder.iterdir())]
        parts.append(json.dumps([self.flags, self.renamed, _ENVIRONMENT, go.version, go.architecture]).encode())
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]

    def _go_mod(self) -> str:
        return (self.folder / "go.mod").read_text()


def _kubernetes(release: str) -> Module:
    minor = release.partition(".")[2]
    variables = (
        "k8s.io/component-base/version.gitVersion={version}",
        "k8s.io/component-base/version.gitMajor=1",
        f"k8s.io/component-base/version.gitMinor={minor}",
    )
    return Module(f"kubernetes-{release}", "k8s.io/kubernetes", variables, caches=4 * _GIB)


def _etcd(release: str) -> Module:
    return Module(f"etcd-{release}", "go.etcd.io/etcd/server/v3", renamed={"server": "etcd"})


_ALL: Final = {
    module.name: module
    for module in (
        *(_kubernetes(release) for release in KUBERNETES),
        _etcd("3.6"),
        _etcd("3.7"),
        Module(
            "containerd-2.2",
            "github.com/containerd/containerd/v2",
            ("github.com/containerd/containerd/v2/version.Version={version}",),
            ("no_btrfs", "no_devmapper", "no_zfs"),
        ),
        Module("crictl-1.36", "sigs.k8s.io/cri-tools", ("sigs.k8s.io/cri-tools/pkg/version.Version={version}",)),
        Module("helm-3", "helm.sh/helm/v3", ("helm.sh/helm/v3/internal/version.version={version}",)),
        Module("pause"),
    )
}


@dataclass(frozen=True)
class Go:
    """The Go that is here."""

    binary: str
    version: str
    architecture: str
    build_cache: Path
    module_cache: Path


@cache
def find_go() -> Go:
    """Asks it.

    Raises:
        Unavailable: there is none.
    """
    binary = shutil.which("go")
    if binary is None:
        raise Unavailable("Go is not here, and real components are compiled with it")
    names = ("GOVERSION", "GOARCH", "GOCACHE", "GOMODCACHE")
    told = subprocess.run([binary, "env", "-json", *names], capture_output=True, text=True, check=True, timeout=60)
    values = json.loads(told.stdout)
    return Go(binary, *(values[name] for name in names[:2]), *(Path(values[name]) for name in names[2:]))


def module(name: str) -> Module:
    """A module by its folder's name.

    Raises:
        Unavailable: there is none of that name.
    """
    if name not in _ALL:
        raise Unavailable(f"There is no module {name}: there are {', '.join(_ALL)}")
    return _ALL[name]


def build(names: Iterable[str]) -> dict[str, Path]:
    """Compiles what is missing of these; the folders of the modules' binaries, by the modules' names.

    Args:
        names: `MODULE` for all of its commands, or `MODULE/COMMAND` for one.

    Raises:
        Unavailable: Go is missing or too old, there is too little disk, or it took too long.
    """
    go = find_go()
    wanted: dict[str, set[str]] = {}
    for name in names:
        of, _, command = name.partition("/")
        wanted.setdefault(of, set()).update([command] if command else module(of).commands)
    folders = {name: workspace() / "bin" / f"{name}-{module(name).key(go)}" for name in wanted}

    def missing_ones() -> dict[Module, list[str]]:
        found = {}
        for name, commands in wanted.items():
            absent = [command for command in sorted(commands) if not (folders[name] / command).exists()]
            if absent:
                found[module(name)] = absent
        return found

    if missing_ones():
        with held(workspace() / "build.lock", "another build goes on and is waited for"):
            for unfinished in (workspace() / "bin").glob(".*"):
                shutil.rmtree(unfinished)  # of one that was killed: the lock says that nobody builds
            missing = missing_ones()
            _check(list(missing), go)
            for one, commands in missing.items():
                _compile(one, commands, folders[one.name], go)
    return folders


def _check(missing: list[Module], go: Go) -> None:
    for one in missing:
        if _numbers(go.version) < one.go:
            wanted = ".".join(map(str, one.go))
            raise Unavailable(f"{one.name} needs Go {wanted} or later, here is {go.version}")
    needed: dict[int, tuple[Path, int]] = {}
    for path, size in (
        (workspace(), len(missing) * _GIB // 2),
        (go.build_cache, sum(one.caches for one in missing) // 2),
        (go.module_cache, sum(one.caches for one in missing) // 2),
    ):
        while not path.exists():
            path = path.parent
        device = path.stat().st_dev
        needed[device] = (path, needed.get(device, (path, 0))[1] + size)
    for path, size in needed.values():
        free = shutil.disk_usage(path).free
        if free < size:
            names = ", ".join(one.name for one in missing)
            raise Unavailable(
                f"{path} has {free / _GIB:.1f} GiB free, and compiling {names} may take {size / _GIB:.1f} GiB"
            )


def _compile(one: Module, commands: list[str], folder: Path, go: Go) -> None:
    began = time.monotonic()
    title = f"{one.name} {one.version} ({', '.join(commands)})".replace("  ", " ")
    print(f"real: compiling {title}", flush=True)
    packages = [one.commands[command] for command in commands]
    beside = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        done = subprocess.run(
            ["nice", "-n", _NICE, go.binary, "build", *one.flags, "-o", f"{beside}/", *packages],
            cwd=one.folder,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{one.name} could not be compiled: {done.stderr.strip()[-3000:]}")
        size = sum(path.stat().st_size for path in beside.iterdir()) / _GIB
        folder.mkdir(exist_ok=True)
        for binary in beside.iterdir():
            binary.rename(folder / one.renamed.get(binary.name, binary.name))
    except subprocess.TimeoutExpired:
        hours = _BUILD_S / 3600
        raise Unavailable(
            f"{one.name} was not compiled within {hours:.0f} hours: this machine is too busy; the next build goes on"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    print(f"real: compiled {title} in {time.monotonic() - began:.0f} s, {size:.2f} GiB", flush=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
