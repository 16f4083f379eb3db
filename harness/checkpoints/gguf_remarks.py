"""What does not stop a model on its way to GGUF, but is worth knowing. Pure.

Told from config, tensor headers and file names, like `gguf_forecast`, which tells what stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from harness.checkpoints.gguf_forecast import (
    DROP_SETTINGS,
    Headers,
    dropped_tensors,
    output_of,
    packing_of,
    text_config,
)
from harness.checkpoints.safetensors import shown
from harness.records import Finding


def remarks(
    config: Mapping[str, Any],
    tensors: Headers,
    files: Iterable[str],
    *,
    mmproj_classes: frozenset[str] = frozenset(),
) -> list[Finding]:
    """What does not stop the conversion, but is worth knowing before the days are spent."""
    found = [
        *_leftover_settings(config, tensors),
        *_two_sets(files),
        *_no_prefix(tensors),
        *_vision(config, tensors, mmproj_classes),
        *_stored_though_tied(config, tensors),
        *_range(config, tensors),
        *_granite_four(config),
        _export(config),
    ]
    return [finding for finding in found if finding is not None]


def _note(message: str, fix: str | None = None) -> Finding:
    return Finding(severity="note", message=message, fix=fix)


def _leftover_settings(config: Mapping[str, Any], tensors: Headers) -> Iterable[Finding]:
    keys = [k for k in ("quantization", "quantization_config") if config.get(k)]
    if tensors and keys and packing_of(tensors) is None and not _low_precision(tensors):
        yield Finding(
            severity="warn",
            message=f"config.json still has `{keys[0]}` though the weights are not quantised, "
            "which some tools believe",
            fix=DROP_SETTINGS,
        )


def _two_sets(files: Iterable[str]) -> Iterable[Finding]:
    names = list(files)
    shards = [n for n in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", n)]
    if shards and "model.safetensors" in names:
        yield Finding(
            severity="warn",
            message="the repository holds model.safetensors and shards of it, so tools differ in "
            "which weights they read",
            fix="keep one set: `rm model.safetensors`, or the shards with their index",
        )


def _no_prefix(tensors: Headers) -> Iterable[Finding]:
    if "embed_tokens.weight" in tensors and "norm.weight" in tensors:
        yield _note(
            "the tensors lack the `model.` prefix (embed_tokens.weight), as the bare class without "
            "an output layer saves them; this converter copes, MLX and older ones do not",
            "save it again as …ForCausalLM: `AutoModelForCausalLM.from_pretrained(MODEL)"
            ".save_pretrained(OUT)`",
        )


def _vision(
    config: Mapping[str, Any], tensors: Headers, mmproj: frozenset[str]
) -> Iterable[Finding]:
    dropped = dropped_tensors(tensors)
    if not dropped:
        return
    parameters = sum(tensors[name].elements for name in dropped)
    architectures = config.get("architectures") or [""]
    known = architectures[0] in mmproj
    yield _note(
        f"{len(dropped)} tensors of vision or audio ({parameters / 1e6:.0f} M parameters) stay "
        "out of the GGUF, which holds the language part",
        "`convert_hf_to_gguf.py --mmproj MODEL` writes them to a file of their own"
        if known
        else None,
    )


def _stored_though_tied(config: Mapping[str, Any], tensors: Headers) -> Iterable[Finding]:
    head = output_of(tensors)
    if head and text_config(config).get("tie_word_embeddings") is True:
        size = tensors[head].elements * 2 / 1e9
        yield _note(
            f"{shown(head)} is stored although it is tied to the embedding: the GGUF gets it "
            f"twice ({size:.2f} GB more at 16 bits)",
            "save the model again with transformers, which leaves a tied layer out",
        )


Risk: TypeAlias = Literal["reported", "none known"]


def f16_risk(model_type: str) -> Risk:
    """Whether float16 is reported to overflow in a family.

    Gemma 3: activations beyond 65,504 (huggingface/transformers#36822, #39972). llama.cpp keeps
    activations in float32 on the CPU, so that its files suffer from it there is a guess.
    """
    return "reported" if model_type.startswith("gemma3") else "none known"


def _range(config: Mapping[str, Any], tensors: Headers) -> Iterable[Finding]:
    dtypes = [info.dtype for info in tensors.values() if len(info.shape) > 1]
    if not dtypes:
        return
    model_type = str(config.get("model_type", ""))
    risky = f16_risk(model_type) == "reported"
    family = f"; {shown(model_type)} is reported to overflow in f16" if risky else ""
    if dtypes.count("BF16") * 2 > len(dtypes):
        yield _note(
            "the weights are bf16, whose range f16 does not have (65,504 at most)" + family,
            "convert with `--outtype bf16`, as this check does",
        )
    elif risky and dtypes.count("F16") * 2 > len(dtypes):
        yield Finding(
            severity="warn",
            message=f"the weights are stored in f16{family}",
            fix="start from the original bf16 release",
        )


def _granite_four(config: Mapping[str, Any]) -> Iterable[Finding]:
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    if config.get("model_type") == "granitemoehybrid" and "mamba" not in kinds:
        yield _note(
            "a Granite 4 without Mamba layers is written as plain granite; one person got only "
            "`?` from such a file (llama.cpp #18145, open and unconfirmed)",
            "vet it at depth twin, which runs the whole pipeline, and ask the file a question "
            "after converting",
        )


def _export(config: Mapping[str, Any]) -> Finding | None:
    model_type = str(config.get("model_type", ""))
    plain = model_type in ("llama", "mistral", "mixtral")
    what = (
        "writes a SentencePiece vocabulary without merges or chat template, and no llama3 rope "
        "scaling"
        if plain
        else f"refuses model_type {shown(model_type)}"
    )
    return _note(
        f"`mlx_lm.fuse --export-gguf` {what}",
        "fuse without it, and convert the fused folder with convert_hf_to_gguf.py",
    )


def _low_precision(tensors: Headers) -> bool:
    return any(info.dtype.startswith(("F8", "F4", "U32", "I32", "U8", "I8"))
               for info in tensors.values())  # fmt: skip
