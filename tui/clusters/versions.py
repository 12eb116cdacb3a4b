"""Versions of kube-apiserver and etcd, and what each accepts about tracing.

Sources: `pkg/apis/apiserver/*/register.go` and `pkg/server/options/tracing.go` of kubernetes/apiserver per release
branch, `server/embed/config_tracing.go` and the flags of etcd per tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

GROUP: Final = "apiserver.config.k8s.io"
KIND: Final = "TracingConfiguration"
GATE: Final = "APIServerTracing"

_VERSION: Final = re.compile(r"v?(\d{1,3})\.(\d{1,3})(?:\.(\d{1,4}))?(?![\d.])(.*)", re.S)


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Major, minor, patch; `text` is how the image has it, with what a vendor appended."""

    major: int
    minor: int
    patch: int
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"{self.major}.{self.minor}.{self.patch}"

    def at_least(self, major: int, minor: int, patch: int = 0) -> bool:
        """Whether this is that release or a later one."""
        return (self.major, self.minor, self.patch) >= (major, minor, patch)


def of_image(image: str) -> Version | None:
    """The version that an image's tag names (`registry:5000/a/kube-apiserver:v1.34.2-vendor.1@sha256:...`), or None:
    no tag, `latest`, or a digest alone."""
    name = image.strip().partition("@")[0]
    last = name.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    return parse(tag) if colon else None


def parse(text: str) -> Version | None:
    """`v1.34.2`, `3.5.21-0`, `1.30` as a version, None where it is none."""
    match = _VERSION.fullmatch(text.strip()[:128])
    if match is None:
        return None
    rest = match[4]
    if rest and rest[0] not in "-+_.":
        return None
    return Version(int(match[1]), int(match[2]), int(match[3] or 0), text.strip()[:128])


class Gate(Enum):
    """What a release wants of the feature gate APIServerTracing."""

    NEEDED = "needed"  # alpha, off by default: it must be switched on
    ON = "on"  # beta, on by default: it must not be switched off
    LOCKED = "locked"  # true may be said, false keeps the server from starting
    GONE = "gone"  # naming it at all keeps the server from starting


@dataclass(frozen=True, slots=True)
class ApiserverRules:
    """What one release of kube-apiserver accepts."""

    accepted: tuple[str, ...]  # of the group: `v1beta1`
    written: str  # the one that a new file gets
    strict: bool  # unknown and duplicate fields are errors
    gate: Gate

    @property
    def api_version(self) -> str:
        """`apiVersion` of a new file."""
        return f"{GROUP}/{self.written}"


def apiserver(version: Version) -> ApiserverRules | None:
    """What this kube-apiserver accepts; None: it knows no tracing (before 1.22)."""
    if not version.at_least(1, 22):
        return None
    if not version.at_least(1, 27):
        return ApiserverRules(("v1alpha1",), "v1alpha1", strict=False, gate=Gate.NEEDED)
    if not version.at_least(1, 34):
        return ApiserverRules(("v1alpha1", "v1beta1"), "v1beta1", strict=version.at_least(1, 32), gate=Gate.ON)
    gate = Gate.GONE if version.at_least(1, 37) else Gate.LOCKED
    return ApiserverRules(("v1alpha1", "v1beta1", "v1"), "v1", strict=True, gate=gate)


@dataclass(frozen=True, slots=True)
class EtcdRules:
    """What one release of etcd accepts. Names are without dashes in front. `old_names` are accepted too, if any;
    `rate` is "" where there is no such flag, and `everything` True where then every request is recorded."""

    enable: str
    address: str
    service: str
    instance: str
    rate: str
    everything: bool
    prefixes: tuple[str, ...]  # of the names that start it; others keep it from starting

    @property
    def names(self) -> tuple[str, ...]:
        """Every name about tracing that this release starts with."""
        stems = ("enable-distributed-tracing", *(f"distributed-tracing-{stem}" for stem in _STEMS))
        return tuple(f"{prefix}{stem}" for prefix in self.prefixes for stem in stems)


_STEMS: Final = ("address", "service-name", "instance-id", "sampling-rate")


def etcd(version: Version) -> EtcdRules | None:
    """What this etcd accepts; None: it knows no tracing (before 3.5)."""
    if not version.at_least(3, 5):
        return None
    old = not version.at_least(3, 6)
    prefix = "experimental-" if old else ""
    prefixes = ("experimental-",) if old else ("",) if version.at_least(3, 7) else ("", "experimental-")
    return EtcdRules(
        enable=f"{prefix}enable-distributed-tracing",
        address=f"{prefix}distributed-tracing-address",
        service=f"{prefix}distributed-tracing-service-name",
        instance=f"{prefix}distributed-tracing-instance-id",
        rate=f"{prefix}distributed-tracing-sampling-rate" if version.at_least(3, 5, 11) else "",
        everything=not version.at_least(3, 5, 5),
        prefixes=prefixes,
    )
