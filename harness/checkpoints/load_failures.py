"""Why a model's tensors are not those that mlx-lm expects: names and shapes → cause and fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.checkpoints.safetensors import shown

_LAYER = re.compile(r"^(.*?)\.(?:layers|h|blocks)\.([0-9]+)\.")
_OTHER_QUANTISERS = (
    "SCB", "absmax", "quant_map", "nested_absmax", "qweight", "qzeros", "g_idx", "weight_scale",
    "weight_scale_inv", "input_scale", "weight_packed", "weight_shape",
)  # fmt: skip


class Misshapen(NamedTuple):
    """A tensor whose shape is not the one that the config makes."""

    name: str
    expected: tuple[int, ...]
    found: tuple[int, ...]


class Mismatch(NamedTuple):
    """How the tensors of a checkpoint differ from the model's; empty where they fit."""

    missing: tuple[str, ...] = ()
    """In the model, not in the checkpoint; mlx-lm's names, sorted."""
    unexpected: tuple[str, ...] = ()
    """In the checkpoint, not in the model."""
    misshapen: tuple[Misshapen, ...] = ()


class Explained(NamedTuple):
    """A mismatch for people."""

    message: str
    """What is wrong, with the tensors' names, and its cause: one clause."""
    fix: str


def explain_mismatch(mismatch: Mismatch, config: Mapping[str, Any]) -> Explained:
    """Name the tensors at fault, the cause as far as names and shapes tell it, and the fix."""
    what = _what(mismatch)
    for cause in _CAUSES:
        found = cause(mismatch, config)
        if found is not None:
            return Explained(f"{what}: {found[0]}", found[1])
    model_type = shown(str(config.get("model_type")), 60)
    return Explained(
        f"{what}: the checkpoint is not laid out as mlx-lm's {model_type} is",
        "copy config.json from the repository that the weights are from, or choose another base",
    )


def _what(mismatch: Mismatch) -> str:
    parts = []
    if mismatch.missing:
        parts.append(f"{_count(mismatch.missing)} missing (first {shown(mismatch.missing[0])})")
    if mismatch.unexpected:
        first = shown(mismatch.unexpected[0])
        parts.append(f"{_count(mismatch.unexpected)} unexpected (first {first})")
    if mismatch.misshapen:
        name, expected, found = mismatch.misshapen[0]
        are = "has" if len(mismatch.misshapen) == 1 else "have"
        parts.append(
            f"{len(mismatch.misshapen)} {are} another shape (first {shown(name)}, {list(found)} "
            f"instead of {list(expected)})"
        )
    return "tensors do not fit the config: " + ", ".join(parts)


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} {'is' if len(names) == 1 else 'are'}"


_Cause = tuple[str, str] | None


def _quantised_by_others(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    at = _first(
        mismatch.unexpected,
        lambda n: n.rpartition(".")[2] in _OTHER_QUANTISERS or "quant_state" in n,
    )
    if at is None:
        return None
    return (
        f"{shown(at)} shows that the weights are quantised in a way that mlx-lm does not read",
        "use the bfloat16 release of the model",
    )


def _unfused_lora(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    at = _first(mismatch.unexpected, lambda n: "lora_" in n)
    if at is None:
        return None
    return (
        f"{shown(at)} belongs to a LoRA that was not fused",
        "mlx_lm.fuse --model BASE --adapter-path ADAPTER --save-path MODEL --dequantize",
    )


def _quantised_without_saying(mismatch: Mismatch, config: Mapping[str, Any]) -> _Cause:
    at = _first(mismatch.unexpected, lambda n: n.endswith((".scales", ".biases")))
    if at is None:
        return None
    said = "another" if config.get("quantization") else "no"
    return (
        f"{shown(at)} shows MLX-quantised weights, but config.json has {said} `quantization`",
        "copy the `quantization` section from the config.json that mlx_lm.convert wrote",
    )


def _output_layer(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    rest = (*mismatch.misshapen, *(n for n in mismatch.missing if "lm_head" not in n))
    missing = [n for n in mismatch.missing if n.endswith("lm_head.weight")]
    if rest or mismatch.unexpected or not missing:
        return None
    return (
        "the output layer is not stored, though config.json does not tie it to the embeddings",
        'set "tie_word_embeddings": true in config.json if the base does, else download it again',
    )


def _vocabulary(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    for name, expected, found in mismatch.misshapen:
        table = "embed_tokens" in name or "lm_head" in name or name.endswith("wte.weight")
        if table and expected[1:] == found[1:] and expected[:1] != found[:1]:
            return (
                f"{shown(name)} has {found[0]} rows, but vocab_size makes {expected[0]}",
                f'set "vocab_size": {found[0]} in config.json, if the tokenizer agrees',
            )
    return None


def _layers(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    def numbers(names: tuple[str, ...]) -> set[int]:
        return {int(match[2]) for n in names if (match := _LAYER.match(n))}

    missing, unexpected = numbers(mismatch.missing), numbers(mismatch.unexpected)
    only_layers = all(_LAYER.match(n) for n in (*mismatch.missing, *mismatch.unexpected))
    if mismatch.misshapen or not only_layers or bool(missing) == bool(unexpected):
        return None
    if len({_leaf(n) for n in (*mismatch.missing, *mismatch.unexpected)}) < 5:
        return None  # one kind of tensor in all layers is not a matter of the number of layers
    if missing:
        return (
            f"layers {_span(missing)} are not complete in the weight files",
            "download the model again, or wait until it is complete",
        )
    return (
        f"the weights have layers {_span(unexpected)}, more than config.json promises",
        f'set "num_hidden_layers": {max(unexpected) + 1} in config.json',
    )


def _prefix(mismatch: Mismatch, _: Mapping[str, Any]) -> _Cause:
    """Names that would fit if they began differently."""
    if not mismatch.missing or not mismatch.unexpected:
        return None
    wanted = mismatch.missing[0]
    parts = wanted.split(".")
    for cut in range(1, len(parts)):
        tail = "." + ".".join(parts[cut:])
        given = _first(mismatch.unexpected, lambda n, tail=tail: n.endswith(tail))  # type: ignore[misc]
        if given is None:
            continue
        ours, theirs = wanted.removesuffix(tail), given.removesuffix(tail)
        renamed = {
            theirs + n.removeprefix(ours) for n in mismatch.missing if n.startswith(ours + ".")
        }
        if len(renamed & set(mismatch.unexpected)) * 10 >= len(mismatch.missing) * 9:
            return (
                f"their names begin with {shown(theirs)} where mlx-lm's begin with {shown(ours)}",
                "use a repository whose tensors have the names that mlx-lm expects, such as an "
                "mlx-community conversion, or choose another base",
            )
    return None


_CAUSES: tuple[Callable[[Mismatch, Mapping[str, Any]], _Cause], ...] = (
    _quantised_by_others,
    _unfused_lora,
    _quantised_without_saying,
    _output_layer,
    _vocabulary,
    _layers,
    _prefix,
)


def _first(names: tuple[str, ...], test: Callable[[str], bool]) -> str | None:
    return next((name for name in names if test(name)), None)


def _leaf(name: str) -> str:
    return _LAYER.sub("", name)


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
