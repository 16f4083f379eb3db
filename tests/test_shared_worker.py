"""One worker process lent to several in turn."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness.errors import WorkerDied
from harness.workers import SharedWorker, run


def test_it_is_one_process_until_it_dies(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shared = SharedWorker(log)
    try:
        with shared.lend() as executor:
            first = run(executor, log, None, os.getpid)
        with shared.lend() as executor:
            assert run(executor, log, None, os.getpid) == first
        with pytest.raises(WorkerDied), shared.lend() as executor:
            run(executor, log, None, os.kill, first, signal.SIGKILL)
        with shared.lend() as executor:
            assert run(executor, log, None, os.getpid) not in (first, os.getpid())
    finally:
        shared.close()


def test_an_interrupt_does_not_wait_for_what_is_running(tmp_path: Path) -> None:
    shared = SharedWorker(tmp_path / "log")
    with shared.lend() as executor:
        worker = run(executor, tmp_path / "log", None, os.getpid)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), shared.lend() as executor:
        executor.submit(time.sleep, 60)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_closing_one_that_never_started_is_nothing(tmp_path: Path) -> None:
    SharedWorker(tmp_path / "log").close()
