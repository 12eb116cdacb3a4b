"""`api_double`: makes API servers that decide about tracing as real ones do; all are ended after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.tracing_api import TracingApi

MakeApi = Callable[..., TracingApi]


@pytest.fixture
def api_double(tmp_path: Path) -> Iterator[MakeApi]:
    made: list[TracingApi] = []

    def make(**options: Any) -> TracingApi:
        double = TracingApi(tmp_path / f"api-{len(made)}", **options)
        double.start()
        made.append(double)
        return double

    yield make
    for double in made:
        double.stop()
