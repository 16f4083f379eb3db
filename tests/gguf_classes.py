"""Ghosts of the conversion failures that people reported, one for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checkpoint_files import CONFIG, llama_shapes

from harness.checkpoints.ghost import TensorShape, write_ghost

DOWN = "model.layers.0.mlp.down_proj"


class Class(NamedTuple):
    """One way to fail, told from headers."""

    name: str
    source: str
    """Where it was reported."""
    culprit: str
    says: str
    fix: str
    converter_stops: bool
    """Whether this release's converter stops at it (else it writes a file)."""
    config: Mapping[str, Any] = {}
    added: Mapping[str, TensorShape] = {}
    prefix: str = ""
    """Put before every tensor's name."""
    without: str = ""
    """Part of the names that are left out."""

    def tensors(self) -> dict[str, TensorShape]:
        plain = {name: TensorShape("BF16", shape) for name, shape in llama_shapes().items()}
        kept = {n: t for n, t in plain.items() if not self.without or self.without not in n}
        return {self.prefix + name: tensor for name, tensor in (kept | dict(self.added)).items()}

    def settings(self) -> dict[str, Any]:
        changed = {**CONFIG, **self.config}
        return {key: value for key, value in changed.items() if value is not None}

    def ghost(self, folder: Path) -> Path:
        return write_ghost(folder, self.settings(), self.tensors())


def _mlx(name: str, rows: int, *, biases: bool = True) -> dict[str, TensorShape]:
    packed = {
        f"{name}.weight": TensorShape("U32", (rows, 1)),
        f"{name}.scales": TensorShape("BF16", (rows, 1)),
    }
    return packed | ({f"{name}.biases": TensorShape("BF16", (rows, 1))} if biases else {})


_BITS = {"quantization": {"bits": 4, "group_size": 8}}
_I32 = TensorShape("I32", (2, 8))
_F32 = TensorShape("F32", (8,))
_LLAMA = "https://github.com/ggml-org/llama.cpp/issues/"

CLASSES = (
    Class("mlx 4 bit", _LLAMA + "12524", "model.embed_tokens.biases", "packed by MLX",
          "mlx_lm.fuse --model BASE --adapter-path ADAPTERS --save-path FUSED --dequantize", True,
          config=_BITS, added=_mlx("model.embed_tokens", 32)),
    Class("mlx output layer", _LLAMA + "14467", "lm_head.biases", "packed by MLX", "--dequantize",
          True, config=_BITS, added=_mlx("lm_head", 32)),
    Class("mlx inside a wrapper", _LLAMA + "12524", "language_model.model.embed_tokens.biases",
          "packed by MLX", "--dequantize", True, config=_BITS, prefix="language_model.",
          added=_mlx("model.embed_tokens", 32)),
    Class("mlx mxfp4", "https://github.com/ml-explore/mlx-lm/issues/646", "lm_head.scales",
          "packed by MLX", "--dequantize", True, config=_BITS,
          added=_mlx("lm_head", 32, biases=False)),
    Class("bitsandbytes 8 bit", _LLAMA + "12923", f"{DOWN}.SCB", "bitsandbytes",
          "merge_and_unload", True, added={f"{DOWN}.SCB": _F32}),
    Class("bitsandbytes 4 bit", "https://github.com/ggml-org/llama.cpp/pull/5647",
          f"{DOWN}.weight.absmax", "bitsandbytes", "merge_and_unload", True,
          added={f"{DOWN}.weight.absmax": _F32, f"{DOWN}.weight.quant_map": _F32}),
    Class("1.58 bit", _LLAMA + "11122", f"{DOWN}.weight_scale", "separate scales", "bfloat16",
          True, added={f"{DOWN}.weight_scale": TensorShape("F32", (1,))}),
    Class("fp8 without its settings", _LLAMA + "12644", f"{DOWN}.weight_scale_inv",
          "separate scales", "bfloat16", True,
          added={f"{DOWN}.weight": TensorShape("F8_E4M3", (8, 16)),
                 f"{DOWN}.weight_scale_inv": TensorShape("F32", (1, 1))}),
    Class("quanto", _LLAMA + "9252", "lm_head.weight._data", "quanto", "dequantize", True,
          added={"lm_head.weight._data": TensorShape("I8", (32, 8)),
                 "lm_head.weight._scale": TensorShape("BF16", (32, 1))}),
    Class("awq", _LLAMA + "7505", f"{DOWN}.qweight", "GPTQ or AWQ", "bfloat16", True,
          config={"quantization_config": {"quant_method": "awq", "bits": 4}},
          without="layers.0.mlp.down_proj",
          added={f"{DOWN}.qweight": _I32, f"{DOWN}.qzeros": _I32}),
    Class("gptq, which the converter undoes", _LLAMA + "7505", f"{DOWN}.g_idx", "GPTQ or AWQ",
          "bfloat16", False,
          config={"quantization_config": {"quant_method": "gptq", "bits": 4}},
          without="layers.0.mlp.down_proj",
          added={f"{DOWN}.qweight": _I32, f"{DOWN}.g_idx": TensorShape("I32", (16,)),
                 f"{DOWN}.qzeros": TensorShape("I32", (1, 1)),
                 f"{DOWN}.scales": TensorShape("BF16", (1, 8))}),
    Class("unmerged LoRA", _LLAMA + "12923", f"{DOWN}.lora_A.weight", "not merged",
          "mlx_lm.fuse", True, added={f"{DOWN}.lora_A.weight": TensorShape("BF16", (4, 16))}),
    Class("PEFT's wrapper", _LLAMA + "9211", "base_model.model.model.embed_tokens.weight",
          "not merged", "merge_and_unload", True, prefix="base_model.model."),
    Class("vision class", _LLAMA + "13805", "MllamaForConditionalGeneration", "unknown to the",
          "choose a base", True, config={"architectures": ["MllamaForConditionalGeneration"]}),
    Class("vision wrapper", _LLAMA + "12053", "LlavaNextForConditionalGeneration",
          "unknown to the", "choose a base", True,
          config={"architectures": ["LlavaNextForConditionalGeneration"]}),
    Class("encoder and decoder", _LLAMA + "6718", "M2M100ForConditionalGeneration",
          "unknown to the", "choose a base", True,
          config={"architectures": ["M2M100ForConditionalGeneration"]}),
    Class("another class of a known family", _LLAMA + "23674", "LlamaForConditionalGeneration",
          "knows its family", '"architectures": ["LlamaForCausalLM"]', True,
          config={"architectures": ["LlamaForConditionalGeneration"]}),
    Class("no class at all", _LLAMA + "15284", "architectures", "no `architectures`",
          "copy config.json", True, config={"architectures": None}),
    Class("vocabulary of -1", _LLAMA + "3900", "vocab_size", "no number of tokens",
          '"vocab_size": 32', False, config={"vocab_size": -1}),
    Class("rows added to the embedding", _LLAMA + "3442", "model.embed_tokens.weight",
          "has 32 rows", '"vocab_size": 32', False, config={"vocab_size": 31}),
    Class("settings of a quantiser left behind", "https://github.com/ml-explore/mlx-lm/issues/659",
          "quantization_config", "bitsandbytes, though they are not", "c.pop(", True,
          config={"quantization_config": {"quant_method": "bitsandbytes"}}),
    Class("no output layer", _LLAMA + "9211", "lm_head.weight", "is missing",
          '"tie_word_embeddings": true', False, config={"tie_word_embeddings": False}),
    Class("a layer is missing", _LLAMA + "3097", "layer 1", "layer 1 is missing",
          '"num_hidden_layers": 3', False, without="layers.1."),
)  # fmt: skip
