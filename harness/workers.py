"""Worker processes behind `concurrent.futures.Executor`, which any cluster can stand in for."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from harness import worker
from harness.errors import WorkerDied
from harness.machine import worker_environment

P = ParamSpec("P")
T = TypeVar("T")

LOG_TAIL_CHARS = 2000
POLL_S = 0.25


@contextlib.contextmanager
def local_worker(log: Path, *, computes: bool = True) -> Iterator[Executor]:
    """One fresh worker process; its model stays loaded until the block ends.

    Args:
        computes: False spares a process that evaluates nothing the preloaded BLAS.

    Raises:
        WorkerDied: the process cannot even start.
    """
    pool = ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=worker.start,
        initargs=(log,),
    )
    try:
        with _environment(worker_environment() if computes else {}), _no_interrupt():
            pool.submit(worker.ready)
        run(pool, log, None, worker.ready)
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


class SharedWorker:
    """One process that several borrow in turn: started when first asked for, afresh after a crash.

    For work that holds no weights; what a subject leaves behind is nothing to the next.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._open: tuple[contextlib.ExitStack, Executor] | None = None

    @contextlib.contextmanager
    def lend(self) -> Iterator[Executor]:
        """The process; whatever goes wrong while it is lent ends it.

        Raises:
            WorkerDied: it cannot even start.
        """
        if self._open is None:
            stack = contextlib.ExitStack()
            self._open = stack, stack.enter_context(local_worker(self._log, computes=False))
        stack, executor = self._open
        try:
            yield executor
        except BaseException:
            self._open = None
            # With the exception, so that a Ctrl-C does not wait for what is running.
            with contextlib.suppress(BaseException):
                stack.__exit__(*sys.exc_info())
            raise

    def close(self) -> None:
        """End the process, if one was started."""
        opened, self._open = self._open, None
        if opened is not None:
            opened[0].close()


def run(
    executor: Executor,
    log: Path,
    tick: Callable[[], None] | None,
    task: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `task` in the worker, calling `tick` while it works.

    Raises:
        WorkerDied: the process was killed or crashed; carries the end of its log.
        Whatever the task raised.
    """
    try:
        future: Future[T] = executor.submit(task, *args, **kwargs)
        while not future.done():
            wait([future], timeout=POLL_S)
            if tick is not None:
                tick()
        return future.result()
    except BrokenProcessPool as error:
        tail = _tail(log)
        raise WorkerDied(
            "The worker process died (killed, out of memory, or a crash in native code)."
            + (f" Its last words: {tail.splitlines()[-1][:200]}" if tail.strip() else ""),
            tail,
        ) from error


@contextlib.contextmanager
def _environment(additions: Mapping[str, str]) -> Iterator[None]:
    """The variables a child process starts with; ours are put back at once."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in additions}
    os.environ.update(additions)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits while a child starts, which inherits that and never sees it.

    Without this a Ctrl-C while the child still imports would end in its traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-LOG_TAIL_CHARS:]
    except OSError:
        return ""
