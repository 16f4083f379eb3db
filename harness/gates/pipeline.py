"""Does a miniature of it go through the whole pipeline: load, LoRA, fuse, GGUF, llama.cpp?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.checkpoints.folder import is_packed, read_config, read_weight_headers
from harness.checkpoints.safetensors import shown
from harness.errors import ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.records import Finding, Observation, Scalar
from harness.twins.build import TEXT_TOKENS
from harness.twins.pipeline import REFUSED, Settings, examine
from harness.twins.shrink import shrink

SHOWN_NAMES = 3
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Ends of names that some checkpoints hold and no runtime reads."""
_TOWERS = ("vision", "multi_modal_projector", "audio")
"""Parts that neither MLX's language models nor the GGUF file of the text model hold."""


def observe(context: GateContext, tools: Tools) -> Observation:  # noqa: ARG001
    """Shrink the candidate's config.json, and run everything on what comes of it."""
    folder = context.subject.model
    try:
        config = read_config(folder)
        miniature = shrink(config)
    except ModelError as error:
        finding = Finding(severity="fail", message=str(error), fix="choose another base model")
        return Observation(gate="pipeline", depth="twin", findings=(finding,))
    settings = Settings(context.cache_dir, context.training, context.seed)
    seen = examine(miniature, context.work_dir, settings)
    findings = list(seen.findings)
    if seen.folder is not None:
        findings += _faithful(folder, seen.folder, config)
    findings += _requantised(seen.numbers)
    return Observation(
        gate="pipeline", depth="twin", numbers=seen.numbers, findings=tuple(findings)
    )


def asked(context: GateContext) -> dict[str, Any]:
    """What the miniature is trained with and asked."""
    return {
        "seed": context.seed,
        "rank": context.training.rank,
        "scale": context.training.scale,
        "texts": list(TEXT_TOKENS),
    }


def _requantised(numbers: dict[str, Scalar]) -> list[Finding]:
    """What becomes of an adapter that is fused into 4 bits without --dequantize."""
    kept, tensor = numbers.get("requantised_adapter_kept"), numbers.get(REFUSED)
    if not isinstance(kept, float):
        return []
    message = (
        f"fused into a 4-bit base without --dequantize, {100 * kept:.0f} % of the adapter's "
        "effect is left (mlx-lm pull request 1564)"
    )
    if isinstance(tensor, str):
        message += f", and the GGUF converter refuses the result for its tensor {shown(tensor)}"
    return [Finding(severity="note", message=message, fix="fuse with `mlx_lm.fuse --dequantize`")]


def _faithful(folder: Path, twin: Path, config: dict[str, Any]) -> list[Finding]:
    """A twin whose tensors have other names than the candidate's stands for another model."""
    try:
        ours = _names(folder)
    except ModelError as error:
        message = f"the miniature's tensor names could not be held against the model's: {error}"
        return [Finding(severity="note", message=message)]
    theirs = _names(twin)
    if config.get("tie_word_embeddings") or "lm_head.weight" not in theirs:
        ours.discard("lm_head.weight")
        theirs.discard("lm_head.weight")
    missing, extra = sorted(ours - theirs), sorted(theirs - ours)
    if not missing and not extra:
        return []
    parts = []
    if missing:
        parts.append(f"the model has {_some(missing)}, which the miniature lacks")
    if extra:
        parts.append(f"the miniature has {_some(extra)}, which the model lacks")
    message = f"the miniature is not faithful: {'; '.join(parts)}"
    return [Finding(severity="warn", message=message, fix="vet the candidate at depth full")]


def _names(folder: Path) -> set[str]:
    """Tensor names without layer and expert numbers, quantised ones as before quantising."""
    headers = read_weight_headers(folder)
    tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
    packed = {name.removesuffix(".weight") for name in tensors if is_packed(name, tensors)}
    return {
        _NUMBER.sub("N", name)
        for name in tensors
        if not name.endswith(_BUFFERS)
        and not any(tower in name for tower in _TOWERS)
        and not (name.endswith((".scales", ".biases")) and name.rpartition(".")[0] in packed)
    }


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN_NAMES} more" if len(listed) > SHOWN_NAMES else ""
    return ", ".join(shown(name) for name in listed[:SHOWN_NAMES]) + more


GATE = Gate("pipeline", observe, asked, own_process=True, depth="twin")
