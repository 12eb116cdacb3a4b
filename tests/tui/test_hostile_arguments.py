"""Whatever is given as an argument, what is printed about it is text."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tui
from tests import program
from tui import cli

HOME = str(Path(tui.__file__).parent.parent)
EVIL = "\x1b]0;owned\x07\x1b[2J\r\nlistening x unix:/y\x9b31m\u202e\u2028\x7f"


def raw(text: str) -> list[str]:
    """What a terminal would act on; a line end is for us to print."""
    return [character for character in text if not character.isprintable() and character != "\n"]


def options() -> Iterator[tuple[str, ...]]:
    """Every option of every command with a value that is hostile, and each command with hostile words."""
    yield (EVIL,)
    yield (f"--{EVIL}",)
    for name, (_, _, add, _) in cli._COMMANDS.items():
        parser = argparse.ArgumentParser()
        add(parser)
        yield name, EVIL
        yield name, f"--{EVIL}"
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                for value in (EVIL, f"x=unix:/{EVIL}", f"/{EVIL}/x"):
                    yield name, action.option_strings[-1], value


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No control plane, no cluster, no settings; every place to write to is the test's."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", list(options()), ids=ascii)
def test_nothing_of_an_argument_reaches_the_terminal_raw(
    given: tuple[str, ...], nowhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, *rest = given
    more = {
        "receive": [] if "--listen" in rest else ["--listen", "x=nowhere"],  # it would go on until it is ended
        "compare": ["a", "b"],
        "show": ["abcd"],
        "import": ["none"],
        "sampling": ["status", "--host", f"file://{nowhere}/none"],
        "doctor": ["--host", f"file://{nowhere}/none"],
        "trace": ["--", "false"],
        "export": ["-o", "x.jsonl"],
    }.get(name, [])
    more = [one for one in more if not (rest[:1] == ["--output"] and one in ("-o", "x.jsonl"))]
    code = cli.main([name, *rest, *more] if name in cli._COMMANDS else list(given))
    told = capfd.readouterr()
    assert code != 0 or told.err or told.out
    assert raw(told.out + told.err) == []
    assert not any(line.startswith("listening") for line in (told.out + told.err).splitlines())


WORD = f"--{EVIL.replace(' ', '')}"  # argparse takes what has a space in it for no option


@pytest.mark.parametrize("given", [(WORD,), (EVIL, EVIL), ("--listen", f"x=unix:/{EVIL}"), ("--max-size", EVIL)])
@pytest.mark.parametrize("module", ["receiver", "receiver.ingest.demo"])
def test_nor_of_the_processes_that_are_started(module: str, given: tuple[str, ...], nowhere: Path) -> None:
    done = program.run(module, *given, text=False)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert raw((done.stdout + done.stderr).decode()) == []


def test_a_receiver_says_where_it_listens_on_one_line(nowhere: Path) -> None:
    folder = nowhere / "a\x1b[31m\nlistening y unix:"
    folder.mkdir()
    command = [sys.executable, "-m", "receiver", "--db", str(folder / "spans.db"), "--listen", f"x=unix:{folder}/s"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": HOME}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert line == f"listening x unix:{nowhere}/a\\x1b[31m\\nlistening y unix:/s\n"
    assert out == ""
    assert raw(err) == []
