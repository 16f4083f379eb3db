"""The command line: parse, call, print, exit with the verdict."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness import __version__
from harness.errors import HarnessError
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
    with _errors():
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
    with _errors():
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
    with _errors():
        from harness.commands import run_compare

        common = _common(output_dir, limit, seed, registry, policy, probes, download)
        _deliver(run_compare(common, base, adapter, gguf, sys.argv[1:]), output_format, output_dir)


@app.command()
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
        DeviceChoice, typer.Option(help="Where it would run; auto: this machine.")
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
    with _errors():
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


@app.command()
def snapshot(
    names: Annotated[list[str], typer.Argument(help="Registry names.")],
    registry: RegistryOption = None,
) -> None:
    """Store what is known of a candidate without its weights, so that vetting works offline.

    Reads config, tokenizer hashes, file list and tensor headers from this machine or the Hub (a few
    hundred kilobytes) and writes them to snapshots/NAME.json beside the registry.

    Example: harness snapshot llama-3.2-3b-instruct
    """
    with _errors():
        from harness.commands import store_snapshot

        for name in names:
            typer.echo(f"Written: {store_snapshot(name, registry)}", err=True)


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
    with _errors():
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
    with _errors():
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


@contextmanager
def _errors() -> Iterator[None]:
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
