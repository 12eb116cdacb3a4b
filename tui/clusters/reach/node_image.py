"""Which image the pod of ours runs: by its digest where the node has it already, since a tag may become another one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_DIGEST: Final = re.compile(r"[^@]+@sha256:[0-9a-f]{64}")
_SHOWN: Final = 12
"""Hexadecimal digits of a digest that a sentence shows; 48 bits name one image among those of a node."""


def is_pinned(image: str) -> bool:
    """Whether a reference names one image for ever."""
    return _DIGEST.fullmatch(image) is not None


def pinned(image: str, known: Iterable[Sequence[str]]) -> str:
    """The reference by digest of the image that a node has for a tag, "" where that is not known.

    Args:
        image: `busybox:1.36`.
        known: the names of each image on the node, as `status.images` of the node has them (`docker.io/library/busybox:
            1.36` and `docker.io/library/busybox@sha256:...` of one image), or a container's `image` and `imageID`.
    """
    if is_pinned(image):
        return image
    wanted = _whole(image)
    repository = _repository(wanted)
    for names in known:
        if wanted not in map(_whole, names):
            continue
        for name in names:
            bare = name.partition("://")[2] or name  # docker-pullable://
            if is_pinned(bare) and _repository(_whole(bare)) == repository:
                return bare
    return ""


def sentence(image: str, images: Mapping[str, str]) -> str:
    """What is to be said of the image before a pod is made; without the full stop.

    Args:
        image: as it was asked for.
        images: by node, by digest, "" where only the tag is known.
    """
    if is_pinned(image):
        return f"its image is {image}"
    unknown = [node for node, found in images.items() if not found]
    digests = sorted({found.partition("@")[2] for found in images.values() if found})
    short = ", ".join(f"{digest[: len('sha256:') + _SHOWN]}..." for digest in digests[:4])
    if not unknown:
        return f"its image is {image} as the nodes have it already, {short}" if images else f"its image is {image}"
    where = "" if len(unknown) == len(images) else f" on {', '.join(unknown[:4])}{' and others' * (len(unknown) > 4)}"
    kept = f", and {short} where a node has it already" if digests else ""
    return (
        f"its image is {image}, a tag{where}{kept}: whoever may change the tag in its registry decides what runs, "
        "unless --node-image names one by its digest"
    )


def _whole(image: str) -> str:
    """With the registry and the tag that are meant where none is named."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    elif first == "index.docker.io":
        name = f"docker.io/{name.partition('/')[2]}"
    if ":" not in name.rpartition("/")[2] and not at:
        name += ":latest"
    return f"{name}{at}{digest}"


def _repository(whole: str) -> str:
    name = whole.partition("@")[0]
    before, _, last = name.rpartition("/")
    return f"{before}/{last.partition(':')[0]}"
