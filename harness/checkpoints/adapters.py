"""Does this adapter belong to this base model? Decided from config and headers alone.

mlx-lm stores a LoRA of a linear layer with weight [out, in] as lora_a [in, rank] and
lora_b [rank, out]; of an embedding [tokens, width] as [tokens, rank] and [rank, width]; of
stacked experts [experts, out, in] as [experts, rank, in] and [experts, out, rank]. DoRA adds
the magnitudes m [out]; a "full" adapter holds replacement weights.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from harness.checkpoints.folder import (
    is_packed,
    read_config,
    read_weight_headers,
    unpacked_columns,
)
from harness.checkpoints.hashing import sha256_of
from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import Header, TensorInfo, read_header, shown
from harness.errors import AdapterError, ModelError
from harness.records import Record

FineTune = Literal["lora", "dora", "full"]
Shape = tuple[int, ...]

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapters.safetensors"
_RETRAIN = "train it with mlx_lm.lora, which writes both files"
_WRONG_BASE = "give the base model that the adapter was trained on"
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_LEAVES = {"lora": ("lora_a", "lora_b"), "dora": ("lora_a", "lora_b", "m")}

# mlx-lm renames or splits weights of the other architectures while loading, so there a module
# that the file does not name is left to the engine's own strict check.
_NAMES_KEPT = frozenset(
    {
        *("llama", "mistral", "granite", "qwen2", "qwen3", "phi", "phi3", "olmo2", "cohere"),
        *("gemma", "gemma2", "gemma3_text"),
    }
)


class AdapterInfo(Record):
    """A checked adapter."""

    path: Path
    fine_tune_type: FineTune
    rank: int | None
    """None for a full fine-tune."""
    scale: float | None
    """Factor on lora_b · lora_a as mlx-lm applies it (alpha / rank elsewhere)."""
    dropout: float
    num_layers: int
    """Layers counted from the top that were trained, as configured; ≤ 0 means all."""
    layers: tuple[int, ...]
    """Indexes of the layers that the file changes."""
    modules: int
    """Number of adapted modules (weights, for a full fine-tune)."""
    parameters: int
    """Elements stored in the adapter."""
    unchecked: tuple[str, ...] = ()
    """Modules whose base weight mlx-lm renames on loading; the engine checks their shapes."""
    fingerprint: str
    """SHA-256 over weights and config."""


class _Config(NamedTuple):
    kind: FineTune
    num_layers: int
    rank: int
    scale: float
    dropout: float
    keys: tuple[str, ...] | None


class _Base(NamedTuple):
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    layers: int | None


def check_adapter(adapter_dir: Path, model_dir: Path) -> AdapterInfo:
    """Check an mlx-lm adapter against its base without loading either.

    Raises AdapterError naming the first offending tensor with both shapes and a fix, and
    ModelError where the base itself is broken.
    """
    header = _read_weights(adapter_dir)
    config = _read_config(adapter_dir / _CONFIG)
    base = _read_base(model_dir)
    unchecked: list[str] = []
    where = adapter_dir / _WEIGHTS
    modules = _full_modules(header) if config.kind == "full" else _lora_modules(where, header)
    for module, leaves in modules.items():
        _check_layer(where, module, config, base)
        if config.kind == "full":
            checked = _check_full(where, module, header.tensors[module], base)
        else:
            checked = _check_lora(where, module, leaves, config, base)
        if not checked:
            unchecked.append(module)
    return AdapterInfo(
        path=adapter_dir,
        fine_tune_type=config.kind,
        rank=None if config.kind == "full" else config.rank,
        scale=None if config.kind == "full" else config.scale,
        dropout=config.dropout,
        num_layers=config.num_layers,
        layers=tuple(sorted({n for name in modules if (n := _layer_of(name)) is not None})),
        modules=len(modules),
        parameters=header.elements,
        unchecked=tuple(unchecked),
        fingerprint=fingerprint(adapter_dir),
    )


def fingerprint(adapter_dir: Path) -> str:
    """SHA-256 over the contents of adapters.safetensors and adapter_config.json."""
    digest = hashlib.sha256()
    for name in (_WEIGHTS, _CONFIG):
        try:
            digest.update(f"{name} {sha256_of(adapter_dir / name)}\n".encode())
        except OSError as error:
            raise AdapterError(
                f"{adapter_dir / name} cannot be read ({error.strerror}); {_RETRAIN}"
            ) from error
    return digest.hexdigest()


def _read_weights(adapter_dir: Path) -> Header:
    if not adapter_dir.is_dir():
        raise AdapterError(f"{adapter_dir} is not a folder; give the folder with {_WEIGHTS}")
    weights = adapter_dir / _WEIGHTS
    if not weights.exists():
        raise AdapterError(f"{adapter_dir} has no {_WEIGHTS}; {_hint_without_weights(adapter_dir)}")
    try:
        header = read_header(weights)
    except ModelError as error:
        raise AdapterError(str(error)) from error
    if not header.tensors or not header.elements:
        raise AdapterError(f"{weights} is empty, so it changes nothing; {_RETRAIN}")
    _refuse_peft(weights, any(name.startswith("base_model.") for name in header.tensors))
    return header


def _hint_without_weights(adapter_dir: Path) -> str:
    _refuse_peft(adapter_dir, (adapter_dir / "adapter_model.safetensors").exists())
    _refuse_peft(adapter_dir, (adapter_dir / "adapter_model.bin").exists())
    checkpoints = sorted(path.name for path in adapter_dir.glob("*_adapters.safetensors"))
    if checkpoints:
        return f"copy a checkpoint such as {checkpoints[-1]} to {_WEIGHTS}"
    if (adapter_dir / "adapters.npz").exists():
        return "adapters.npz is mlx-lm's old format, so train it again with mlx_lm.lora"
    return _RETRAIN


def _refuse_peft(where: Path, is_peft: bool) -> None:
    if is_peft:
        raise AdapterError(
            f"{where} is a PEFT (Hugging Face) adapter, not an mlx-lm one; merge it with PEFT's "
            "merge_and_unload() and vet the merged model folder, or train it with mlx_lm.lora"
        )


def _read_config(file: Path) -> _Config:
    config = read_json_object(file, AdapterError, _RETRAIN)
    _refuse_peft(file, "peft_type" in config)
    kind = config.get("fine_tune_type", "lora")
    if kind not in get_args(FineTune):
        raise AdapterError(
            f"{file}: fine_tune_type {shown(str(kind))} is unknown; mlx-lm has lora, dora and full"
        )
    num_layers = config.get("num_layers", -1 if kind == "full" else None)
    if type(num_layers) is not int:
        raise AdapterError(f"{file}: num_layers must be a whole number; {_RETRAIN}")
    if kind == "full":
        return _Config("full", num_layers, 0, 0.0, 0.0, None)
    return _lora_settings(file, kind, num_layers, config.get("lora_parameters"))


def _lora_settings(file: Path, kind: FineTune, num_layers: int, settings: object) -> _Config:
    if not isinstance(settings, dict):
        raise AdapterError(f"{file} has no lora_parameters; {_RETRAIN}")
    if "scale" not in settings and "alpha" in settings:
        raise AdapterError(
            f"{file}: lora_parameters has alpha, but mlx-lm reads scale; set scale to alpha / rank"
        )
    rank, keys = settings.get("rank"), settings.get("keys")
    scale, dropout = settings.get("scale"), settings.get("dropout")
    if type(rank) is not int or rank < 1:
        raise AdapterError(f"{file}: lora_parameters.rank must be a whole number from 1 on")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        raise AdapterError(f"{file}: lora_parameters.scale must be a number, e.g. 1.33")
    if not isinstance(dropout, int | float) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise AdapterError(f"{file}: lora_parameters.dropout must be a number from 0 to below 1")
    if keys is not None and not (
        isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)
    ):
        raise AdapterError(
            f"{file}: lora_parameters.keys must be a list of module names, or absent"
        )
    chosen = None if keys is None else tuple(keys)
    return _Config(kind, num_layers, rank, float(scale), float(dropout), chosen)


def _read_base(model_dir: Path) -> _Base:
    config = read_config(model_dir)
    headers = read_weight_headers(model_dir)
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else config
    layers = inner.get("num_hidden_layers", config.get("n_layer"))
    tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
    return _Base(config, tensors, layers if type(layers) is int else None)


def _full_modules(header: Header) -> dict[str, dict[str, TensorInfo]]:
    return {name: {} for name in header.tensors}


def _lora_modules(where: Path, header: Header) -> dict[str, dict[str, TensorInfo]]:
    """Module name → {leaf: tensor}, in file order; every module has both halves."""
    modules: dict[str, dict[str, TensorInfo]] = {}
    for name, info in header.tensors.items():
        module, _, leaf = name.rpartition(".")
        if not module or leaf not in _LEAVES["dora"]:
            raise AdapterError(
                f"{where}: tensor {shown(name)} is no part of a LoRA (lora_a, lora_b, m); set "
                f'fine_tune_type to "full" in {_CONFIG} if whole weights were trained'
            )
        modules.setdefault(module, {})[leaf] = info
    for module, leaves in modules.items():
        for leaf in ("lora_a", "lora_b"):
            if leaf not in leaves:
                raise AdapterError(f"{where}: {shown(module)} has no {leaf}; {_RETRAIN}")
    return modules


def _layer_of(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1][:9]) if found else None


def _check_layer(where: Path, module: str, config: _Config, base: _Base) -> None:
    layer = _layer_of(module)
    if layer is None or base.layers is None:
        return
    if layer >= base.layers:
        raise AdapterError(
            f"{where}: {shown(module)} is in layer {layer}, but the base has only {base.layers} "
            f"layers (0 to {base.layers - 1}); {_WRONG_BASE}"
        )
    named = config.keys is not None and module in config.keys
    inner = module[found.end() :] if (found := _LAYER.search(module)) else module
    if config.keys is not None and not named and inner not in config.keys:
        raise AdapterError(
            f"{where}: {shown(module)} is not among lora_parameters.keys in {_CONFIG}, so mlx-lm "
            f"would refuse it; add {shown(inner)} there"
        )
    if config.kind != "full" and config.num_layers > 0 and not named:
        lowest = base.layers - config.num_layers
        if layer < lowest:
            raise AdapterError(
                f"{where}: {shown(module)} is in layer {layer}, but num_layers = "
                f"{config.num_layers} in {_CONFIG} covers only layers {lowest} to "
                f"{base.layers - 1}; {_WRONG_BASE}, or set num_layers to {base.layers - layer} "
                "or more"
            )


def _base_shape(weight: str, base: _Base) -> Shape | None:
    """Shape of a base weight, unpacked where MLX packed it; None where it has no such name."""
    info = base.tensors.get(weight)
    if info is None or not info.shape:
        return None
    if is_packed(weight, base.tensors):
        return (*info.shape[:-1], unpacked_columns(weight, info, base.config))
    return info.shape


def _missing(where: Path, weight: str, base: _Base) -> bool:
    """False where mlx-lm may have renamed the weight; else an error."""
    if base.config["model_type"] in _NAMES_KEPT:
        raise AdapterError(
            f"{where} changes {shown(weight)}, which the base does not have; {_WRONG_BASE}"
        )
    return False


def _check_full(where: Path, name: str, info: TensorInfo, base: _Base) -> bool:
    found = base.tensors.get(name)
    if found is None:
        return _missing(where, name, base)
    if found.shape != info.shape:
        raise AdapterError(
            f"{where}: {shown(name)} has shape {list(info.shape)}, but in the base it has "
            f"{list(found.shape)}; {_WRONG_BASE}"
        )
    return True


def _check_lora(
    where: Path, module: str, leaves: Mapping[str, TensorInfo], config: _Config, base: _Base
) -> bool:
    if config.kind == "dora" and "m" not in leaves:
        raise AdapterError(
            f"{where}: {shown(module)} has no m, so it is no DoRA; set fine_tune_type to "
            f'"lora" in {_CONFIG}'
        )
    if config.kind == "lora" and "m" in leaves:
        raise AdapterError(
            f"{where}: {shown(module)} has magnitudes (m), so it is a DoRA; set fine_tune_type "
            f'to "dora" in {_CONFIG}'
        )
    _check_rank(where, module, leaves, config)
    weight = f"{module}.weight"
    shape = _base_shape(weight, base)
    if shape is None:
        return _missing(where, weight, base)
    for leaf, due in _due_shapes(module, shape, config.rank).items():
        if leaf in leaves and leaves[leaf].shape != due:
            raise AdapterError(
                f"{where}: {shown(module)}.{leaf} has shape {list(leaves[leaf].shape)}, but the "
                f"base weight of shape {list(shape)} needs {list(due)}; {_WRONG_BASE}"
            )
    return True


def _check_rank(
    where: Path, module: str, leaves: Mapping[str, TensorInfo], config: _Config
) -> None:
    """The rank is lora_a's last axis (second of three for experts); it must be the config's."""
    shape = leaves["lora_a"].shape
    if len(shape) not in (2, 3):
        raise AdapterError(
            f"{where}: {shown(module)}.lora_a has shape {list(shape)}, which no LoRA has; "
            f"{_RETRAIN}"
        )
    if shape[1] != config.rank:
        due = (shape[0], config.rank, *shape[2:])
        raise AdapterError(
            f"{where}: {shown(module)}.lora_a has shape {list(shape)}, but rank {config.rank} in "
            f"{_CONFIG} needs {list(due)}; set lora_parameters.rank to {shape[1]} if that is what "
            "it was trained with"
        )


def _due_shapes(module: str, weight: Shape, rank: int) -> dict[str, Shape]:
    """Shapes that a base weight asks of the adapter's tensors; {} for an unknown layout."""
    if len(weight) == 3:
        experts, rows, columns = weight
        return {"lora_a": (experts, rank, columns), "lora_b": (experts, rows, rank)}
    if len(weight) != 2:
        return {}
    rows, columns = weight
    leaf = module.rpartition(".")[2]
    if "embed" in leaf or leaf == "wte":
        return {"lora_a": (rows, rank), "lora_b": (rank, columns), "m": (rows,)}
    return {"lora_a": (columns, rank), "lora_b": (rank, rows), "m": (rows,)}
