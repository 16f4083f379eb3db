"""The commands that answer one question without a report: memory, snapshot, grade."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import DeviceChoice, Format, RegistryOption, errors

tools = typer.Typer()


class Lines(StrEnum):
    """What `grade` prints."""

    md = "md"
    jsonl = "jsonl"


@tools.command()
def memory(
    model: Annotated[
        str, typer.Argument(help="A registry name, or a folder with nothing but a config.json.")
    ],
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of the weights: 32, 16, 8 or 4. [default: as stored]"),
    ] = None,
    lora_layers: Annotated[
        int, typer.Option(help="Layers with an adapter, counted from the top; -1 for all.")
    ] = 12,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 6,
    dropout: Annotated[float, typer.Option(help="LoRA dropout; above 0 it costs memory.")] = 0.0,
    batch: Annotated[int, typer.Option(help="Examples in a batch.")] = 1,
    tokens_per_batch: Annotated[
        int, typer.Option(help="Padded tokens of the longest batch, which sets the peak.")
    ] = 1024,
    max_seq: Annotated[
        int | None,
        typer.Option(help="Longest example; longer ones are cut. Widens the interval up to it."),
    ] = None,
    grad_checkpoint: Annotated[
        bool, typer.Option("--grad-checkpoint", help="Recompute activations: slower, smaller.")
    ] = False,
    context: Annotated[int, typer.Option(help="Tokens of prompt and reply in inference.")] = 2048,
    device: Annotated[
        DeviceChoice,
        typer.Option(help="Where it would run; auto: Metal, or, without one, the CPU below 0.5 B."),
    ] = DeviceChoice.auto,
    registry: RegistryOption = None,
    output_format: Annotated[
        Format, typer.Option("--format", "-f", help="What to print on stdout.")
    ] = Format.md,
) -> None:
    """Predict peak memory of inference and LoRA training from the config alone, in no time.

    Says whether it fits a 16 GB Mac and, if not, the largest setting that does with its command.
    The formulas and their measured errors are in docs/memory.md.

    Example: harness memory llama-3.2-3b-instruct --bits 4 --tokens-per-batch 2048
    """
    with errors():
        from harness.commands import predict_memory
        from harness.memory_command import memory_markdown

        seen = predict_memory(
            model,
            registry,
            device.value,
            bits=bits,
            lora_layers=lora_layers,
            rank=rank,
            dropout=dropout,
            batch=batch,
            tokens_per_batch=tokens_per_batch,
            max_seq=max_seq,
            grad_checkpoint=grad_checkpoint,
            context=context,
        )
        as_json = output_format is Format.json
        typer.echo(json.dumps(seen, indent=2) if as_json else memory_markdown(seen).rstrip("\n"))


@tools.command()
def snapshot(
    names: Annotated[list[str], typer.Argument(help="Registry names.")],
    registry: RegistryOption = None,
) -> None:
    """Store what is known of a candidate without its weights, so that vetting works offline.

    Reads config, tokenizer hashes, file list and tensor headers from this machine or the Hub (a few
    hundred kilobytes) and writes them to snapshots/NAME.json beside the registry.

    Example: harness snapshot llama-3.2-3b-instruct
    """
    with errors():
        from harness.commands import store_snapshot

        for name in names:
            typer.echo(f"Written: {store_snapshot(name, registry)}", err=True)


@tools.command()
def grade(
    cases: Annotated[
        Path,
        typer.Option("--cases", help="A JSONL file of rows with question, gold and answer."),
    ],
    output_format: Annotated[
        Lines,
        typer.Option("--format", "-f", help="md: a summary; jsonl: each row with its grade."),
    ] = Lines.md,
) -> None:
    """Grade answers that were given elsewhere, so that the grader can be measured on anything.

    A row is {"question": …, "gold": …, "answer": …}; gold is one right answer or a list of them, of
    which one will do. Other keys are kept. Each row gains `outcome` (right, wrong, no_answer) and
    `reason`.

    Example: harness grade --cases answers.jsonl --format jsonl
    """
    with errors():
        from harness.grade_command import grade_rows, grades_markdown

        graded = grade_rows(cases)
        if output_format is Lines.md:
            typer.echo(grades_markdown(list(graded)).rstrip("\n"))
            return
        for row in graded:
            typer.echo(json.dumps(row, ensure_ascii=False))
