"""The command line: parse, call, print, exit with the verdict."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness import __version__
from harness.cli_options import (
    DepthChoice,
    DownloadOption,
    Format,
    FormatOption,
    LimitOption,
    OutputOption,
    PolicyOption,
    ProbesOption,
    RegistryOption,
    SeedOption,
    errors,
)
from harness.cli_tools import tools
from harness.records import Report, Status

if TYPE_CHECKING:
    from harness.commands import Common

app = typer.Typer(
    name="harness",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: one "Error:" sentence, and help that any width can quote
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Vet small language models before fine-tuning them with MLX, and learn after training "
        "whether an adapter broke them.\n\n"
        "Start with 'harness demo': a real 135M model, every gate, a good and a bad adapter.\n\n"
        "Exit codes: 0 pass (warnings included), 1 fail, 2 wrong usage, 3 inconclusive or not "
        "run, 4 operational error."
    ),
)


app.add_typer(tools)
REPORTS = Path("reports")


@app.command()
def demo(
    output_format: FormatOption = Format.md,
    output_dir: OutputOption = REPORTS,
    limit: LimitOption = None,
    seed: SeedOption = 0,
) -> None:
    """Vet the embedded model, then compare a gentle and a destructive adapter with it.

    Takes a few minutes on two cores and needs no account, no Hub and no GPU. Ends with exit
    code 0 when the gentle adapter is not failed and the destructive one is.

    Example: harness demo --limit 20
    """
    with errors():
        from harness.commands import run_demo

        report = run_demo(_common(output_dir, limit, seed), sys.argv[1:])
        _print([report], output_format, output_dir)
        gentle, destructive = (c.verdict for c in report.comparisons)
        seen = {g.status for c in report.candidates for g in c.gates} | {gentle, destructive}
        if Status.ERROR in seen:
            raise typer.Exit(4)
        if seen & {Status.NOT_RUN, Status.INCONCLUSIVE}:
            raise typer.Exit(3)
        shown = gentle in (Status.PASS, Status.WARN) and destructive is Status.FAIL
        raise typer.Exit(0 if shown else 1)


@app.command()
def vet(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Registry names or model folders; none means the whole registry."),
    ] = None,
    depth: Annotated[
        DepthChoice | None,
        typer.Option(
            help="header: config, tokenizer and tensor headers, no weights; twin: also a miniature "
            "of it through training, fusing and GGUF; full: the real weights. "
            "[default: full, header with --model-dir]",
            show_default=False,
        ),
    ] = None,
    model_dir: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-dir",
            help="A folder with a config.json and safetensors headers (sparse files will do), "
            "looked at without its weights; may be given repeatedly.",
        ),
    ] = None,
    registry: RegistryOption = None,
    download: DownloadOption = False,
    probes: ProbesOption = None,
    policy: PolicyOption = None,
    output_format: FormatOption = Format.md,
    output_dir: OutputOption = REPORTS,
    limit: LimitOption = None,
    seed: SeedOption = 0,
) -> None:
    """Vet base models, before the download (--depth header, twin) or with their weights (full).

    header asks from a few hundred kilobytes, or offline from stored snapshots: does it load in
    MLX, does training it fit, will it convert to GGUF, is its tokenizer the same there?

    twin also takes a miniature with random weights through LoRA, fusing, GGUF and llama.cpp.

    full takes the real weights: measured memory, the real GGUF, greetings and facts.

    Example: harness vet --depth header

    Example: harness vet llama-3.2-3b-instruct --depth twin

    Example: harness vet smollm2-135m-instruct --limit 20
    """
    with errors():
        from harness.commands import run_vet

        level = depth or (DepthChoice.header if model_dir else DepthChoice.full)
        common = _common(output_dir, limit, seed, registry, policy, probes, download)
        finished = run_vet(common, names or [], model_dir or [], level.value, sys.argv[1:])
        _deliver(finished, output_format, output_dir)


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="A registry name or a model folder.")],
    adapter: Annotated[
        list[Path],
        typer.Option("--adapter", "-a", help="Adapter folder of mlx-lm; may be given repeatedly."),
    ],
    gguf: Annotated[
        bool,
        typer.Option("--gguf", help="Also fuse, convert to GGUF and check what llama.cpp runs."),
    ] = False,
    train_data: Annotated[
        Path | None,
        typer.Option(
            "--train-data",
            help="The folder the adapter was trained on (train.jsonl): shows what is copied "
            "from it. The data itself is not stored.",
        ),
    ] = None,
    registry: RegistryOption = None,
    download: DownloadOption = False,
    probes: ProbesOption = None,
    policy: PolicyOption = None,
    output_format: FormatOption = Format.md,
    output_dir: OutputOption = REPORTS,
    limit: LimitOption = None,
    seed: SeedOption = 0,
) -> None:
    """What did the adapter lose? Before against after; the exit code is the verdict.

    Example: harness compare smollm2-135m-instruct --adapter examples/adapters/gentle
    """
    with errors():
        from harness.commands import run_compare

        common = _common(output_dir, limit, seed, registry, policy, probes, download)
        finished = run_compare(common, base, adapter, gguf, train_data, sys.argv[1:])
        _deliver(finished, output_format, output_dir)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Run names, or paths of their reports.")],
    policy: PolicyOption = None,
    output_format: FormatOption = Format.md,
    output_dir: OutputOption = REPORTS,
) -> None:
    """Rebuild a report from stored evidence; needs no model.

    Example: harness report compare-smollm2-135m-instruct-gentle-0f3a9c21 --policy strict.yaml

    Several runs as JSON are one list.
    With --policy the same evidence is judged by other thresholds. The exit code is the verdict.
    """
    with errors():
        from harness.commands import rebuild_report
        from harness.report import overall
        from harness.verdict import exit_code_of

        rebuilt = [rebuild_report(name, output_dir, policy) for name in runs]
        _print(rebuilt, output_format, output_dir)
        raise typer.Exit(exit_code_of([overall(r)[0] for r in rebuilt]))


@app.command()
def doctor(
    output_format: FormatOption = Format.md,
    output_dir: OutputOption = REPORTS,
) -> None:
    """What this machine can do, what it costs where something is missing, and how to mend it.

    Example: harness doctor --format json
    """
    with errors():
        from harness.commands import print_doctor

        raise typer.Exit(print_doctor(output_format == Format.json, output_dir))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if show:
        typer.echo(f"harness {__version__}")
        raise typer.Exit(0)


def main() -> None:
    """Entry point of the `harness` command; a bug of the harness is exit 4, never a verdict."""
    try:
        app()
    except Exception:  # noqa: BLE001 - Python's own exit code for a crash, 1, means FAIL here
        traceback.print_exc()
        sys.exit(4)


def _common(
    output_dir: Path,
    limit: int | None,
    seed: int,
    registry: Path | None = None,
    policy: Path | None = None,
    probes: Path | None = None,
    download: bool = False,
) -> Common:
    from harness.commands import Common

    return Common(output_dir, limit, seed, registry, policy, probes, download)


def _deliver(finished: Report, output_format: Format, output_dir: Path) -> NoReturn:
    from harness.report import overall

    _print([finished], output_format, output_dir)
    raise typer.Exit(overall(finished)[1])


def _print(finished: Sequence[Report], output_format: Format, output_dir: Path) -> None:
    """Write both files of every report; on stdout Markdown, or one JSON value."""
    from harness.report import to_json, to_markdown, write_report

    for one in finished:
        markdown, json_file = write_report(one, output_dir)
        typer.echo(f"Written: {markdown} and {json_file.name}", err=True)
    if output_format is Format.md:
        text = "\n".join(to_markdown(one) for one in finished)
    elif len(finished) == 1:
        text = to_json(finished[0])
    else:
        text = "[\n" + ",\n".join(to_json(one).rstrip("\n") for one in finished) + "\n]"
    typer.echo(text.rstrip("\n"))
