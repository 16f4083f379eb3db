"""Builders of tiny model and adapter folders for the checkpoint tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, FFN, VOCAB, LAYERS = 8, 16, 32, 3
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def llama_shapes(
    hidden: int = HIDDEN, ffn: int = FFN, vocab: int = VOCAB
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        shapes |= {
            f"{stem}.self_attn.q_proj.weight": (hidden, hidden),
            f"{stem}.self_attn.k_proj.weight": (hidden // 2, hidden),
            f"{stem}.self_attn.v_proj.weight": (hidden // 2, hidden),
            f"{stem}.self_attn.o_proj.weight": (hidden, hidden),
            f"{stem}.mlp.gate_proj.weight": (ffn, hidden),
            f"{stem}.mlp.up_proj.weight": (ffn, hidden),
            f"{stem}.mlp.down_proj.weight": (hidden, ffn),
            f"{stem}.input_layernorm.weight": (hidden,),
            f"{stem}.post_attention_layernorm.weight": (hidden,),
        }
    return shapes


def zeros(shapes: dict[str, tuple[int, ...]], dtype: Any = np.float32) -> dict[str, Any]:
    return {name: np.zeros(shape, dtype) for name, shape in shapes.items()}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_model(folder: Path, **config: Any) -> Path:
    """A complete tiny Llama folder (zero weights, toy tokenizer)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG | config)
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": []}})
    write_json(folder / "tokenizer_config.json", {"chat_template": TEMPLATE})
    save_file(zeros(llama_shapes()), folder / "model.safetensors")
    return folder


def lora_tensors(rank: int = 4, layers: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        for module, rows, columns in (
            ("self_attn.k_proj", HIDDEN // 2, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ):
            shapes[f"model.layers.{layer}.{module}.lora_a"] = (columns, rank)
            shapes[f"model.layers.{layer}.{module}.lora_b"] = (rank, rows)
    return zeros(shapes)


def adapter_config(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0},
        "model": "anything",
    }
    return config | changes


def write_adapter(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", adapter_config(**config))
    save_file(lora_tensors() if tensors is None else tensors, folder / "adapters.safetensors")
    return folder


def raw_safetensors(header: object, data: bytes = b"") -> bytes:
    """The bytes of a file with any header at all, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
