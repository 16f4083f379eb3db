"""The sizes foretold from a plan are those of the files that llama.cpp writes, to the byte."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoint_files import CONFIG, write_json
from safetensors.numpy import save_file

from harness.checkpoints.converter import ConversionInfo, ConversionJob, convert_all
from harness.checkpoints.gguf_sizes import (
    Mixture,
    PlannedTensor,
    converted_bytes,
    natural_outtype,
    quantised_size,
    read_plan,
)
from harness.errors import ConversionError
from harness.machine import cache_root

LINE = "INFO:hf-to-gguf:{},   torch.bfloat16 --> {}, shape = {{{}}}\n"
TOTAL = "INFO:gguf.gguf_writer:/x/m.gguf: n_tensors = {}, total_size = 1.0M\n"


def test_the_plan_is_read_from_the_log() -> None:
    log = (
        "INFO:hf-to-gguf:gguf: indexing model part 'model.safetensors'\n"
        + LINE.format("token_embd.weight", "BF16", "64, 100")
        + LINE.format("blk.0.attn_norm.weight", "F32", "64")
        + TOTAL.format(2)
    )
    plan = read_plan(log)
    assert plan == (
        PlannedTensor("token_embd.weight", "BF16", (64, 100)),
        PlannedTensor("blk.0.attn_norm.weight", "F32", (64,)),
    )
    assert converted_bytes(plan) == 64 * 100 * 2 + 64 * 4


@pytest.mark.parametrize(
    "log", ["", TOTAL.format(1), LINE.format("a", "F32", "1"), TOTAL.format(0)]
)
def test_a_log_of_another_kind_is_refused(log: str) -> None:
    with pytest.raises(ConversionError, match="list of tensors cannot be read"):
        read_plan(log)


def test_bf16_stays_bf16() -> None:
    assert natural_outtype({"BF16": 9, "F32": 2}) == "bf16"
    assert natural_outtype({"F16": 1}) == natural_outtype({"F32": 3, "U32": 9}) == "f16"
    assert natural_outtype({}) == "f16"


def plan_of(columns: int) -> list[PlannedTensor]:
    return [
        PlannedTensor("token_embd.weight", "BF16", (columns, 1024)),
        PlannedTensor("output_norm.weight", "F32", (columns,)),
        PlannedTensor("blk.0.attn_q.weight", "BF16", (columns, columns)),
        PlannedTensor("blk.0.ffn_down.weight", "BF16", (512, columns)),
    ]


def test_what_odd_rows_cost() -> None:
    even, odd, odder = (quantised_size(plan_of(c), "Q4_K_M") for c in (256, 288, 40))
    assert (even.fallback_tensors, even.fallback_share) == (0, 0.0)
    assert even.bytes == even.bytes_without_fallback
    # 288 is a multiple of 32: Q5_0 for Q4_K and Q8_0 for Q6_K, so the embedding grows most.
    assert odd.fallback_tensors == 2
    down = 512 * 288 * 210 // 256
    assert odd.bytes == 288 * 1024 * 34 // 32 + 288 * 4 + 288 * 288 * 22 // 32 + down
    # 40 is none, so those stay at 16 bits.
    assert odder.bytes == 40 * 1024 * 2 + 40 * 4 + 40 * 40 * 2 + 512 * 40 * 210 // 256
    assert quantised_size(plan_of(40), "Q8_0").fallback_tensors == 2
    assert quantised_size(plan_of(288), "Q8_0").fallback_tensors == 0


@pytest.mark.parametrize(
    ("columns", "given"),
    [(14464, 22 / 32), (13696, 22 / 32), (4544, 22 / 32), (2688, 22 / 32), (172, 2), (4096, 0)],
)
def test_rows_that_people_met(columns: int, given: float) -> None:
    size = quantised_size([PlannedTensor("blk.0.attn_q.weight", "BF16", (columns, 64))], "Q4_K_M")
    assert size.fallback_share == (1.0 if given else 0.0)
    assert size.bytes == columns * 64 * (given or 144 / 256)


def write_llama(folder: Path, hidden: int, ffn: int, layers: int, **config: Any) -> Path:
    """A Llama of zeros, or with `num_local_experts` a Mixtral, for sizes alone."""
    folder.mkdir()
    experts = config.get("num_local_experts", 0)
    settings = CONFIG | {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "head_dim": hidden // 2,
        "vocab_size": 96,
    }
    write_json(folder / "config.json", settings | config)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (96, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (96, hidden)
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        for name, rows in (("q", hidden), ("k", hidden // 2), ("v", hidden // 2), ("o", hidden)):
            shapes[f"{stem}.self_attn.{name}_proj.weight"] = (rows, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{stem}.{name}.weight"] = (hidden,)
        for expert in range(experts):
            place = f"{stem}.block_sparse_moe.experts.{expert}"
            shapes |= {f"{place}.w1.weight": (ffn, hidden), f"{place}.w3.weight": (ffn, hidden)}
            shapes[f"{place}.w2.weight"] = (hidden, ffn)
        if experts:
            shapes[f"{stem}.block_sparse_moe.gate.weight"] = (experts, hidden)
        else:
            for name in ("gate", "up"):
                shapes[f"{stem}.mlp.{name}_proj.weight"] = (ffn, hidden)
            shapes[f"{stem}.mlp.down_proj.weight"] = (hidden, ffn)
    save_file({n: np.zeros(s, np.float16) for n, s in shapes.items()}, folder / "model.safetensors")
    return folder


def data_bytes(file: Path) -> int:
    """Bytes after the header, padding included."""
    return int(file.stat().st_size - gguf.GGUFReader(file).data_offset)


def quantise(source: Path, target: Path, mixture: Mixture) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = {"Q8_0": 7, "Q4_K_M": 15}[mixture]  # llama.h's llama_ftype
    parameters.nthread = 1
    files = str(source).encode(), str(target).encode()
    assert llama_cpp.llama_model_quantize(*files, ctypes.byref(parameters)) == 0


@pytest.mark.real
def test_sizes_are_those_of_llama_cpp(tmp_path: Path) -> None:
    mixtral = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
               "num_local_experts": 8, "num_experts_per_tok": 2}  # fmt: skip
    folders = {
        write_llama(tmp_path / "even", 256, 512, 9, tie_word_embeddings=False): 0,
        write_llama(tmp_path / "odd", 96, 160, 8): 0,
        write_llama(tmp_path / "odder", 40, 256, 3): 0,
        write_llama(tmp_path / "experts", 256, 256, 4, **mixtral, tie_word_embeddings=False): 8,
    }
    jobs = [
        ConversionJob(model_dir=f, out_file=tmp_path / f"{f.name}.gguf", vocabulary="none")
        for f in folders
    ]
    for info, experts in zip(
        convert_all(jobs, cache_dir=cache_root()), folders.values(), strict=True
    ):
        assert isinstance(info, ConversionInfo)
        plan = read_plan(info.log)
        assert converted_bytes(plan) == data_bytes(info.out_file)
        for mixture in ("Q8_0", "Q4_K_M"):
            target = info.out_file.with_suffix(f".{mixture}")
            quantise(info.out_file, target, mixture)
            foretold = quantised_size(plan, mixture, experts=experts)
            assert foretold.bytes == data_bytes(target), (info.out_file.name, mixture)
