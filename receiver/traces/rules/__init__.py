"""The causes that a verdict can name, by subject. Each rule is a function that looks for one cause and returns what it
found; its docstring names the fact it rests on (numbers are sections of docs/facts.md, `recorded` is what the
recordings of real clusters show)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from receiver.traces.rules import etcd, filters, outcomes, payloads, webhooks
from receiver.traces.rules.case import Case, Finding

Rule = Callable[[Case], Iterable[Finding]]

RULES: Final[tuple[Rule, ...]] = (
    outcomes.given_up,
    webhooks.failed,
    webhooks.denied,
    webhooks.slow,
    webhooks.in_sequence,
    webhooks.conversion_untraced,
    etcd.slow,
    etcd.failed,
    etcd.conflicts,
    filters.queued,
    filters.authorization_slow,
    filters.authentication_slow,
    filters.filters_untraced,
    filters.refused,
    payloads.refused,
    payloads.before_the_first_call,
    payloads.encryption,
    payloads.answer_slow,
    payloads.large_list,
    outcomes.aggregated,
    outcomes.unhealthy,
)
"""Looked at for every request; several may find something."""
FALLBACKS: Final[tuple[Rule, ...]] = (outcomes.failed_otherwise, outcomes.slow_otherwise)
"""The first for a request that failed, the second for a slow one, where `RULES` found no reason."""
