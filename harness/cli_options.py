"""Options that several commands share, and how every command ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import HarnessError


class Format(StrEnum):
    """What goes to stdout."""

    md = "md"
    json = "json"


class DepthChoice(StrEnum):
    """How much of a candidate is looked at; `records.Depth` as an option."""

    header = "header"
    twin = "twin"
    full = "full"


class DeviceChoice(StrEnum):
    """Whose allocator `harness memory` predicts."""

    auto = "auto"
    metal = "metal"
    cpu = "cpu"


FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="What to print on stdout; both files are written.")
]
OutputOption = Annotated[
    Path, typer.Option("--output-dir", "-o", help="Where reports and their evidence are written.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", "-n", min=1, help="Ask only this many probes of each suite."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Chooses the probes that --limit keeps.")]
RegistryOption = Annotated[
    Path | None, typer.Option("--registry", help="Another model_registry.yaml.")
]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="Thresholds that differ from the shipped policy.")
]
ProbesOption = Annotated[
    Path | None, typer.Option("--probes", help="A folder of your own probe suites (*.jsonl).")
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch a Hub model's weights if they are not here yet.")
]


@contextmanager
def errors() -> Iterator[None]:
    """Every deliberate error is one sentence on stderr and its exit code."""
    try:
        yield
    except HarnessError as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo(
            "\nInterrupted; nothing is lost. The same command goes on where it stopped.", err=True
        )
        raise typer.Exit(130) from None
