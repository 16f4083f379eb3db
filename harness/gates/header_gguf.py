"""Will it become a GGUF file? The converter's dry run on a ghost, and what that does not check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.converter import Vocabulary, convert
from harness.checkpoints.converter_install import fetch_converter, known_classes
from harness.checkpoints.folder import (
    count_parameters,
    has_tokenizer,
    is_tied,
    read_config,
    read_weight_headers,
)
from harness.checkpoints.gguf_forecast import (
    Headers,
    Obstacle,
    dropped_tensors,
    find_obstacles,
    text_config,
)
from harness.checkpoints.gguf_remarks import remarks
from harness.checkpoints.gguf_sizes import (
    converted_bytes,
    natural_outtype,
    quantised_size,
    read_plan,
)
from harness.checkpoints.gguf_vocabulary import (
    TokenizerFiles,
    read_tokenizer,
    vocabulary_obstacles,
    vocabulary_remarks,
)
from harness.checkpoints.safetensors import shown
from harness.errors import ConversionError, ModelError, ToolMissingError
from harness.gates.context import Gate, GateContext, Tools, failing
from harness.records import Finding, HeaderFacts, Observation, Scalar

_SAFETENSORS = (
    "get a revision with safetensors: many repositories have one on refs/convert/safetensors "
    "(`hf download REPO --revision refs/convert/safetensors`), or ask "
    "https://huggingface.co/spaces/safetensors/convert"
)


class _Model(NamedTuple):
    """What is known of the candidate."""

    config: Mapping[str, Any]
    tensors: Headers
    tokenizer: TokenizerFiles | None
    """None where its files could not be had."""
    files: tuple[str, ...]


def observe(context: GateContext, tools: Tools) -> Observation:
    """Look at names and shapes, then run the converter on them for real."""
    del tools  # no weights, so nothing to load
    folder, facts = context.subject.model, context.facts
    if facts is not None and facts.weight_format == "pickle":
        return _seen([_pickled(facts)])
    try:
        model = _read(folder, facts)
    except ModelError as error:
        return _seen([_failed(error)])
    classes, mmproj = known_classes(fetch_converter(context.cache_dir))
    obstacles = find_obstacles(model.config, model.tensors, classes)
    obstacles += vocabulary_obstacles(model.config, model.tokenizer, model.files)
    if not model.tensors:
        if obstacles:
            return _seen([obstacle.finding for obstacle in obstacles])
        return Observation(
            gate="gguf",
            depth="header",
            not_run="its tensors are not known, so there is nothing to convert; give the Hub's "
            "model or a folder with its safetensors headers",
        )
    try:
        numbers, warnings = _dry_run(context, model)
    except (ConversionError, ModelError) as error:
        if isinstance(error, ConversionError) and error.machine:
            raise
        return _seen(_explained(obstacles, error))
    findings = [*_after_success(obstacles), *_unfit(folder), *_notes(model, mmproj, warnings)]
    return _seen(findings, numbers)


def _read(folder: Path, facts: HeaderFacts | None) -> _Model:
    weighty = any(folder.glob("model*.safetensors")) or (
        facts is None or facts.parts["tensors"].standing != "missing"
    )
    headers = read_weight_headers(folder) if weighty else {}
    known = facts is None or facts.parts["tokenizer"].standing != "missing"
    return _Model(
        config=read_config(folder),
        tensors={n: info for header in headers.values() for n, info in header.tensors.items()},
        tokenizer=read_tokenizer(folder) if known and has_tokenizer(folder) else None,
        files=facts.files if facts is not None else tuple(f.name for f in folder.iterdir()),
    )


def _dry_run(context: GateContext, model: _Model) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """The numbers of the file that the converter would write, and its warnings."""
    dtypes = Counter(info.dtype for info in model.tensors.values())
    outtype = natural_outtype(dtypes)
    vocabulary: Vocabulary = "none" if model.tokenizer is None else "real"
    info = convert(
        context.subject.model,
        context.work_dir / "model.gguf",
        outtype,
        cache_dir=context.cache_dir,
        timeout_s=120,
        mode="dry_run",
        vocabulary=vocabulary,
    )
    plan = read_plan(info.log)
    settings = text_config(model.config)
    experts = next(
        (n for key in ("num_local_experts", "num_experts", "n_routed_experts")
         if type(n := settings.get(key)) is int), 0,
    )  # fmt: skip
    small = quantised_size(plan, "Q4_K_M", experts=experts)
    dropped = set(dropped_tensors(model.tensors))
    kept = {name: info for name, info in model.tensors.items() if name not in dropped}
    return {
        "parameters": count_parameters(kept, model.config),
        "tensors": len(plan),
        "outtype": outtype,
        "file_gb": round(converted_bytes(plan) / 1e9, 3),
        "q8_0_gb": round(quantised_size(plan, "Q8_0", experts=experts).bytes / 1e9, 3),
        "q4_k_m_gb": round(small.bytes / 1e9, 3),
        "q4_k_m_without_fallback_gb": round(small.bytes_without_fallback / 1e9, 3),
        "kquant_fallback_share": round(small.fallback_share, 4),
        "kquant_extra_share": round(small.bytes / small.bytes_without_fallback - 1, 4),
        "tied_embeddings": is_tied(model.tensors, model.config),
        "dropped_tensors": len(dropped),
        "vocabulary_checked": model.tokenizer is not None,
        "has_chat_template": None if model.tokenizer is None else model.tokenizer.has_template,
    }, info.warnings


def _explained(obstacles: list[Obstacle], error: ConversionError | ModelError) -> list[Finding]:
    """Why the conversion failed: in our words where a cause was seen, else in the converter's."""
    findings = [obstacle.finding for obstacle in obstacles]
    culprit = error.tensor if isinstance(error, ConversionError) else None
    if culprit is None or not any(culprit in (o.culprit, *o.finding.message.split())
                                  for o in obstacles):  # fmt: skip
        findings.append(_failed(error))
    return findings


def _after_success(obstacles: list[Obstacle]) -> list[Finding]:
    """The converter went through: what it looks at itself was no obstacle."""
    return [
        Finding(severity="note", message=f"{o.finding.message}; the converter copes with that")
        if o.converter_decides
        else o.finding
        for o in obstacles
    ]


def _unfit(folder: Path) -> list[Finding]:
    """Tensors that are missing or misshapen: the converter counts none, llama.cpp refuses them."""
    try:
        from harness.engines.mlx_header import lazy_load

        seen = lazy_load(folder).mismatch
    except (ModelError, ToolMissingError):
        return []  # MLX does not know it, so it cannot tell
    wrong = [*seen.missing, *(tensor.name for tensor in seen.misshapen)]
    if not wrong:
        return []
    more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
    message = (
        f"it converts, but {shown(wrong[0])}{more} is missing or has another shape than the config "
        "says, and llama.cpp refuses such a file"
    )
    return [Finding(severity="warn", message=message, fix="mend what the load gate says")]


def _notes(model: _Model, mmproj: frozenset[str], warnings: tuple[str, ...]) -> list[Finding]:
    notes = remarks(model.config, model.tensors, model.files, mmproj_classes=mmproj)
    if model.tokenizer is not None:
        notes += vocabulary_remarks(model.config, model.tokenizer)
    else:
        message = "the vocabulary was not checked, since the tokenizer's files could not be had"
        notes.append(Finding(severity="note", message=message))
    told = [w for w in warnings if not w.startswith(("Duplicated key name", "Unknown RoPE type"))]
    return notes + [Finding(severity="note", message=f"the converter says: {w}") for w in told]


def _pickled(facts: HeaderFacts) -> Finding:
    named = next((n for n in facts.files if n.endswith((".bin", ".pt", ".pth", ".ckpt"))), None)
    what = f" ({shown(named)})" if named else ""
    return Finding(
        severity="fail",
        message=f"its weights are pickled{what}, which can run code and are never read",
        fix=_SAFETENSORS,
    )


def _failed(error: ConversionError | ModelError) -> Finding:
    """An error's sentence, with the part that says how to mend it as the fix."""
    if isinstance(error, ConversionError) and error.fix is not None:
        message = str(error).removesuffix(f"; {error.fix}")
        return Finding(severity="fail", message=message, fix=error.fix)
    return failing(str(error))


def _seen(findings: list[Finding], numbers: dict[str, Scalar] | None = None) -> Observation:
    return Observation(gate="gguf", depth="header", numbers=numbers or {}, findings=tuple(findings))


def asked(context: GateContext) -> dict[str, Any]:
    """What is known beside the ghost's own files."""
    facts = context.facts
    if facts is None:
        return {}
    return {"format": facts.weight_format, "files": facts.files,
            "standing": {part: known.standing for part, known in facts.parts.items()}}  # fmt: skip


GATE = Gate("gguf", observe, asked, depth="header")
