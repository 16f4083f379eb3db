"""How far the memory model is off: against runs measured here, and against published ones.

    python benchmarks/memory_model.py            # four Markdown tables and their summaries
    python benchmarks/memory_model.py --check    # exit code 1 where a promised limit is missed

Runs no model: the peaks are stored in `benchmarks/data`. `measure_memory.py` measured the first
ones, on the CPU; the others are what people wrote about their Macs, each with its source. Rows of
the part "fit" were looked at while the coefficients were chosen, those "held out" were not.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tabulate import tabulate

from harness.memory_model import Prediction, Settings, predict, read_architecture

DATA = Path(__file__).with_name("data")


class Row(NamedTuple):
    """One stored peak and what the model says."""

    stored: dict[str, str]
    measured_gb: float
    prediction: Prediction

    @property
    def training(self) -> bool:
        return self.stored["kind"] == "train"

    @property
    def predicted_gb(self) -> float:
        seen = self.prediction
        return seen.train_peak_gb if self.training else seen.inference_peak_gb

    @property
    def error(self) -> float:
        """Relative error of the predicted peak; positive = too high."""
        return self.predicted_gb / self.measured_gb - 1

    @property
    def covered(self) -> bool:
        return self.prediction.train_low_gb <= self.measured_gb <= self.prediction.train_high_gb


class Summary(NamedTuple):
    """What a table comes to, and what it promises."""

    title: str
    rows: Sequence[Row]
    median_limit: float
    coverage_limit: float | None

    @property
    def median_error(self) -> float:
        return median(abs(row.error) for row in self.rows)

    @property
    def coverage(self) -> float | None:
        if self.coverage_limit is None:
            return None
        return sum(row.covered for row in self.rows) / len(self.rows)

    @property
    def kept(self) -> bool:
        enough = self.coverage is None or self.coverage >= (self.coverage_limit or 0)
        return self.median_error <= self.median_limit and enough


def main() -> None:
    parser = argparse.ArgumentParser(description="Errors of the memory model.")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a limit is missed")
    arguments = parser.parse_args()
    summaries = list(all_summaries())
    print("\n\n".join(show(summary) for summary in summaries))
    if arguments.check and not all(summary.kept for summary in summaries):
        sys.exit(1)


def all_summaries() -> Iterable[Summary]:
    """The four tables, with the limits that docs/memory.md promises."""
    measured = predictions("memory_measured.csv", "memory_configs.json", "cpu")
    published = predictions("memory_published.csv", "memory_published_configs.json", "metal")
    yield Summary("Training, measured (CPU)", [r for r in measured if r.training], 0.10, 0.80)
    yield Summary("Inference, measured (CPU)", [r for r in measured if not r.training], 0.10, None)
    yield Summary("Training, published (Metal)", [r for r in published if r.training], 0.20, 0.80)
    yield Summary(
        "Inference, published (Metal)", [r for r in published if not r.training], 0.10, None
    )


def predictions(rows: str, configs: str, device: str) -> list[Row]:
    """The rows of one file with their predictions."""
    models = json.loads((DATA / configs).read_text(encoding="utf-8"))
    with (DATA / rows).open(encoding="utf-8", newline="") as lines:
        stored = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    architectures = {name: read_architecture(config) for name, config in models.items()}
    return [
        Row(
            stored=row,
            measured_gb=float(row["peak_gb"]),
            prediction=predict(architectures[row["model"]], settings_of(row, device)),
        )
        for row in stored
    ]


def settings_of(row: dict[str, str], device: str) -> Settings:
    """A stored row as settings."""
    values: dict[str, Any] = {"device": device, "bits": int(row["bits"])}
    if row["group_size"]:
        values["group_size"] = int(row["group_size"])
    if row["kind"] != "train":
        values |= {"context": int(row["context"]), "inference_batch": int(row["batch"])}
        return Settings.model_validate(values)
    values |= {
        "batch": int(row["batch"]),
        "tokens_per_batch": int(row["tokens_per_batch"]),
        "lora_layers": int(row["lora_layers"]),
        "rank": int(row["rank"]),
        "dropout": float(row.get("dropout") or 0),
        "lora_keys": tuple(row["lora_keys"].split("+")) if row["lora_keys"] else None,
        "grad_checkpoint": row["grad_checkpoint"] == "yes",
        "tokens_are": row.get("tokens_are") or "longest",
        "max_seq": int(row["max_seq"]) if row.get("max_seq") else None,
    }
    return Settings.model_validate(values)


def show(summary: Summary) -> str:
    """One table as Markdown, with a sentence that sums it up."""
    rows = [cells(row) for row in summary.rows]
    what = "training" if summary.rows[0].training else "context"
    last = "part" if "part" in summary.rows[0].stored else "assumed"
    header = ["row", "model", "bits", what, "peak GB", "predicted GB", "error"]
    header += ["interval GB", last] if summary.coverage is not None else [last]
    table = tabulate(rows, header, tablefmt="pipe", disable_numparse=True)
    sentences = [f"Median error {summary.median_error:.1%} of {len(rows)} rows"]
    for part in ("fit", "held out"):
        errors = [abs(row.error) for row in summary.rows if row.stored.get("part") == part]
        if errors:
            sentences.append(f"{part} {median(errors):.1%} of {len(errors)}")
    worst = max(summary.rows, key=lambda row: abs(row.error))
    sentences.append(f"worst {worst.error:+.1%} ({worst.stored['id']})")
    if summary.coverage is not None:
        sentences.append(f"the interval holds {summary.coverage:.0%}")
    limit = f"promised at most {summary.median_limit:.0%}"
    if summary.coverage_limit is not None:
        limit += f", and {summary.coverage_limit:.0%} within the interval"
    verdict = "kept" if summary.kept else "MISSED"
    return f"## {summary.title}\n\n{table}\n\n{'; '.join(sentences)} ({limit}: {verdict})."


def cells(row: Row) -> list[str]:
    """One row of a table."""
    stored = row.stored
    if row.training:
        average = "~" if stored.get("tokens_are") == "average" else ""
        what = (
            f"{stored['batch']} × {average}"
            f"{int(stored['tokens_per_batch']) // int(stored['batch'])} tokens, "
            f"{stored['lora_layers']} layers, rank {stored['rank']}"
        )
        if stored["lora_keys"]:
            what += ", " + stored["lora_keys"].replace("self_attn.", "").replace("+", " and ")
        if float(stored.get("dropout") or 0):
            what += f", dropout {stored['dropout']}"
        if stored["grad_checkpoint"] == "yes":
            what += ", checkpointing"
    else:
        what = f"{stored['batch']} × {stored['context']} tokens"
    found = [
        stored["id"],
        stored["model"],
        stored["bits"] + (f" (g{stored['group_size']})" if stored["group_size"] else ""),
        what,
        f"{row.measured_gb:.3f}",
        f"{row.predicted_gb:.3f}",
        f"{row.error:+.1%}",
    ]
    if row.training:
        low, high = row.prediction.train_low_gb, row.prediction.train_high_gb
        found.append(f"{low:.2f} to {high:.2f}{'' if row.covered else ' (outside)'}")
    return [*found, stored.get("part") or stored.get("assumed") or ""]


if __name__ == "__main__":
    main()
