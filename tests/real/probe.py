"""Asks an API server ten times a second from outside, and tells when it was away."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from typing import Final

from tests.real.client import Client
from tests.real.lan import Lan

READY: Final = "/readyz"
READ: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
"""A plain GET of an object that every cluster has: it is read from etcd, not from a cache."""
_EVERY_S: Final = 0.1
_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True)
class Away:
    """A time without a good answer: from when the first question was asked that got none, to when one did again.

    Attributes:
        began: by the monotonic clock, s.
        ended: likewise; None while it lasts.
        words: what came instead, each once.
    """

    path: str
    began: float
    ended: float | None
    words: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long; so far, while it lasts."""
        return (self.ended or time.monotonic()) - self.began

    def __str__(self) -> str:
        lasts = "" if self.ended else " so far"
        return f"{self.path.rpartition('/')[2]} away {self.seconds:.1f} s{lasts} ({', '.join(self.words)})"


class Probe:
    """Asks until it is closed. Use it as a context manager."""

    def __init__(self, lan: Lan, client: Client, paths: tuple[str, ...] = (READY, READ)) -> None:
        self._client = client
        self._lan = lan
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._away: dict[str, list[Away]] = {path: [] for path in paths}
        self._asked = dict.fromkeys(paths, 0)
        self._threads = [threading.Thread(target=self._ask, args=(path,), daemon=True) for path in paths]

    def __enter__(self) -> Probe:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def away(self, path: str = READ) -> list[Away]:
        """Every time it was away since the beginning, the oldest first."""
        with self._lock:
            return list(self._away[path])

    def seconds_away(self, path: str = READ) -> float:
        """From the first question without a good answer to the last one, a come-back in between included."""
        found = self.away(path)
        return 0.0 if not found else (found[-1].ended or time.monotonic()) - found[0].began

    def asked(self, path: str = READ) -> int:
        """How many questions were asked."""
        with self._lock:
            return self._asked[path]

    def answers(self) -> bool:
        """No path is away now."""
        with self._lock:
            return all(not found or found[-1].ended for found in self._away.values())

    def __str__(self) -> str:
        return "; ".join(str(away) for path in self._away for away in self.away(path)) or "never away"

    def _ask(self, path: str) -> None:
        self._lan.enter()
        while not self._ends.is_set():
            began = time.monotonic()
            word = self._word(path)
            with self._lock:
                self._asked[path] += 1
                self._note(path, began, word)
            self._ends.wait(max(0.0, began + _EVERY_S - time.monotonic()))

    def _word(self, path: str) -> str:
        try:
            return str(self._client.request("GET", path, agent="probe", timeout=_TIMEOUT_S).code)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"
        except (OSError, http.client.HTTPException) as problem:
            return type(problem).__name__

    def _note(self, path: str, began: float, word: str) -> None:
        found = self._away[path]
        lasts = bool(found) and found[-1].ended is None
        if word == "200":
            if lasts:
                last = found.pop()
                found.append(Away(path, last.began, time.monotonic(), last.words))
        elif not lasts:
            found.append(Away(path, began, None, (word,)))
        elif word not in found[-1].words:
            last = found.pop()
            found.append(Away(path, last.began, None, (*last.words, word)))
