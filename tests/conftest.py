"""Fixtures that tests of several packages share.

`recordings`: the folder of recorded traffic of real clusters, which is not part of the project.
`once`: a file that all workers of a run share.
`receiver`: starts real receiver processes; whatever a test leaves running is ended after it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from tests.live_receiver import LiveReceiver, start_receiver
from tests.scheduling import LongestFirst, place

# A shell starts what it puts into the background with SIGINT ignored, and every program started from here would
# inherit that: Ctrl-C, which tests send, would do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Images of containers like to set it, and then each of a thousand processes that are started here compiles the program
# anew: 0.15 s of a receiver's 0.45 s, 0.3 s of the screens' 0.8 s.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Times are never asserted: what takes 30 ms takes 300 where the machine is busy.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDINGS_VARIABLE = "K8S_TRACE_TUI_RECORDINGS"

StartReceiver = Callable[..., LiveReceiver]
Once = Callable[[str, Callable[[Path], None]], Path]


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: twice as many as there are cores; a third of the tests' time is waiting."""
    return 2 * (os.cpu_count() or 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LongestFirst | None:
    """What is long first, unless `--dist` asks for another order."""
    return LongestFirst(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a worker; a run without any keeps the order of the files."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: place(item.nodeid))


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings: $K8S_TRACE_TUI_RECORDINGS, or `shared/recordings` beside the repository."""
    folder = Path(os.environ.get(RECORDINGS_VARIABLE) or REPOSITORY.parent / "shared" / "recordings")
    if not (folder / "list-nodes.otlp.jsonl").is_file():
        pytest.skip(f"the recordings of real clusters are not here ({RECORDINGS_VARIABLE} names their folder)")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)`: a file of that name, which `make` wrote for whichever worker of this run wanted it first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def of(name: str, make: Callable[[Path], None]) -> Path:
        known = folder / name
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not known.is_symlink():
                made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder), name)
                make(made)
                known.symlink_to(made)  # not before it is whole
        return known.resolve()

    return of


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[StartReceiver]:
    """Starts a receiver: `receiver(db=..., listen=["127.0.0.1:0"], arguments=[...])`, all of them optional.

    The database is `spans.db` in the test's own folder unless told otherwise.
    """
    started: list[LiveReceiver] = []

    def start(
        db: Path | None = None, listen: Sequence[str] = ("127.0.0.1:0",), arguments: Sequence[str] = ()
    ) -> LiveReceiver:
        live = start_receiver(db or tmp_path / "spans.db", listen, arguments)
        started.append(live)
        return live

    yield start
    for live in started:
        if live.process.poll() is None:
            live.kill()
        for stream in (live.process.stdout, live.process.stderr):
            if stream is not None:
                stream.close()
