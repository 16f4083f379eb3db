"""Progress on stderr, and only where a person is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

Tick = Callable[[], None]


class Steps:
    """A line per step; a bar where the step counts answers. Plain lines when stderr is piped."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.console.print(text, highlight=False, markup=False)

    def step(self, text: str, total: int | None = None) -> None:
        """Begin a step; the one before is finished."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=total)
        if not self._live:
            self.say(text)

    def answers_in(self, path: Path) -> Tick:
        """A tick that counts the answers stored in an evidence file.

        The worker writes, the orchestrator reads: progress needs no other channel, and shows
        what a resumed run would keep.
        """

        def tick() -> None:
            if self._live and self._task is not None and path.exists():
                with path.open("rb") as stream:
                    lines = sum(1 for _ in stream)
                self._progress.update(self._task, completed=max(0, lines - 1))

        return tick
