"""Is this folder a model that can be loaded safely? Config, headers and tokenizer, no weights."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.checkpoints.chat_template import find_template
from harness.checkpoints.hashing import remembered_sha256
from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import Header, TensorInfo, read_header, shown
from harness.errors import ModelError
from harness.records import Record

AGAIN = "download the model again"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MOST: Mapping[str, int] = MappingProxyType(
    {
        "vocab_size": 1 << 24,
        "hidden_size": 1 << 20,
        "intermediate_size": 1 << 24,
        "num_attention_heads": 1 << 16,
        **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 1 << 13),
        **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 1 << 16),
    }
)
"""Far above what the largest models have."""
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)


class ModelFolder(Record):
    """What a checked model folder holds, from config and headers alone."""

    path: Path
    model_type: str
    """config.json's model_type, e.g. "llama"."""
    architectures: tuple[str, ...]
    weight_files: tuple[str, ...]
    """Names of the safetensors files, sorted."""
    weight_bytes: int
    """Total size of the weight files."""
    parameters: int
    """Number of parameters; tied embeddings count once, packed weights unpacked."""
    tied_embeddings: bool
    """True where the output layer reuses the embedding matrix."""
    dtypes: dict[str, int]
    """safetensors dtype → number of tensors."""
    quantised: bool
    """True for packed weights (MLX) or a config with `quantization_config`."""
    notes: tuple[str, ...] = ()
    """Harmless oddities, as full sentences."""


def check_model_folder(path: Path, *, tokenizer: bool = True) -> ModelFolder:
    """Check a Hugging Face model folder without loading weights or running its code.

    With `tokenizer=False` a folder without a tokenizer is no error, as ghosts and twins have
    none. Raises ModelError: no folder, bad config.json, pickled or missing or damaged weights,
    missing shards, remote code, no tokenizer.
    """
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; give a folder with config.json and safetensors")
    config = read_config(path)
    notes = _check_code(path, config)
    headers = read_weight_headers(path)
    if tokenizer or has_tokenizer(path):
        _check_tokenizer(path)
    tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
    return ModelFolder(
        path=path,
        model_type=config["model_type"],
        architectures=_strings(config.get("architectures")),
        weight_files=tuple(headers),
        weight_bytes=sum(header.file_bytes for header in headers.values()),
        parameters=count_parameters(tensors, config),
        tied_embeddings=is_tied(tensors, config),
        dtypes=dict(sorted(Counter(info.dtype for info in tensors.values()).items())),
        quantised=_is_quantised(tensors, config),
        notes=notes,
    )


def check_tokenizer_folder(path: Path) -> None:
    """Check the parts that a vocabulary is made of: config.json and the tokenizer files.

    Raises ModelError: no folder, bad config.json, remote code, no tokenizer.
    """
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; give a folder with config.json and a tokenizer")
    _check_code(path, read_config(path))
    _check_tokenizer(path)


def has_tokenizer(path: Path) -> bool:
    """Whether the folder has a tokenizer's files, readable or not."""
    alone = any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return alone or all((path / name).is_file() for name in ("vocab.json", "merges.txt"))


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder; ModelError unless it is an object with a model_type."""
    file = path / "config.json"
    config = read_json_object(file, ModelError, AGAIN)
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError(
            f"{file} names no model_type, so no engine knows what it is; "
            "copy config.json from the base model"
        )
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        _check_scale(file, section)
    return config


def _check_scale(file: Path, section: Mapping[str, Any]) -> None:
    """Refuse numbers that would keep a loader or converter busy until the memory is full."""
    for key, most in _MOST.items():
        value = section.get(key)
        if isinstance(value, int | float) and value > most:
            raise ModelError(
                f"{file} says {key} = {shown(str(value), 40)}, more than any model has; copy "
                "config.json from the base model"
            )


def read_weight_headers(path: Path) -> dict[str, Header]:
    """Validated headers of all `model*.safetensors` files (what mlx-lm loads), by file name."""
    files = sorted(path.glob("model*.safetensors"))
    shards = _index(path)
    if not files and not shards:
        raise ModelError(_no_weights(path))
    missing = sorted(set(shards.values()) - {file.name for file in files})
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} of {len(set(shards.values()))} weight files, first "
            f"{shown(missing[0])}; {AGAIN} or wait until it is complete"
        )
    headers = {file.name: read_header(file) for file in files}
    seen: dict[str, str] = {}
    for file_name, header in headers.items():
        for tensor in header.tensors:
            if tensor in seen:
                raise ModelError(
                    f"{path} holds tensor {shown(tensor)} twice, in {seen[tensor]} and in "
                    f"{file_name}; remove the weight files that do not belong to the model"
                )
            seen[tensor] = file_name
    for tensor, file_name in shards.items():
        if seen.get(tensor) != file_name:
            raise ModelError(
                f"{path}: the index promises tensor {shown(tensor)} in {file_name}, but it is "
                f"not there; {AGAIN}"
            )
    if not seen:
        raise ModelError(f"{path} has weight files without a single tensor; {AGAIN}")
    return headers


def _index(path: Path) -> dict[str, str]:
    """Tensor name → shard file name; empty where the model is not sharded."""
    file = path / "model.safetensors.index.json"
    if not file.exists():
        return {}
    weight_map = read_json_object(file, ModelError, AGAIN).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{file} has no weight_map; {AGAIN}")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ModelError(f"{file} names a weight file outside its folder; do not trust it")
    return weight_map


def _no_weights(path: Path) -> str:
    pickled = sorted(file.name for pattern in _PICKLED for file in path.glob(pattern))
    if pickled:
        return (
            f"{path} has only pickled weights ({shown(pickled[0])}), which can run code and are "
            "never loaded; get a revision with safetensors (many Hub repos have one on "
            "refs/convert/safetensors, or ask https://huggingface.co/spaces/safetensors/convert)"
        )
    others = sorted(file.name for file in path.glob("*.safetensors"))
    if others:
        return (
            f"{path} has {shown(others[0])} but no model*.safetensors, the only names that "
            "mlx-lm loads; rename the weights, or give the adapter with --adapter"
        )
    return f"{path} has no weights (model*.safetensors); {AGAIN}"


def _check_code(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse folders that need their own Python code; note code that nothing will run."""
    if config.get("model_file") is not None:
        raise ModelError(
            f"{path / 'config.json'} names model_file {shown(str(config['model_file']))}, Python "
            "code that loading would run; use a model whose architecture mlx-lm has built in"
        )
    tokenizer_config = _tokenizer_config(path)
    notes = []
    if config.get("auto_map"):
        if not _is_known(config["model_type"]):
            raise ModelError(
                f"{path / 'config.json'} asks for the model's own code (auto_map), and neither "
                f"mlx-lm nor transformers knows model_type {shown(config['model_type'])}; use a "
                "built-in architecture"
            )
        notes.append("config.json has auto_map; the built-in architecture is used instead.")
    if tokenizer_config.get("auto_map"):
        if not (path / "tokenizer.json").exists():
            raise ModelError(
                f"{path / 'tokenizer_config.json'} asks for the tokenizer's own code (auto_map) "
                "and there is no tokenizer.json; use a model with a tokenizer.json"
            )
        notes.append("tokenizer_config.json has auto_map; tokenizer.json is used instead.")
    return tuple(notes)


def _is_known(model_type: str) -> bool:
    """Whether mlx-lm or transformers has the architecture; looks at files, imports nothing."""
    module = model_type.replace("-", "_")
    if not module.isidentifier():
        return False
    for package, pattern in (("mlx_lm", f"{module}.py"), ("transformers", module)):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            if (Path(place) / "models" / pattern).exists():
                return True
    return False


def _tokenizer_config(path: Path) -> dict[str, Any]:
    file = path / "tokenizer_config.json"
    return read_json_object(file, ModelError, AGAIN) if file.exists() else {}


def _check_tokenizer(path: Path) -> None:
    file = path / "tokenizer.json"
    if file.exists():
        if "model" not in read_json_object(file, ModelError, AGAIN):
            raise ModelError(f"{file} holds no tokenizer model; {AGAIN}")
    elif not has_tokenizer(path):
        raise ModelError(
            f"{path} has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with "
            "merges.txt); copy the tokenizer files from the base model"
        )


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def is_tied(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> bool:
    """Whether the output layer reuses the embedding matrix."""
    flag = config.get("tie_word_embeddings")
    if flag is None:
        flag = _section(config, "text_config").get("tie_word_embeddings")
    has_head = any("lm_head." in name or name == "output.weight" for name in tensors)
    return bool(flag) if flag is not None else not has_head


def _is_quantised(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> bool:
    packed = any(is_packed(name, tensors) for name in tensors)
    return packed or bool(config.get("quantization_config"))


def is_packed(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether `name` is an MLX-quantised weight: 32-bit words with scales beside them."""
    stem = name.removesuffix(".weight")
    return tensors[name].dtype == "U32" and f"{stem}.scales" in tensors


def unpacked_columns(name: str, info: TensorInfo, config: Mapping[str, Any]) -> int:
    """Columns of an MLX-packed weight before packing: words · 32 / bits."""
    settings = _section(config, "quantization") or _section(config, "quantization_config")
    own = _section(settings, name.removesuffix(".weight"))
    bits = own.get("bits", settings.get("bits"))
    if type(bits) is not int or not 1 <= bits <= 32:
        raise ModelError(
            f"config.json does not say with how many bits {shown(name)} is packed "
            "(quantization.bits); copy the quantization section from the original config.json"
        )
    return info.shape[-1] * 32 // bits


def count_parameters(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> int:
    """Parameters of the model: elements, with MLX-packed weights unpacked and their scales and
    biases left out, and without buffers that are no parameters. An output layer that is stored
    although it is tied to the embedding counts once."""
    tied = is_tied(tensors, config)
    total = 0
    for name, info in tensors.items():
        stem, _, leaf = name.rpartition(".")
        weight = f"{stem}.weight"
        if leaf in ("scales", "biases") and weight in tensors and is_packed(weight, tensors):
            continue
        if leaf == "inv_freq" or (tied and stem.endswith("lm_head")):
            continue
        if is_packed(name, tensors):
            rows = info.elements // max(info.shape[-1], 1) if info.shape else 0
            total += rows * unpacked_columns(name, info, config)
        else:
            total += info.elements
    return total


def fingerprint(path: Path, cache_dir: Path) -> dict[str, str]:
    """SHA-256 of {weights, config, tokenizer, chat_template} of a model folder.

    `weights` hashes file names and contents (remembered in `cache_dir`), `config` covers
    generation_config.json too, `tokenizer` leaves the chat template out, and `chat_template`
    is "none" where there is none. Raises ModelError where a file cannot be read.
    """
    weights = hashlib.sha256()
    for file in sorted(path.glob("model*.safetensors")):
        weights.update(f"{file.name} {remembered_sha256(file, cache_dir)}\n".encode())
    config = hashlib.sha256()
    for name in ("config.json", "generation_config.json"):
        if (path / name).exists():
            value = read_json_object(path / name, ModelError, AGAIN)
            config.update(f"{name} {_canonical(value)}\n".encode())
    tokenizer = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (path / name).exists():
            tokenizer.update(f"{name} {remembered_sha256(path / name, cache_dir)}\n".encode())
    settings = _tokenizer_config(path)
    settings.pop("chat_template", None)
    tokenizer.update(_canonical(settings).encode())
    template = find_template(path)
    return {
        "weights": weights.hexdigest(),
        "config": config.hexdigest(),
        "tokenizer": tokenizer.hexdigest(),
        "chat_template": hashlib.sha256(template.encode()).hexdigest() if template else "none",
    }


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
