"""This machine: a script runs as root right here, by `sudo -n` where we are not root ourselves."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tui.clusters.model import Done, ReachError
from tui.clusters.reach.wire import NAME, ROOT_VARIABLE, WRAPPER, Answer, last_line, packed, run_process


class LocalHost:
    """This machine."""

    name = "this machine"
    alive = True

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: bytes = b"",
        timeout: float = 30.0,
        most: int = 8 << 20,
    ) -> Done:
        """Run a script here as root, as `Host.run` says.

        Raises:
            ReachError: root is refused, or it took longer than `timeout` seconds.
        """
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n", "--"]
        return run_here(self.name, prefix, "", script, arguments, stdin=stdin, timeout=timeout, most=most)

    def close(self) -> None:
        """Nothing was opened."""


def run_here(
    name: str,
    prefix: Sequence[str],
    root: str,
    script: str,
    arguments: Sequence[str],
    *,
    stdin: bytes,
    timeout: float,
    most: int,
) -> Done:
    """Run a script in a process of this machine with `ROOT` set to `root`.

    Raises:
        ReachError: it could not be started, was refused, was ended from outside or took too long.
    """
    answer = Answer(most)
    environment = {**os.environ, ROOT_VARIABLE: root}
    try:
        outcome = run_process(
            [*prefix, "sh", "-c", WRAPPER, NAME, *arguments],
            packed(script, stdin),
            answer,
            timeout=timeout,
            environment=environment,
        )
    except OSError as error:
        if prefix:
            raise ReachError(
                f"{name.capitalize()} can only be read and changed by root, and {prefix[0]} cannot be started"
                f" ({error.strerror}): run this program as root."
            ) from error
        raise ReachError(f"No shell can be started on {name} ({error.strerror}): is /bin/sh there?") from error
    if answer.finished:
        return answer.done
    if outcome.code is None:
        raise ReachError(
            f"The script on {name} did not end within {timeout:g} s and was stopped: is the machine overloaded,"
            " or a file system hanging?"
        )
    if prefix and not answer.started:
        raise ReachError(
            f"{name.capitalize()} can only be read and changed by root, and sudo refused without asking"
            f" ({last_line(answer.error) or 'no reason given'}): run this program as root, or allow it by NOPASSWD."
        )
    reason = last_line(answer.error) or f"exit code {outcome.code}"
    raise ReachError(f"The script on {name} was ended before it was done ({reason}): try again.")
