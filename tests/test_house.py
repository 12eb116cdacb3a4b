"""The rules of the house: lint, strict types, who may import whom, and what a start must not load."""

from __future__ import annotations

import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent


def run(*command: str) -> None:
    """A tool of this interpreter's environment; its findings are the failure."""
    done = subprocess.run(
        [sys.executable, *command], cwd=HOUSE, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-8000:]}{done.stderr[-4000:]}", pytrace=False)


def test_lint() -> None:
    run("-m", "ruff", "check", "--no-cache", ".")


def test_format() -> None:
    run("-m", "ruff", "format", "--check", "--no-cache", ".")


def test_strict_types() -> None:
    run("-m", "mypy")


def test_who_imports_whom() -> None:
    run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))")


@pytest.mark.parametrize(
    ("start", "unwanted"),
    [
        ("tui.cli.main(['--help'])", "textual rich grpc kubernetes yaml numpy google sqlite3 zstandard asyncio"),
        ("tui.cli.main(['--version'])", "textual rich grpc kubernetes yaml numpy google sqlite3 zstandard asyncio"),
        (
            "tui.cli.main(['traces', '--help'])",
            "textual rich grpc kubernetes yaml numpy google sqlite3 zstandard asyncio",
        ),
        (
            "tui.cli.main(['sampling', '--help'])",
            "textual rich grpc kubernetes yaml numpy google sqlite3 zstandard asyncio ruamel",
        ),
        ("tui.cli.main(['sampling', 'status', '--host', 'file:///nowhere'])", "textual grpc kubernetes asyncio"),
        ("tui.cli.main(['traces', '--db', '/nowhere/spans.db'])", "textual grpc kubernetes yaml asyncio"),
        ("importlib.import_module('receiver.store.index')", "textual rich grpc kubernetes yaml tui"),
        ("importlib.import_module('receiver.__main__')", "textual rich kubernetes yaml tui"),
        ("importlib.import_module('tui.app')", "kubernetes grpc ruamel"),
    ],
)
def test_a_start_loads_only_what_it_needs(start: str, unwanted: str) -> None:
    program = (
        "import importlib, sys\n"
        f"{'import tui.cli' if 'tui.cli' in start else ''}\n"
        f"try:\n    {start}\nexcept SystemExit:\n    pass\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        f"print('LOADED', *sorted(found & set({unwanted.split()!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "LOADED", done.stdout[-500:] + done.stderr[-2000:]


def test_every_module_is_in_the_wheel() -> None:
    """`packages` in pyproject.toml is a list by hand, so that tests and benches stay out: nothing may miss in it."""
    text = (HOUSE / "pyproject.toml").read_text()
    for package in ("tui", "receiver", "themes"):
        for directory in {path.parent for path in (HOUSE / package).rglob("*.py")}:
            name = ".".join(directory.relative_to(HOUSE).parts)
            assert f'"{name}"' in text, f"{name} is not in [tool.setuptools] packages"


_CITED = re.compile(r"\bfacts(?:\.md)?\s+(\d+(?:\.\d+)?(?:(?:, | and |,\s+)\d+(?:\.\d+)?)*)")
_CITED_BY_RULES = re.compile(r"\((?:recorded, )?(\d+(?:\.\d+)?(?:, \d+(?:\.\d+)?)*)\)\.?")


def test_every_fact_that_is_cited_is_told() -> None:
    """`facts 3.3` is a section of docs/facts.md; docstrings of verdicts name the number alone."""
    told = set(re.findall(r"^###? (\d+(?:\.\d+)?) ", (HOUSE / "docs/facts.md").read_text(), re.MULTILINE))
    found = 0
    for path in sorted(path for package in ("tui", "receiver", "tests") for path in (HOUSE / package).rglob("*.py")):
        patterns = [_CITED]
        if path.parent.name == "rules" and "tests" not in path.parts:
            patterns.append(_CITED_BY_RULES)
        docstrings = " ".join(_docstrings_and_comments(path))
        for pattern in patterns:
            for cited in pattern.findall(docstrings):
                sections = re.findall(r"\d+(?:\.\d+)?", cited)
                found += len(sections)
                assert set(sections) <= told, f"{path.relative_to(HOUSE)} cites {cited}, which docs/facts.md has not"
    assert found > 60


def _docstrings_and_comments(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
                yield " ".join(token.string.split())


def test_nothing_of_a_machine_is_in_the_files() -> None:
    """No path of somebody's machine and no registry host: what is here has to work anywhere."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    marks = ["/" + "work/", "/" + "root/", "/" + "home/runner", "pypi" + ".org/simple", "files.python" + "hosted"]
    for name in filter(None, listed.stdout.split("\0")):
        path = HOUSE / name
        if path.suffix in (".py", ".toml", ".md", ".yaml", ".txt", ".svg", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            for mark in marks:
                assert mark not in text, f"{name} holds {mark}"
