"""The command line: what was asked for, and how what goes wrong is said.

Nothing but argparse is loaded here, so that `--help` answers at once; each command loads what it needs.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from tui import __version__

if TYPE_CHECKING:
    from tui.config import Settings
    from tui.headless import Spans

PROGRAM: Final = "k8s-trace-tui"
SORTS: Final = ("start", "duration", "spans", "errors", "verb", "resource", "namespace", "client", "code", "where")
_LOG_LIMIT: Final = 1 << 20

_ABOUT: Final = """\
Live trace trees of a Kubernetes control plane, in a terminal on the control plane itself.

  k8s-trace-tui [FILE...]         the screens: what arrives now, or recordings (OTLP, Jaeger, Zipkin, Tempo)
  k8s-trace-tui demo              the screens with a synthetic cluster
  k8s-trace-tui receive           receive only; prints `listening NAME ADDRESS` once ready
  k8s-trace-tui traces [FILTER]   a line per trace, newest first
  k8s-trace-tui show TRACE...     whole traces as trees
  k8s-trace-tui hot [FILTER]      what is hot: shapes of requests, webhooks, clients, retry storms, etcd
  k8s-trace-tui compare A B       which requests became slower or faster from one recording to another
  k8s-trace-tui export [FILTER]   traces into a file of OTLP JSON Lines
  k8s-trace-tui import FILE...    recordings into the database
  k8s-trace-tui trace -- COMMAND  run COMMAND with its API requests traced, at sampling rate zero too
  k8s-trace-tui sampling status   how control planes trace; also set RATE, arm, off, revert, resume, undo
  k8s-trace-tui doctor            why nothing arrives, step by step
  k8s-trace-tui info              version and every path in use

`k8s-trace-tui COMMAND --help` says more. FILTER is words and field=value, all of which must hold:
`create pods`, `verb=list code=403`, `ns=default ua=kubectl`. --from FILE reads a recording instead of the database.
"""


class Usage(Exception):
    """The command line cannot be understood; the text is one sentence."""


class _Ended(BaseException):
    """SIGTERM came: what is half done is cleared away, as after Ctrl-C."""


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence instead of a usage dump."""

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message[:1].upper()}{message[1:]}: see {self.prog} --help.")


def plugin() -> int:
    """`kubectl trace-tui -- get pods`, which kubectl runs as `kubectl-trace_tui -- get pods`."""
    return main(["trace", *sys.argv[1:]], plugin=True)


def main(argv: Sequence[str] | None = None, *, plugin: bool = False) -> int:
    """Do what the command line says. As a `plugin` of kubectl, commands need not name kubectl.

    Returns:
        0, 1 for a failure, 2 for a command line that is not understood, 130 after Ctrl-C. Never a traceback.
    """
    if sys.stdout is None:  # else the database would get its number
        return _complain("Standard output is closed: leave it open, or send it to /dev/null.", 1)
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv), plugin)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except _Ended:
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # Who read us has seen enough. What is still in the buffer must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Usage as problem:
        return _complain(str(problem), 2)
    except Exception as problem:  # noqa: BLE001 - the one place where everything ends up
        return _failed(problem)


def _dispatch(argv: list[str], plugin: bool = False) -> int:
    at = _command_at(argv)
    if at is None:
        parser = _Parser(
            prog=PROGRAM,
            usage=f"{PROGRAM} [OPTIONS] [FILE...] | COMMAND ...",
            description=_ABOUT,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
        parser.add_argument("files", nargs="*", metavar="FILE", type=_file, help="recordings to look at")
        _add_reach(parser)
        _add_common(parser)
        return _view(parser.parse_args(argv))
    name, run, add, about = _COMMANDS[argv[at]]
    parser = _Parser(prog=f"{PROGRAM} {name}", description=about, allow_abbrev=False)
    add(parser)
    parser.set_defaults(plugin=plugin)
    args, unknown = parser.parse_known_args(argv[:at] + argv[at + 1 :])
    if unknown:
        if name == "sampling":
            _check_rates(unknown)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return run(args)


def _command_at(argv: Sequence[str]) -> int | None:
    """Where the command stands: the first word that is neither an option nor an option's value."""
    skip = False
    for at, word in enumerate(argv):
        if skip:
            skip = False
        elif word in ("--db", "--listen", "--theme", "--config", "--host", "--context", "--node-image"):
            skip = True
        elif word == "--" or not word.startswith("-"):
            return at if word in _COMMANDS else None
    return None


# --- options ---------------------------------------------------------------------------------------
def _add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument("--db", metavar="PATH", type=_path, help="the database (default: in the state directory)")
    group.add_argument(
        "--listen",
        metavar="[NAME=]ADDRESS",
        action="append",
        help="HOST:PORT, [IPV6]:PORT or unix:/path for a receiver that is started; NAME says where its spans come from;"
        " may be repeated (default: 127.0.0.1:4317 and [::1]:4317)",
    )
    _add_settings(group)


def _add_settings(group: argparse._ActionsContainer) -> None:
    group.add_argument("--theme", metavar="NAME", help="colours of the screens")
    group.add_argument("--config", metavar="FILE", type=_path, help="settings (default: as `info` says)")


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    return _file(os.path.expanduser(text))


def _file(text: str) -> Path:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a} is not a name in UTF-8, rename it") from None
    if not text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(text)


def _recording(text: str) -> Path:
    return _STDIN if text == "-" else _file(text)


_STDIN: Final = Path("/dev/stdin")
_ENDINGS: Final = (".json", ".jsonl", ".gz", ".zst", ".pb")


def _named(words: Sequence[str], recordings: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The recordings that a command is to read, and its other words."""
    named = [word for word in words if ("/" in word or word.endswith(_ENDINGS)) and os.path.isfile(word)]
    return [*recordings, *map(_file, named)], [word for word in words if word not in named]


@contextmanager
def _spans(args: argparse.Namespace, recordings: Sequence[Path]) -> Iterator[Spans]:
    """What a command reads: the database, or recordings."""
    from tui import headless

    if not recordings:
        with headless.open_database(_quiet_settings(args).db) as database:
            yield headless.Spans(database)
        return
    if args.db is not None:
        raise Usage("A recording needs no database: leave out --db, or the recordings.")
    _quiet_settings(args)
    if _STDIN in recordings:
        _readable_input()
    with headless.open_recordings(recordings) as spans:
        yield spans


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:18]) < 10**12:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 on")
    return int(text)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides everything that happens (default 1)")
    _add_common(parser)


def _add_receive(parser: argparse.ArgumentParser) -> None:
    from receiver.__main__ import add_arguments

    add_arguments(parser)
    _add_settings(parser.add_argument_group("common options"))


def _add_from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="recordings",
        action="append",
        default=[],
        metavar="FILE",
        type=_recording,
        help="read a recording instead of the database; - is standard input; may be repeated. A word that names a file"
        f" and holds a / or ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]} is one, too",
    )


def _add_traces(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filter", nargs="*", metavar="FILTER", help="words and field=value, all of which must hold")
    _add_from(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--follow", action="store_true", help="then print each new trace once it has been quiet for 1 s"
    )
    parser.add_argument("--limit", type=_number, metavar="N", help="at most this many (default: all)")
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="start",
        help="order (default: start, the newest first); by duration, watches, exec, logs and other requests that were "
        "asked to last come after all others",
    )
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    _add_common(parser)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "traces",
        nargs="*",
        metavar="TRACE",
        help="a trace id or its first 4 or more hex digits; - reads ids from stdin (default, of recordings: all)",
    )
    _add_from(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a line")
    how.add_argument("--raw", action="store_true", help="OTLP JSON, as `import` takes it")
    parser.add_argument("--all", action="store_true", help="a tree of all spans, not of the first 2,000 of each trace")
    _add_common(parser)


def _add_hot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filter", nargs="*", metavar="FILTER", help="words and field=value (default: everything)")
    _add_from(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object: all tables, all rows")
    _add_common(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{PROGRAM} compare [OPTIONS] BEFORE AFTER [FILTER...]"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="two recordings, as of before and after an upgrade; then words and field=value (default: everything)",
    )
    _add_from(parser)
    parser.add_argument("--all", action="store_true", help="a line for every shape, not only for those that changed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, a line for every shape")
    _add_common(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filter", nargs="*", metavar="FILTER", help="words and field=value (default: everything)")
    _add_from(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", type=_path, help="*.jsonl or *.jsonl.gz; - is standard output"
    )
    _add_common(parser)


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", type=_recording, help="recordings; - is standard input")
    parser.add_argument(
        "--max-size", metavar="SIZE", default=None, help="keep at most this much, as in 512MiB (the default) or 2GiB"
    )
    parser.add_argument(
        "--min-free", metavar="SHARE", default=None, help="leave this much of the disk free, as in 20%% (the default)"
    )
    _add_common(parser)


_SAMPLING: Final = """\
How control planes trace, and changing it.

  status      every node: off, armed (only forced requests), or sampling; what arrives; who changed it last
  arm         configure tracing with rate 0: one restart, then nothing is traced but what is asked for
  set RATE    sample that part of all requests: 1%, 1/1000, 10000ppm, 0, all
  off         take the tracing configuration out
  revert      put back, byte for byte, what was there before the first change
  resume      finish a change that was interrupted
  undo        put back what was before a change that was interrupted

Nothing is changed without --yes or an answered question. Nodes are changed one after the other; each puts itself back
when it does not come up well, also when this program or the way to it is gone.
"""
_ACTIONS: Final = ("status", "set", "arm", "off", "revert", "resume", "undo")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _SAMPLING
    parser.add_argument("action", choices=_ACTIONS, metavar="ACTION", help=", ".join(_ACTIONS))
    parser.add_argument("rate", nargs="*", metavar="RATE", help="for set: 1%%, 1/1000, 10000ppm, 0, all")
    parser.add_argument(
        "--component", choices=("apiserver", "etcd"), default="apiserver", help="what to change (default: apiserver)"
    )
    parser.add_argument("--node", action="append", metavar="NAME", help="only this node; may be repeated")
    parser.add_argument(
        "--endpoint",
        metavar="ADDRESS",
        help="where it sends to (default: as it is configured, else where the receiver on this machine listens, else"
        " 127.0.0.1:4317)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="for revert: also over somebody else's later change")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_reach(parser)
    _add_common(parser)


_TRACE: Final = """\
Runs a command with its API requests traced, and says what became of each: code, duration, and where the time went.

  k8s-trace-tui trace -- kubectl get pods -A
  k8s-trace-tui trace --compare 10 -- kubectl get nodes
  k8s-trace-tui trace --issue-identity

The command gets a kubeconfig that leads through this program, with the credentials of the context added on the way;
its input, output and exit code are its own. An API server of 1.33 or later that is armed (k8s-trace-tui sampling arm)
traces requests of system:masters and system:monitoring whole, whatever its rate, and nothing else. --issue-identity
gets a certificate that is in system:monitoring and otherwise may do what you may; it is used for that context from
then on. Of other callers and releases those requests are found that the rate happened to take.
"""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of seconds from 0 to 3600")
    return seconds


def _number_up_to(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        found = _number(text)
        if found > most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is more than {most:,}")
        return found

    return number


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _TRACE
    parser.usage = "k8s-trace-tui trace [OPTIONS] -- COMMAND [ARGUMENT...]"
    parser.add_argument("--context", metavar="NAME", help="a context of the kubeconfig (default: the current one)")
    parser.add_argument("--json", metavar="FILE", type=_path, help="also write one JSON object a request to FILE")
    parser.add_argument("--open", action="store_true", help="then open the screens on these requests")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=_seconds, help="wait so long for spans at most (default 12: exporters take 5)"
    )
    parser.add_argument(
        "--compare",
        metavar="N",
        type=_number_up_to(1000),
        help="run it N times, and show median and spread of each phase; one that changes something needs --yes",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask; with --compare, repeat what changes something")
    parser.add_argument("--issue-identity", action="store_true", help="get a certificate that may bring traces")
    parser.add_argument("--days", metavar="N", type=_number_up_to(365), help="how long it is valid (default 7)")
    parser.add_argument("--no-identity", action="store_true", help="do not use such a certificate")
    parser.add_argument(
        "--read-only", action="store_true", help="run only kubectl's reading sub-commands, get no identity"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    _add_common(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--node", action="append", metavar="NAME", help="only this node; may be repeated")
    parser.add_argument("--yes", action="store_true", help="with --context: let a pod of ours look at the nodes' files")
    _add_reach(parser)
    _add_common(parser)


def _add_reach(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("control planes")
    group.add_argument(
        "--host",
        action="append",
        metavar="URL",
        help="a control-plane node: ssh://USER@HOST, or file:///DIR for a copy of its files; may be repeated",
    )
    group.add_argument("--context", metavar="NAME", help="a context of the kubeconfig: reached through the API alone")
    group.add_argument("--node-image", metavar="IMAGE", help="for the pod that does it there: any image with sh")
    group.add_argument("--read-only", action="store_true", help="change nothing")


# --- commands --------------------------------------------------------------------------------------
def _settings(args: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The configuration file's settings under those of the command line, and what is wrong in the file."""
    from tui.config import load_settings

    if args.config is not None:
        if not os.path.exists(args.config):
            raise Usage(f"There is no settings file {args.config}: name another with --config, or leave that out.")
        _refuse_special(args.config, "--config")
    settings, problems = load_settings(args.config)
    given: dict[str, Any] = {}
    if args.theme is not None:
        given["theme"] = args.theme
    if args.db is not None:
        given["db"] = args.db
    if args.listen:
        given["listeners"] = tuple(args.listen)
    return replace(settings, **given), problems


def _quiet_settings(args: argparse.Namespace, about: bool = False) -> Settings:
    """As `_settings`, for commands without a screen to show problems on."""
    settings, problems = _settings(args)
    for problem in problems:
        _complain(problem)
    if settings.db is not None and not about:
        _refuse_special(settings.db, "--db")
    return settings


def _refuse_special(path: Path, option: str) -> None:
    """A pipe would be waited for without end, a device read without end; /dev/null is as good as an empty file."""
    from receiver.store.database import StoreError

    try:
        found = path.stat()
    except OSError:  # who opens it says so
        return
    if not stat.S_ISREG(found.st_mode) and str(path) != os.devnull:
        raise StoreError(f"{path} is not a file: name another with {option}.")


def _readable_input() -> TextIO:
    if sys.stdin is None:
        raise Usage("Standard input is closed: `-` needs something to read.")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


def _check_listeners(settings: Settings) -> None:
    from receiver.ingest.address import ListenError, check_distinct, split_name

    try:
        check_distinct([split_name(listener) for listener in settings.listeners])
    except ListenError as problem:
        raise Usage(str(problem)) from problem


def _view(args: argparse.Namespace) -> int:
    from tui.session import NoTerminal, view_files, watch

    for word in map(str, args.files):
        if word.isalnum() and not os.path.lexists(word):
            raise Usage(f"{word!r} is neither a command nor a file: see {PROGRAM} --help.")
    if args.files and (args.host or args.context):
        raise Usage("A recording has no control plane: leave out --host and --context, or the files.")
    settings, problems = _settings(args)
    if settings.db is not None:
        _refuse_special(settings.db, "--db")
    _check_listeners(settings)
    from tui.cluster_feed import Named

    named = Named(tuple(args.host or ()), args.context or "", args.node_image or "")
    settings = replace(settings, read_only=args.read_only)
    try:
        if args.files:
            return view_files(args.files, settings, problems)
        return watch(settings, problems, named)
    except NoTerminal as problem:
        return _complain(str(problem), 1)


def _demo(args: argparse.Namespace) -> int:
    from tui.session import NoTerminal, demo

    settings, problems = _settings(args)
    if args.db is None:
        settings = replace(settings, db=None)  # the configured one is for real spans
    if not args.listen:
        settings = replace(settings, listeners=())
    _check_listeners(settings)
    try:
        return demo(settings, problems, args.seed)
    except NoTerminal as problem:
        return _complain(str(problem), 1)


def _receive(args: argparse.Namespace) -> int:
    from receiver.__main__ import run

    settings = _quiet_settings(args)
    args.db = settings.db
    args.listen = list(settings.listeners) or None
    return run(args)


def _traces(args: argparse.Namespace) -> int:
    from tui import headless

    if args.follow and (args.sort != "start" or args.reverse):
        raise Usage("--follow prints traces as they come: leave out --sort and --reverse.")
    recordings, words = _named(args.filter, args.recordings)
    if args.follow and recordings:
        raise Usage("--follow waits for what arrives, and nothing arrives in a recording: leave one of them out.")
    query = _query(words)
    with _spans(args, recordings) as spans:
        if args.follow:
            return headless.follow(spans.database, query, as_json=args.json, limit=args.limit)
        code = headless.traces(
            spans.database, query, as_json=args.json, limit=args.limit, sort=args.sort, reverse=args.reverse
        )
        return code or spans.code


def _show(args: argparse.Namespace) -> int:
    from tui import headless

    recordings, words = _named(args.traces, args.recordings)
    if not words and not recordings:
        raise Usage("show needs a trace id, or its first digits, or a recording: see k8s-trace-tui show --help.")
    if "-" in words and _STDIN in recordings:
        raise Usage("Standard input is either trace ids (-) or a recording (--from -): leave one of them out.")
    wanted = [one for text in words for one in (headless.ids_of(_readable_input()) if text == "-" else [text])]
    with _spans(args, recordings) as spans:
        code = headless.show(
            spans.database, wanted if words else None, as_json=args.json, raw=args.raw, everything=args.all
        )
        return code or spans.code


def _hot(args: argparse.Namespace) -> int:
    from tui import headless

    recordings, words = _named(args.filter, args.recordings)
    query = _query(words)
    with _spans(args, recordings) as spans:
        return headless.hot(spans.database, query, as_json=args.json) or spans.code


def _compare(args: argparse.Namespace) -> int:
    from tui import headless

    missing = 2 - len(args.recordings)
    if missing < 0 or len(args.words) < missing:
        raise Usage("compare needs two recordings, as in compare before.jsonl after.jsonl verb=create.")
    files: list[Path] = [*args.recordings, *map(_recording, args.words[:missing])]
    before, after = files
    if before == after == _STDIN:
        raise Usage("Standard input is one recording: name a file for the other.")
    if _STDIN in (before, after):
        _readable_input()
    query = _query(args.words[missing:])
    return headless.compare(before, after, query, as_json=args.json, everything=args.all)


def _export(args: argparse.Namespace) -> int:
    from tui import headless

    recordings, words = _named(args.filter, args.recordings)
    query = _query(words) if words else None
    to = None if str(args.output) == "-" else args.output
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGHUP, _end)
    with _spans(args, recordings) as spans:
        return headless.export(spans.database, query, to) or spans.code


def _first_missing(paths: Sequence[Path]) -> Exception:
    from receiver.store.files import FileProblem

    others = f", nor are the other {len(paths) - 1}" if len(paths) > 1 else ""
    return FileProblem(f"{paths[0]} is not there{others}: name another file.")


def _import(args: argparse.Namespace) -> int:
    from tui import headless

    if _STDIN in args.files:
        _readable_input()
    from receiver.__main__ import UsageError, policy_of

    try:
        policy = policy_of(args.max_size, None, args.min_free)
    except UsageError as problem:
        raise Usage(str(problem)) from problem
    db = _quiet_settings(args).db
    if not any(os.path.lexists(file) for file in args.files):  # nothing to begin a database for
        raise _first_missing(args.files)
    return headless.import_files(args.files, db, policy)


def _check_rates(words: Sequence[str]) -> None:
    """Say of a rate below zero, which looks like an option, what it is.

    Raises:
        Usage: there is one.
    """
    from tui.clusters import rates
    from tui.clusters.model import ClusterError

    for word in words:
        if word[:1] == "-" and word[1:2] in {*"0123456789."}:
            try:
                rates.parse(word)
            except ClusterError as problem:
                raise Usage(str(problem)) from problem


def _sampling(args: argparse.Namespace) -> int:
    from tui.clusters import rates
    from tui.clusters.model import ClusterError

    if bool(args.rate) != (args.action == "set"):
        raise Usage("set needs a RATE, as in set 1%." if args.action == "set" else f"{args.action} takes no rate.")
    if args.force and args.action != "revert":
        raise Usage("--force is for revert: leave it out.")
    if args.endpoint and args.action not in ("set", "arm"):
        raise Usage("--endpoint is for set and arm: leave it out.")
    try:
        rate = rates.parse(" ".join(args.rate)) if args.rate else None
    except ClusterError as problem:
        raise Usage(str(problem)) from problem
    return _with_hosts(args, rate)


def _with_hosts(args: argparse.Namespace, rate: int | None = None) -> int:
    """`sampling` and `doctor`: reach what is meant, do it, and let go of it."""
    from tui import sampling
    from tui.clusters import rates
    from tui.clusters.model import ClusterError, Part

    settings = _quiet_settings(args)
    try:
        with sampling.reached(args.host or (), args.context, args.node_image, settings) as reach:
            asked = sampling.Asked(
                part=Part(getattr(args, "component", "apiserver")),
                per_million=0 if getattr(args, "action", "") == "arm" else rate,
                nodes=tuple(getattr(args, "node", None) or ()),
                endpoint=getattr(args, "endpoint", None) or "",
                dry_run=getattr(args, "dry_run", False),
                yes=getattr(args, "yes", False),
                as_json=args.json,
                read_only=args.read_only,
                force=getattr(args, "force", False),
                cluster=reach.cluster,
                protected=reach.protected,
                database=sampling.database_path(settings.db),
                listeners=settings.listeners,
            )
            action = getattr(args, "action", "doctor")
            if action == "doctor":
                return sampling.diagnose(reach, asked)
            if action == "status":
                return sampling.status(reach, asked)
            if action == "revert":
                return sampling.revert(reach, asked)
            if action in ("resume", "undo"):
                return sampling.carry_on(reach, asked, undo=action == "undo")
            return sampling.change(reach, asked, rates.text(rate) if rate is not None else action)
    except sampling.Refused as problem:
        return _complain(str(problem), 2)
    except ClusterError as problem:
        return _complain(str(problem), 1)


def _trace(args: argparse.Namespace) -> int:
    command = tuple(args.command[1:] if args.command[:1] == ["--"] else args.command)
    if args.issue_identity and command:
        raise Usage("--issue-identity runs no command: leave one of them out.")
    if not args.issue_identity and not command:
        raise Usage("trace needs a command, as in trace -- kubectl get pods.")
    if args.days and not args.issue_identity:
        raise Usage("--days is for --issue-identity: leave it out.")
    if args.compare and args.open:
        raise Usage("--compare shows medians in text: leave out --open.")
    settings = replace(_quiet_settings(args), read_only=args.read_only)
    _check_listeners(settings)
    from tui import sampling, tracing
    from tui.clusters.force import collected, identity
    from tui.clusters.model import ClusterError

    asked = tracing.Asked(
        command=tracing.plugin_words(command) if args.plugin else command,
        context=args.context or settings.context,
        json=args.json,
        open=args.open,
        wait=collected.WAIT if args.wait is None else args.wait,
        compare=args.compare or 1,
        yes=args.yes,
        identity=not args.no_identity,
    )
    try:
        if args.issue_identity:
            return tracing.issue_identity(asked, settings, args.days or identity.DAYS)
        return tracing.run(asked, settings)
    except sampling.Refused as problem:
        return _complain(str(problem), 2)
    except ClusterError as problem:
        return _complain(str(problem), 1)


def _info(args: argparse.Namespace) -> int:
    from tui import headless

    return headless.info(_quiet_settings(args, about=True), args.config)


def _query(words: Sequence[str]) -> Any:
    from receiver.traces.query import Query, QueryError

    try:
        return Query.parse(" ".join(words))
    except QueryError as problem:
        raise Usage(str(problem)) from problem


_Command = tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]
_COMMANDS: Final[dict[str, _Command]] = {
    command[0]: command
    for command in (
        ("demo", _demo, _add_demo, "The screens with a synthetic cluster that exports through real gRPC."),
        ("receive", _receive, _add_receive, "Receive only. Prints `listening NAME ADDRESS` per listener once ready."),
        ("traces", _traces, _add_traces, "A line per trace, newest first."),
        ("show", _show, _add_show, "Whole traces as trees."),
        ("hot", _hot, _add_hot, "What is hot: shapes of requests, webhooks, clients, objects, retry storms, etcd."),
        (
            "compare",
            _compare,
            _add_compare,
            "Which requests became slower or faster from recording A to B, and whether that is more than noise.",
        ),
        ("export", _export, _add_export, "Traces into a file of OTLP JSON Lines, in order of arrival."),
        (
            "import",
            _import,
            _add_import,
            "Recordings into the database, whether a receiver holds it or not.",
        ),
        ("trace", _trace, _add_trace, "A command with its API requests traced."),
        ("sampling", _sampling, _add_sampling, "How control planes trace, and changing it."),
        ("doctor", _with_hosts, _add_doctor, "Why nothing arrives, step by step. Changes nothing."),
        ("info", _info, _add_common, "Version and every path in use."),
    )
}


# --- what goes wrong -------------------------------------------------------------------------------
def _complain(sentence: str, code: int = 0) -> int:
    from tui.printing import warn

    warn(sentence)
    return code


def _failed(problem: Exception) -> int:
    """One sentence; the traceback of a defect goes to the log."""
    if isinstance(problem, ImportError):  # then what follows may not be there either
        print(f"{PROGRAM}: The installation is not whole ({str(problem)!a}): install it again.", file=sys.stderr)
        return 1
    from receiver.control import ControlError
    from receiver.store.database import StoreError

    if isinstance(problem, (StoreError, ControlError)):
        return _complain(str(problem), 1)
    if isinstance(problem, OSError) and problem.strerror:
        what = f"{problem.filename} cannot be used" if problem.filename else "The output cannot be written"
        return _complain(f"{what} ({problem.strerror}).", 1)
    where = _log_traceback(problem)
    return _complain(f"A defect of this program ended it ({type(problem).__name__}: {problem}): {where}.", 1)


def _log_traceback(problem: Exception) -> str:
    """Append to the log, which is started anew when it is large; says where it is."""
    import traceback
    from datetime import datetime, timezone

    from receiver.plain_text import one_line
    from receiver.store.errors import StoreError
    from receiver.store.ownership import open_ours
    from receiver.store.place import default_place, make_private

    text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))[-65_536:]
    try:
        log = default_place().log
        make_private(log.parent)
        handle = open_ours(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with os.fdopen(handle, "a", encoding="utf-8", errors="backslashreplace") as file:
            if file.tell() > _LOG_LIMIT:
                file.truncate(0)
            lines = "\n".join(map(one_line, text.split("\n")))
            file.write(f"{datetime.now(timezone.utc).isoformat()} {PROGRAM} {__version__}\n{lines}\n")
    except (OSError, StoreError):
        return "and its log could not be written"
    return f"{log} says where"


if __name__ == "__main__":
    sys.exit(main())
