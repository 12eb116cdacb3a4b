"""OCI images of what was built, as tars that containerd imports: the binaries, and busybox for a shell."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.real.workspace import Unavailable, workspace

PAUSE: Final = "registry.k8s.io/pause:3.10"
"""The image of every pod's sandbox."""
SHELL: Final = "registry.example/busybox:1"
"""A shell and nothing else, for pods of tests and of the program."""
_APPLETS: Final = ("cat", "chroot", "env", "id", "ls", "mount", "nsenter", "sh", "sleep", "tail", "tar", "true")
_ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


def control_plane(kubernetes: Path, version: str, etcd: Path, etcd_version: str) -> list[Path]:
    """The images of kubeadm's static pods.

    Args:
        kubernetes: the folder of the release's binaries.
        version: as in `v1.36.3`.
        etcd: the folder of etcd's binaries.
        etcd_version: as in `3.6.16`.
    """
    images = [
        image(f"registry.k8s.io/{name}:{version}", {f"usr/local/bin/{name}": kubernetes / name})
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ]
    tools = {f"usr/local/bin/{name}": etcd / name for name in ("etcd", "etcdctl")}
    return [*images, image(f"registry.k8s.io/etcd:{etcd_version}-0", tools)]


def image(reference: str, files: Mapping[str, Path], *, shell: bool = True, entrypoint: str = "") -> Path:
    """An image in the workspace, made where it is not there yet.

    Args:
        reference: its name with its tag.
        files: what is in it, by where it is there.
        shell: with busybox under the names of its commands.
        entrypoint: what it runs; else a shell, if it has one.
    """
    content = dict(files)
    if shell:
        busybox = find_busybox()
        content["bin/busybox"] = busybox
        content.update({library.lstrip("/"): Path(library) for library in _libraries(busybox)})
    stamp = [reference, shell, entrypoint, _APPLETS]
    for name, path in sorted(content.items()):
        found = path.stat()
        stamp.append([name, str(path.resolve()), found.st_size, found.st_mtime_ns])
    key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:12]
    made = workspace() / "images" / f"{re.sub(r'[^a-z0-9.]+', '-', reference)}-{key}.tar"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            beside = Path(folder) / "image.tar"
            layer = Path(folder) / "layer.tar"
            _write_layer(layer, content, shell)
            _write_image(beside, reference, layer, entrypoint or ("/bin/sh" if shell else ""))
            beside.rename(made)
    return made


def find_busybox() -> Path:
    """The machine's busybox.

    Raises:
        Unavailable: there is none.
    """
    found = shutil.which("busybox")
    if found is None:
        raise Unavailable("busybox is not here, and images get their shell from it")
    return Path(found).resolve()


def _libraries(binary: Path) -> list[str]:
    """What the loader loads for a program, and the loader, where it is not static."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, timeout=20, check=False)
    return re.findall(r"(/\S+) \(0x", told.stdout)


def _write_layer(path: Path, content: Mapping[str, Path], shell: bool) -> None:
    with tarfile.open(path, "w") as tar:
        folders = {"etc", "host", "tmp", "var"}  # where pods mount something
        for name in content:
            folders.update(str(parent) for parent in Path(name).parents if str(parent) != ".")
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, source in sorted(content.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = os.stat(source).st_size, 0o755
            with source.open("rb") as file:
                tar.addfile(entry, file)
        for applet in _APPLETS if shell else ():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)


def _write_image(path: Path, reference: str, layer: Path, entrypoint: str) -> None:
    with layer.open("rb") as file:
        layer_digest = _digest_of(file)
    run: dict[str, Any] = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    if entrypoint:
        run["Cmd" if entrypoint == "/bin/sh" else "Entrypoint"] = [entrypoint]
    config = _encoded(
        {
            "architecture": _ARCHITECTURE.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        }
    )
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [{"mediaType": _LAYER, "digest": layer_digest, "size": layer.stat().st_size}],
        }
    )
    named = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = _encoded({"schemaVersion": 2, "manifests": [{**_descriptor(_MANIFEST, manifest), "annotations": named}]})
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", index)
        for blob in (config, manifest):
            _add(tar, _blob(_digest_of(io.BytesIO(blob))), blob)
        entry = tarfile.TarInfo(_blob(layer_digest))
        entry.size = layer.stat().st_size
        with layer.open("rb") as file:
            tar.addfile(entry, file)


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest_of(io.BytesIO(content)), "size": len(content)}


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _digest_of(file: io.BufferedIOBase) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
