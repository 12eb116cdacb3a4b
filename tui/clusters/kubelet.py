"""The kubelet's own tracing: read from its configuration file, and shown only."""

from __future__ import annotations

import re
from typing import Final

from tui.clusters.endpoint import UNSET
from tui.clusters.model import Mode, NodeFacts, Part, PlanRefused, State
from tui.clusters.yaml_text import Leaf, YamlText

CONFIG: Final = "/var/lib/kubelet/config.yaml"
WHY_READ_ONLY: Final = (
    "the kubelet's tracing is not changed from here: set `tracing:` in its configuration file and restart it by hand."
)


def state(facts: NodeFacts, flavour: str) -> State | None:
    """What the kubelet of this node does about tracing; None where its configuration was not found."""
    file = facts.files.get(CONFIG)
    if file is None or file.content is None:
        return None

    def made(mode: Mode, rate: int | None = None, endpoint: str = "", note: str = "") -> State:
        return State(
            facts.hostname or facts.host,
            Part.KUBELET,
            mode,
            per_million=rate,
            endpoint=endpoint,
            file=CONFIG,
            note=note,
            read_only=WHY_READ_ONLY[0].upper() + WHY_READ_ONLY[1:],
            flavour=flavour,
        )

    try:
        text = YamlText(CONFIG, file.content)
    except PlanRefused as refused:
        return made(Mode.UNKNOWN, note=str(refused))
    tracing = text.get(("tracing",))
    if tracing is None or (isinstance(tracing, Leaf) and tracing.tag == "null"):
        return made(Mode.OFF)
    rate = text.words(("tracing", "samplingRatePerMillion"), "0")
    if not re.fullmatch(r"\d{1,7}", rate):
        return made(Mode.UNKNOWN, note=f"{CONFIG}: the rate {rate[:40]!r} is no whole number.")
    endpoint = text.words(("tracing", "endpoint"), UNSET)
    return made(Mode.SAMPLING if int(rate) else Mode.ARMED, int(rate), endpoint)
