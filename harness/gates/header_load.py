"""Would it load in MLX? mlx-lm's strict lazy load on headers, without a single weight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.checkpoints.chat_template import find_template
from harness.checkpoints.folder import (
    ModelFolder,
    check_model_folder,
    has_tokenizer,
    read_config,
    read_weight_headers,
)
from harness.checkpoints.load_failures import explain_mismatch
from harness.checkpoints.safetensors import DTYPE_BITS, shown
from harness.errors import ModelError
from harness.gates.context import Gate, GateContext, Tools, failing
from harness.records import Finding, HeaderFacts, Known, Observation, Scalar

DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "U32": "packed"}


def observe(context: GateContext, _: Tools) -> Observation:
    """Check files and format, then load strictly and lazily; tensors at fault are named."""
    folder, facts = context.subject.model, _facts(context)
    tensors = facts.parts["tensors"]
    if facts.origin != "folder" and tensors.standing == "missing":
        if facts.origin == "hub" and tensors.note:
            refused = _broken(folder, ModelError(tensors.note))
            return Observation(gate="load", depth="header", findings=(refused,))
        if facts.weight_format != "pickle":
            name = context.subject.label
            reason = f"the tensors of {name} are not known here"
            fix = f"vet it where the Hub can be reached, or run: harness snapshot {name}"
            return Observation(gate="load", depth="header", not_run=f"{reason}; {fix}")
    if facts.parts["weights"].standing == "missing" and facts.origin == "folder":
        reason = "the folder holds no weights, nor headers of any"
        fix = "put its safetensors files beside config.json; sparse ones with real headers will do"
        return Observation(gate="load", depth="header", not_run=f"{reason}; {fix}")
    numbers: dict[str, Scalar] = {
        "weight_format": facts.weight_format,
        **{f"{part}_standing": known.standing for part, known in facts.parts.items()},
        "has_tokenizer": has_tokenizer(folder),
    }
    findings: list[Finding] = []
    by_format = _format_findings(facts, context)
    try:
        checked = check_model_folder(folder, tokenizer=False)
        numbers |= _folder_numbers(folder, checked)
        findings += _load(folder, numbers)
        findings += [Finding(severity="note", message=note) for note in checked.notes]
    except ModelError as error:
        # Without weights that can be read there is nothing else to say.
        if not by_format:
            findings.append(_broken(folder, error))
    return Observation(
        gate="load", depth="header", numbers=numbers, findings=(*findings, *by_format)
    )


def _facts(context: GateContext) -> HeaderFacts:
    """What is known; a folder named by the user speaks for itself."""
    if context.facts is not None:
        return context.facts
    read = Known(standing="read", source="the folder's own files")
    parts = ("config", "tensors", "tokenizer", "weights")
    return HeaderFacts(
        origin="folder", parts=dict.fromkeys(parts, read), weight_format="safetensors"
    )


def _format_findings(facts: HeaderFacts, context: GateContext) -> list[Finding]:
    """What the repository's file list says: weights that mlx-lm would not even find."""
    if facts.weight_format == "pickle":
        pickles = [n for n in facts.files if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        named = f" ({shown(pickles[0])})" if pickles else ""
        message = (
            f"its weights are only pickled{named}, which can run code when they are loaded, so "
            "neither mlx-lm nor this harness reads them"
        )
        return [Finding(severity="fail", message=message, fix=_to_safetensors(context))]
    top = [n for n in facts.files if n.endswith(".safetensors") and "/" not in n]
    if top and not any(name.startswith("model") for name in top):
        first = shown(top[0])
        message = (
            f"its weights are called {first}, but mlx-lm loads only files called model*.safetensors"
        )
        fix = f"download it, rename the file (mv {first} model.safetensors) and vet the folder"
        return [Finding(severity="fail", message=message, fix=fix)]
    return []


def _to_safetensors(context: GateContext) -> str:
    copy = f"{context.subject.label}-safetensors"
    return (
        'convert it on a machine you trust: `python -c "from transformers import '
        f"AutoModelForCausalLM as M; M.from_pretrained('{context.mlx_name}')"
        f".save_pretrained('{copy}')\"`, then `harness vet --model-dir {copy}`; or name a "
        "repository that has safetensors"
    )


def _folder_numbers(folder: Path, checked: ModelFolder) -> dict[str, Scalar]:
    headers = read_weight_headers(folder).values()
    tensors = [info for header in headers for info in header.tensors.values()]
    elements: Counter[str] = Counter()
    for info in tensors:
        elements[info.dtype] += info.elements
    # The dtype that most of the bytes have, however many small tensors have another.
    most = max(elements, key=lambda dtype: elements[dtype] * DTYPE_BITS[dtype])
    stored = sum(info.end - info.begin for info in tensors)
    return {
        "parameters": checked.parameters,
        "tensors": len(tensors),
        "weights_gb": round(stored / 1e9, 4),
        "dtype": DTYPE_NAMES.get(most, most),
        "model_type": shown(checked.model_type, 80),
        "quantised": checked.quantised,
        "tied_embeddings": checked.tied_embeddings,
        "has_chat_template": find_template(folder) is not None if has_tokenizer(folder) else None,
    }


def _load(folder: Path, numbers: dict[str, Scalar]) -> list[Finding]:
    from harness.engines.mlx_header import lazy_load

    loaded = lazy_load(folder)
    numbers |= {
        "loaded_parameters": loaded.parameters,
        "dropped_parameters": loaded.dropped_parameters,
        "dropped_tensors": len(loaded.dropped),
        "missing_tensors": len(loaded.mismatch.missing),
        "unexpected_tensors": len(loaded.mismatch.unexpected),
        "misshapen_tensors": len(loaded.mismatch.misshapen),
    }
    if any(loaded.mismatch):
        explained = explain_mismatch(loaded.mismatch, read_config(folder))
        return [Finding(severity="fail", message=explained.message, fix=explained.fix)]
    if numbers["quantised"] and not loaded.dropped_parameters:
        # mlx-lm takes the bits from the shapes, whatever config.json says of them.
        numbers["parameters"] = loaded.parameters
    if not loaded.dropped:
        return []
    kinds = Counter(name.split(".")[0] for name in loaded.dropped)
    told = ", ".join(f"{shown(kind, 40)} ({n} tensors)" for kind, n in kinds.most_common(3))
    message = f"mlx-lm leaves out what it has no use for: {told}"
    return [Finding(severity="note", message=message)]


def _broken(folder: Path, error: ModelError) -> Finding:
    """An error of the folder or of mlx-lm."""
    return failing(str(error).replace(str(folder), folder.name))


def asked(context: GateContext) -> dict[str, Any]:
    """What decides the observation beside the folder: what is known, and how well.

    Not the notes: they say why the Hub was not reached, which changes from run to run.
    """
    facts = _facts(context)
    return {
        "origin": facts.origin,
        "standings": {part: known.standing for part, known in facts.parts.items()},
        "refusal": facts.parts["tensors"].note if facts.origin == "hub" else "",
        "weight_format": facts.weight_format,
        "files": facts.files,
    }


GATE = Gate("load", observe, asked, depth="header")
