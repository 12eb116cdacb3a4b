"""Signals that end a process."""

import signal
import subprocess
import sys
import threading

from receiver.signals import ending

ROUNDS = """
import os, random, signal, threading, time
from receiver.signals import ending
for _ in range(100):
    stop = threading.Event()
    with ending(stop, signal.SIGTERM):
        threading.Timer(random.random() / 200, os.kill, (os.getpid(), signal.SIGTERM)).start()
        while not stop.wait(0):
            pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print("all ended")
"""


def test_a_signal_ends_the_process_at_whatever_step_of_waiting_it_comes() -> None:
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("all ended\n", "", 0)


def test_a_thread_that_is_not_the_main_one_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def elsewhere() -> None:
        with ending(threading.Event(), signal.SIGTERM):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
