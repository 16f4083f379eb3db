"""What will go wrong on the way to GGUF, told from config, tensor headers and file names. Pure.

The converter's dry run decides whether a folder converts. This module says why it will not in
words that name the tensor and the command, and tells what the converter does not check: files
that convert, but do not load, are larger than expected, or say something else.
`docs/gguf-failures.md` lists the failures that people reported and where each is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from harness.checkpoints.safetensors import TensorInfo, shown
from harness.records import Finding

Headers: TypeAlias = Mapping[str, TensorInfo]

DEQUANTIZE = (
    "fuse again with `mlx_lm.fuse --model BASE --adapter-path ADAPTERS --save-path FUSED "
    "--dequantize`, best onto the unquantised BASE; without an adapter, `mlx_lm.convert --hf-path "
    "MODEL --mlx-path OUT --dequantize`"
)
_UNQUANTISED = "use the bfloat16 release of the model; after training, merge the adapter into that"
DROP_SETTINGS = (
    "remove both keys: `python -c \"import json, pathlib; p = pathlib.Path('config.json'); c = "
    "json.loads(p.read_text()); [c.pop(k, 0) for k in ('quantization', 'quantization_config')]; "
    'p.write_text(json.dumps(c, indent=2))"`'
)
_VISION = re.compile(
    r"vision[._]|visual\.|audio[._]|projector\.|patch_embed|image_newline|^(vit|vpm|resampler)\."
)
_ADAPTER = re.compile(r"(^|[._])lora_[abAB]($|\.)|\.base_layer\.|^base_model\.model\.")
_PADDED = ("mamba", "granitemoehybrid", "bamba", "falcon_h1")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_SUFFIX = re.compile(
    r"(Text)?(ForCausalLM|ForConditionalGeneration|LMHeadModel|TextModel|Model|ForImageTextToText)$"
)


class Obstacle(NamedTuple):
    """Something that stops a model on its way to a working GGUF file."""

    culprit: str
    """The tensor, key or file at fault."""
    finding: Finding
    converter_decides: bool = True
    """False where the converter does not look, and writes a file that is no good."""


class Packing(NamedTuple):
    """One way of storing quantised weights that leaves its mark on tensor names."""

    name: str
    marks: re.Pattern[str]
    says: str
    fix: str


PACKINGS = (
    Packing(
        "mlx",
        re.compile(r"\.(scales|biases)$"),
        "still packed by MLX's quantisation",
        DEQUANTIZE,
    ),
    Packing(
        "bitsandbytes",
        re.compile(r"\.(SCB|absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\."),
        "still quantised by bitsandbytes",
        "load the base in bfloat16 (no load_in_4bit or load_in_8bit) and merge into that: "
        "`PeftModel.from_pretrained(base, ADAPTERS).merge_and_unload().save_pretrained(OUT)`",
    ),
    Packing(
        "gptq or awq",
        re.compile(r"\.(qweight|qzeros|g_idx)$"),
        "still quantised by GPTQ or AWQ",
        _UNQUANTISED,
    ),
    Packing(
        "quanto",
        re.compile(r"\.weight\._(scale|data|shift)$"),
        "still quantised by quanto",
        "call `model.dequantize()` of optimum-quanto and save it, or use the bfloat16 release",
    ),
    Packing(
        "scaled",
        re.compile(r"\.(weight_scale|weight_scale_inv|weight_packed|input_scale)$"),
        "still quantised with separate scales (FP8, 1.58-bit or compressed-tensors)",
        _UNQUANTISED,
    ),
)


def packing_of(tensors: Headers) -> tuple[Packing, list[str]] | None:
    """How the weights are packed and the tensors that show it, sorted; None for plain weights."""
    for packing in PACKINGS:
        marked = sorted(name for name in tensors if packing.marks.search(name))
        if packing.name == "mlx":
            # GPTQ has `.scales` as well; MLX packs into 32-bit words under the weight's own name.
            marked = [n for n in marked if _dtype(tensors, n.rpartition(".")[0]) == "U32"]
        if marked:
            return packing, marked
    return None


def find_obstacles(
    config: Mapping[str, Any], tensors: Headers, classes: frozenset[str]
) -> list[Obstacle]:
    """What stops this model, most telling first; empty where nothing is seen.

    Args:
        config: config.json.
        tensors: name → header of every tensor; may be empty where they are not known.
        classes: the class names that the converter knows.
    """
    checks: tuple[Callable[[], Iterable[Obstacle]], ...] = (
        lambda: _packed(tensors),
        lambda: _adapters(tensors),
        lambda: _architecture(config, classes),
        lambda: _left_over_method(config, tensors),
        lambda: _vocabulary_size(config, tensors),
        lambda: _output_layer(config, tensors),
        lambda: _layers(config, tensors),
    )
    return [obstacle for check in checks for obstacle in check()]


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's settings: those of `text_config`, where there is one, come first."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else dict(config)


def class_of(config: Mapping[str, Any]) -> str | None:
    """The class name that the converter goes by."""
    inner = config.get("text_config")
    for section in (inner if isinstance(inner, dict) else {}, config):
        names = section.get("architectures")
        if isinstance(names, list) and names and isinstance(names[0], str):
            return names[0]
    return None


def embedding_of(tensors: Headers) -> tuple[str, TensorInfo] | None:
    """The token embedding's name and header, as far as its name tells."""
    names = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "word_embeddings.weight")
    for name, info in tensors.items():
        if name.endswith(names) and len(info.shape) == 2 and not _VISION.search(name):
            return name, info
    return None


def output_of(tensors: Headers) -> str | None:
    """Name of the output layer, if one is stored."""
    names = ("lm_head.weight", "output.weight", "embed_out.weight")
    return next((n for n in tensors if n in names or n.endswith(".lm_head.weight")), None)


def dropped_tensors(tensors: Headers) -> list[str]:
    """Tensors of vision or audio parts, which a language model's GGUF leaves out."""
    return [name for name in tensors if _VISION.search(name)]


def fail(message: str, fix: str) -> Finding:
    return Finding(severity="fail", message=message, fix=fix)


# -- what stops it ------------------------------------------------------------------------------


def _packed(tensors: Headers) -> Iterable[Obstacle]:
    found = packing_of(tensors)
    if found is None:
        return
    packing, marked = found
    others = f" and {len(marked) - 1} more tensors show" if len(marked) > 1 else " shows"
    yield Obstacle(
        marked[0],
        fail(f"{shown(marked[0])}{others} that the weights are {packing.says}", packing.fix),
    )


def _adapters(tensors: Headers) -> Iterable[Obstacle]:
    left = sorted(name for name in tensors if _ADAPTER.search(name))
    if left:
        yield Obstacle(
            left[0],
            fail(
                f"{shown(left[0])} belongs to a LoRA that was not merged into the weights",
                "merge it: `mlx_lm.fuse --model BASE --adapter-path ADAPTERS --save-path FUSED`, "
                "or PEFT's `merge_and_unload()`",
            ),
        )


def _architecture(config: Mapping[str, Any], classes: frozenset[str]) -> Iterable[Obstacle]:
    name = class_of(config)
    if name is None:
        message = "config.json has no `architectures`, by which the converter chooses its code"
        yield Obstacle("architectures", fail(message, "copy config.json from the base model"))
    elif name not in classes:
        relative = _relative(name, classes)
        fix = (
            f'if the weights are the same, edit config.json: "architectures": ["{relative}"]'
            if relative
            else "choose a base whose class this converter knows (most …ForCausalLM classes of "
            "Llama, Qwen, Granite, Mistral, Gemma, Phi), or a newer llama-cpp-python"
        )
        what = "though it knows its family" if relative else "so no version of it becomes GGUF"
        yield Obstacle(
            name, fail(f"the class {shown(name)} is unknown to the converter, {what}", fix)
        )


def _relative(name: str, classes: frozenset[str]) -> str | None:
    """A known class of the same family: the same stem with another ending."""
    stem = _SUFFIX.sub("", name)
    same = sorted(known for known in classes if _SUFFIX.sub("", known) == stem)
    return next((known for known in same if known.endswith("ForCausalLM")), next(iter(same), None))


def _left_over_method(config: Mapping[str, Any], tensors: Headers) -> Iterable[Obstacle]:
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    # Those methods the converter undoes itself, if the tensors are there.
    known = ("bitnet", "fp8", "gptq", "compressed-tensors", "modelopt", "mxfp4")
    if tensors and method is not None and method not in known and packing_of(tensors) is None:
        yield Obstacle(
            "quantization_config",
            fail(
                f"config.json still says that the weights are quantised with "
                f"{shown(str(method))}, though they are not",
                DROP_SETTINGS,
            ),
        )


def _vocabulary_size(config: Mapping[str, Any], tensors: Headers) -> Iterable[Obstacle]:
    size, found = text_config(config).get("vocab_size"), embedding_of(tensors)
    if size is not None and (type(size) is not int or size <= 0):
        yield Obstacle(
            "vocab_size",
            fail(
                f"vocab_size in config.json is {shown(str(size))}, which is no number of tokens",
                f'edit config.json: "vocab_size": {found[1].shape[0] if found else "ROWS"}',
            ),
            converter_decides=False,
        )
    elif found is not None and size is not None and packing_of(tensors) is None:
        name, rows = found[0], found[1].shape[0]
        # The converter rounds the vocabulary of state-space models up, as their embedding is.
        padded = any(part in str(config.get("model_type")) for part in _PADDED)
        if rows != size and not (padded and rows > size):
            yield Obstacle(
                name,
                fail(
                    f"{shown(name)} has {rows} rows, but vocab_size in config.json is {size}: "
                    "the file would be written, and llama.cpp would refuse to open it",
                    f'edit config.json: "vocab_size": {rows}, or resize the embedding with '
                    "`model.resize_token_embeddings`",
                ),
                converter_decides=False,
            )


def _output_layer(config: Mapping[str, Any], tensors: Headers) -> Iterable[Obstacle]:
    tied = text_config(config).get("tie_word_embeddings")
    if tied is False and embedding_of(tensors) is not None and _head(tensors) is None:
        yield Obstacle(
            "lm_head.weight",
            fail(
                "lm_head.weight is missing though tie_word_embeddings is false: llama.cpp would "
                "put the embedding in its place without a word",
                "save the model again with its output layer, or edit config.json: "
                '"tie_word_embeddings": true',
            ),
            converter_decides=False,
        )


def _head(tensors: Headers) -> str | None:
    return output_of(tensors) or next((n for n in tensors if "lm_head" in n), None)


def _layers(config: Mapping[str, Any], tensors: Headers) -> Iterable[Obstacle]:
    settings = text_config(config)
    count = next(
        (settings[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if key in settings),
        None,
    )
    numbers = {
        int(match[1]) for name in tensors if not _VISION.search(name)
        for match in [_LAYER.search(name)] if match
    }  # fmt: skip
    if type(count) is not int or not numbers or count > 100_000:
        return
    missing = [number for number in range(count) if number not in numbers]
    if missing:
        yield Obstacle(
            f"layer {missing[0]}",
            fail(
                f"the weights hold {len(numbers)} layers and config.json says {count}: layer "
                f"{missing[0]} is missing, and llama.cpp would refuse to open the file",
                f'edit config.json: "num_hidden_layers": {max(numbers) + 1}, or download the '
                "missing weights",
            ),
            converter_decides=False,
        )


def _dtype(tensors: Headers, stem: str) -> str | None:
    info = tensors.get(f"{stem}.weight")
    return info.dtype if info is not None else None
