"""What each release of Kubernetes and etcd accepts about tracing (facts: kubernetes-tracing 1.1 and 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tui.clusters.model import PlanRefused

_TAG: Final = re.compile(r":v?(\d{1,3})\.(\d{1,3})\.(\d{1,4})[^/@]*(?:@|$)")


def kubernetes_of(image: str) -> str:
    """`v1.34.2` of an image reference by its tag, "" where there is none."""
    found = _TAG.search(image)
    return f"v{found[1]}.{found[2]}.{found[3]}" if found else ""


def etcd_of(image: str) -> str:
    """`3.5.21` of an image reference such as `registry.k8s.io/etcd:3.5.21-0`, "" where there is none."""
    found = _TAG.search(image)
    return f"{found[1]}.{found[2]}.{found[3]}" if found else ""


def minor(version: str) -> int | None:
    """34 of `v1.34.2`; None for what is no version of Kubernetes."""
    found = re.fullmatch(r"v1\.(\d{1,3})\.\d+", version)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class ApiServer:
    """`api_version` is what a new file gets, `accepted` what it may have (`v1beta1`); `strict` refuses unknown fields.

    `gate` of the feature APIServerTracing: "needed" (it is off by default), "default" (it is on), "locked" (on, and
    cannot be turned off), "removed" (naming it keeps the server from starting)."""

    api_version: str
    accepted: frozenset[str]
    strict: bool
    gate: str


def apiserver(version: str) -> ApiServer:
    """What an API server accepts.

    Raises:
        PlanRefused: it cannot trace, or its version is not known.
    """
    release = minor(version)
    if release is None:
        raise PlanRefused(
            f"The version of the API server cannot be read from its image ({version[:40] or 'no tag'}), so what it "
            "accepts is not known; give the image a tag such as v1.34.2."
        )
    if release < 22:
        raise PlanRefused(f"{version} cannot trace; Kubernetes can from 1.22 on.")
    alpha, beta, stable = "v1alpha1", "v1beta1", "v1"
    accepted = frozenset((alpha, *([beta] if release >= 27 else []), *([stable] if release >= 34 else [])))
    gate = "needed" if release < 27 else "default" if release < 34 else "locked" if release < 37 else "removed"
    newest = alpha if release < 27 else beta if release < 34 else stable
    return ApiServer(f"apiserver.config.k8s.io/{newest}", accepted, release >= 32, gate)


@dataclass(frozen=True, slots=True)
class Etcd:
    """Names of flags, without dashes; `rate` is "" where there is none. `refuse`: why it must not be turned on."""

    enable: str
    address: str
    service: str
    instance: str
    rate: str
    refuse: str = ""


def etcd(version: str) -> Etcd:
    """What an etcd accepts.

    Raises:
        PlanRefused: it cannot trace, or its version is not known.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise PlanRefused(
            f"The version of etcd cannot be read from its image ({version[:40] or 'no tag'}), so its flags are not "
            "known; give the image a tag such as 3.6.5-0."
        )
    number = tuple(map(int, found.groups()))
    if number < (3, 5, 0):
        raise PlanRefused(f"etcd {version} cannot trace; it can from 3.5 on.")
    start = "experimental-" if number < (3, 6, 0) else ""
    rate = f"{start}distributed-tracing-sampling-rate" if number >= (3, 5, 11) else ""
    refuse = ""
    if number < (3, 5, 5):
        refuse = f"etcd {version} would trace every request, whatever the rate; that is for 3.5.5 and later."
    place = f"{start}distributed-tracing"
    return Etcd(
        f"{start}enable-distributed-tracing", f"{place}-address", f"{place}-service-name", f"{place}-instance-id",
        rate, refuse,
    )  # fmt: skip
