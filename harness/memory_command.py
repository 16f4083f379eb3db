"""`harness memory`: what a model takes under given settings, as JSON and for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from tabulate import tabulate

from harness.errors import UsageError
from harness.escape import cell
from harness.machine import working_set_gb
from harness.memory_model import (
    Architecture,
    Fit,
    Prediction,
    Settings,
    largest_that_fits,
    lora_command,
    predict,
    read_architecture,
)
from harness.memory_model.settings import Device
from harness.memory_model.weights import packing

MAC_GB = 16.0
"""The Mac that a report judges against, where there is no Metal to ask."""
TRAINED_ON_A_CPU = 500_000_000
"""Parameters from which nobody trains without a GPU: asked about such a model on a machine without
Metal, `auto` means the Mac that it is for."""
DIGITS = 4


def make_settings(device: Device = "auto", **values: Any) -> Settings:
    """Settings as typed on the command line; a None counts as not typed.

    Raises:
        UsageError: a value that cannot be.
    """
    typed = {name: value for name, value in values.items() if value is not None}
    try:
        return Settings.model_validate({**typed, "device": device})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        raise UsageError(f"--{option} is {first['input']!r}: {first['msg'].lower()}.") from error


def memory_report(
    config: Mapping[str, Any], settings: Settings, *, name: str, model: str | None = None
) -> dict[str, Any]:
    """What the model takes, whether that fits, and the largest setting that does; JSON-able.

    `name` is what the report calls it, `model` what mlx-lm would (a folder or a Hub repository).

    Raises:
        ModelError: the config is nonsense, or of an architecture that is not modelled.
    """
    architecture = read_architecture(config)
    settings = _as_stored(architecture, _on_a_device(architecture, settings))
    prediction = predict(architecture, settings)
    low, high = working_set_gb(MAC_GB)
    wanted = settings.model_copy(update={"device": "metal"})
    on_mac = predict(architecture, wanted)
    fit = largest_that_fits(architecture, wanted, low)
    return {
        "name": name,
        "family": architecture.family,
        "parameters": prediction.parameters,
        "trainable_parameters": prediction.trainable_parameters,
        "bits": prediction.bits,
        "layers": len(architecture.layers),
        "lora_layers": prediction.lora_layers,
        "settings": settings.model_dump(mode="json"),
        "weights_gb": round(prediction.weights_gb, DIGITS),
        "inference_peak_gb": round(prediction.inference_peak_gb, DIGITS),
        "inference_breakdown_gb": _rounded(
            prediction.inference_breakdown_gb, prediction.inference_peak_gb
        ),
        "train_peak_gb": round(prediction.train_peak_gb, DIGITS),
        "train_low_gb": round(prediction.train_low_gb, DIGITS),
        "train_high_gb": round(prediction.train_high_gb, DIGITS),
        "breakdown_gb": _rounded(prediction.breakdown_gb, prediction.train_peak_gb),
        "metal": {
            "inference_peak_gb": round(on_mac.inference_peak_gb, DIGITS),
            "train_peak_gb": round(on_mac.train_peak_gb, DIGITS),
            "train_low_gb": round(on_mac.train_low_gb, DIGITS),
            "train_high_gb": round(on_mac.train_high_gb, DIGITS),
        },
        "working_set_low_gb": low,
        "working_set_high_gb": high,
        "verdict": _verdict(on_mac, low, high),
        "fit": _fit(architecture, fit, wanted, model or name),
    }


def _on_a_device(architecture: Architecture, settings: Settings) -> Settings:
    """`settings` with a device: where there is no Metal, only small models run on the CPU."""
    if settings.device != "auto":
        return settings
    here = sys.platform != "darwin" and architecture.parameters < TRAINED_ON_A_CPU
    return settings.model_copy(update={"device": "cpu" if here else "metal"})


def _as_stored(architecture: Architecture, settings: Settings) -> Settings:
    """`settings` without bits where they are those of the file, so that nothing is converted."""
    stored = packing(architecture, Settings())
    same = (
        settings.bits == architecture.stored_bits
        if stored is None
        else (settings.bits, settings.group_size) == (stored.bits, stored.group_size)
    )
    return settings.model_copy(update={"bits": None}) if same else settings


def _rounded(parts: Mapping[str, float], total: float) -> dict[str, float]:
    """Parts rounded so that they still add up to the rounded total: the largest takes the rest."""
    rounded = {name: round(size, DIGITS) for name, size in parts.items()}
    largest = max(rounded, key=lambda name: rounded[name])
    others = sum(size for name, size in rounded.items() if name != largest)
    rounded[largest] = round(round(total, DIGITS) - others, DIGITS)
    return rounded


def _verdict(seen: Prediction, low: float, high: float) -> str:
    worst = max(seen.train_peak_gb, seen.inference_peak_gb)
    if worst > high:
        return "does not fit"
    if worst > low:
        return "fits recent Macs only"
    return "may not fit" if seen.train_high_gb > low else "fits"


def _fit(
    architecture: Architecture, fit: Fit | None, wanted: Settings, model: str
) -> dict[str, Any] | None:
    if fit is None:
        return None
    layers = min(fit.settings.lora_layers, len(architecture.layers))
    settings = fit.settings.model_copy(update={"lora_layers": layers})
    return {
        "given_up": list(fit.given_up),
        "bits": fit.prediction.bits,
        "batch": settings.batch,
        "tokens_per_batch": settings.padded_tokens,
        "lora_layers": fit.prediction.lora_layers,
        "grad_checkpoint": settings.grad_checkpoint,
        "train_peak_gb": round(fit.prediction.train_peak_gb, DIGITS),
        "train_high_gb": round(fit.prediction.train_high_gb, DIGITS),
        "command": lora_command(model, settings, "adapters", wanted=wanted),
    }


def memory_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: peaks, parts, the verdict and the command."""
    settings = report["settings"]
    training, answering = report["breakdown_gb"], report["inference_breakdown_gb"]
    names = list(dict.fromkeys([*training, *answering]))
    rows = [[part, _gb(training.get(part)), _gb(answering.get(part))] for part in names]
    rows.append(["**peak**", _gb(report["train_peak_gb"]), _gb(report["inference_peak_gb"])])
    table = tabulate(
        rows, ["GB", "training", "inference"], tablefmt="pipe", disable_numparse=True,
        colalign=("left", "right", "right"),
    )  # fmt: skip
    tokens = f"{settings['tokens_per_batch']} tokens in the longest batch of {settings['batch']}"
    if settings["tokens_are"] == "average":
        tokens = f"{settings['tokens_per_batch']} tokens in an average batch of {settings['batch']}"
    checkpointing = ", gradient checkpointing" if settings["grad_checkpoint"] else ""
    lines = [
        f"# Memory of {cell(report['name'])}",
        "",
        f"{cell(report['family'])}, {report['parameters']:,} parameters, {report['bits']} bits, "
        f"on {'Metal' if settings['device'] == 'metal' else 'the CPU'}. Training: {tokens}, "
        f"{report['lora_layers']} of {report['layers']} layers, rank {settings['rank']}"
        f"{checkpointing}, {report['trainable_parameters']:,} parameters in the adapter. "
        f"Inference: {settings['context']} tokens.",
        "",
        table,
        "",
        f"Four of five real training runs should peak between {_gb(report['train_low_gb'])} and "
        f"{_gb(report['train_high_gb'])} GB.",
        "",
        *_advice(report),
    ]
    return "\n".join(lines) + "\n"


def _advice(report: Mapping[str, Any]) -> list[str]:
    low, high = report["working_set_low_gb"], report["working_set_high_gb"]
    whose = (
        f"Metal's working set of {low:.2f} GB"
        if low == high
        else f"the {low:.2f} to {high:.2f} GB that Metal lends on a {MAC_GB:g} GB Mac"
    )
    lines = [f"**Against {whose}: {report['verdict']}.**"]
    fit = report["fit"]
    if fit is None:
        return [*lines, "", "No setting that is worth training fits: choose a smaller model."]
    if fit["given_up"]:
        lines += [
            "",
            f"What fits for sure: {', '.join(fit['given_up'])}. Then training peaks at about "
            f"{fit['train_peak_gb']:.2f} GB (at most {fit['train_high_gb']:.2f}).",
        ]
    return [*lines, "", "```sh", fit["command"].replace(" && ", "\n"), "```"]


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size:.2f}"
