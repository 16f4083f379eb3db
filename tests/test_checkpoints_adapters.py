from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import (
    CONFIG,
    FFN,
    HIDDEN,
    VOCAB,
    adapter_config,
    lora_tensors,
    write_adapter,
    write_json,
    write_model,
    zeros,
)
from safetensors.numpy import save_file

from harness.checkpoints.adapters import check_adapter, fingerprint
from harness.errors import AdapterError, ModelError

LORA = {"rank": 4, "scale": 2.0, "dropout": 0.0}
K1 = "model.layers.1.self_attn.k_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


def dora_tensors() -> dict[str, Any]:
    magnitudes = {
        f"model.layers.{layer}.{module}.m": (rows,)
        for layer in (1, 2)
        for module, rows in (("self_attn.k_proj", HIDDEN // 2), ("mlp.down_proj", HIDDEN))
    }
    return lora_tensors() | zeros(magnitudes)


def with_embedding() -> dict[str, Any]:
    return lora_tensors() | zeros(
        {
            "model.embed_tokens.lora_a": (VOCAB, 4),
            "model.embed_tokens.lora_b": (4, HIDDEN),
        }
    )


KEYS = ["self_attn.k_proj", "mlp.down_proj", "model.embed_tokens"]
GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": (lora_tensors(), {}),
    "all layers": (lora_tensors(layers=(0, 1, 2)), {"num_layers": -1}),
    "more layers than there are": (lora_tensors(layers=(0,)), {"num_layers": 16}),
    "dora": (dora_tensors(), {"fine_tune_type": "dora"}),
    "embedding": (with_embedding(), {"lora_parameters": LORA | {"keys": KEYS}}),
    "full": (zeros({"model.norm.weight": (HIDDEN,)}), {"fine_tune_type": "full"}),
    "rank 1": (lora_tensors(rank=1), {"lora_parameters": LORA | {"rank": 1}}),
}


def replaced(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return lora_tensors() | zeros({name: shape})


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in lora_tensors().items() if key != name}


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rank": (
        lora_tensors(rank=8),
        {},
        "mlp.down_proj.lora_a has shape [16, 8], but rank 4 in adapter_config.json needs [16, 4]; "
        "set lora_parameters.rank to 8",
    ),
    "wider base": (
        replaced(f"{K1}.lora_a", (12, 4)),
        {},
        "k_proj.lora_a has shape [12, 4], but the base weight of shape [4, 8] needs [8, 4]",
    ),
    "other output": (
        replaced(f"{K1}.lora_b", (4, 8)),
        {},
        "k_proj.lora_b has shape [4, 8], but the base weight of shape [4, 8] needs [4, 4]",
    ),
    "layer beyond": (
        lora_tensors(layers=(7,)),
        {},
        "is in layer 7, but the base has only 3 layers",
    ),
    "layer below": (
        lora_tensors(layers=(0,)),
        {},
        "num_layers = 2 in adapter_config.json covers only layers 1 to 2",
    ),
    "unknown module": (
        lora_tensors()
        | zeros({"model.layers.2.moe.x.lora_a": (8, 4), "model.layers.2.moe.x.lora_b": (4, 8)}),
        {},
        "changes model.layers.2.moe.x.weight, which the base does not have",
    ),
    "key left out": (
        lora_tensors(),
        {"lora_parameters": LORA | {"keys": ["self_attn.k_proj"]}},
        "down_proj is not among lora_parameters.keys",
    ),
    "dora without m": (lora_tensors(), {"fine_tune_type": "dora"}, "has no m"),
    "lora with m": (dora_tensors(), {}, 'set fine_tune_type to "dora"'),
    "full of another": (
        zeros({"model.norm.weight": (HIDDEN + 1,)}),
        {"fine_tune_type": "full"},
        "model.norm.weight has shape [9], but in the base it has [8]",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_adapters(tmp_path: Path, base: Path, name: str) -> None:
    tensors, config = GOOD[name]
    info = check_adapter(write_adapter(tmp_path / "a", tensors, **config), base)
    assert info.parameters == sum(array.size for array in tensors.values())
    assert info.unchecked == ()


def test_what_is_told_of_an_adapter(tmp_path: Path, base: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    info = check_adapter(folder, base)
    assert (info.fine_tune_type, info.rank, info.scale) == ("lora", 4, 2.0)
    assert (info.layers, info.modules) == ((1, 2), 4)
    assert info.fingerprint == fingerprint(folder)
    write_json(folder / "adapter_config.json", adapter_config(model="other"))
    assert fingerprint(folder) != info.fingerprint


@pytest.mark.parametrize("name", BAD)
def test_bad_adapters(tmp_path: Path, base: Path, name: str) -> None:
    tensors, config, says = BAD[name]
    with pytest.raises(AdapterError) as caught:
        check_adapter(write_adapter(tmp_path / "a", tensors, **config), base)
    assert says in str(caught.value)


# mlx-lm fills a missing half with its initial value and says nothing.
@pytest.mark.parametrize("leaf", ["lora_a", "lora_b"])
def test_half_a_lora(tmp_path: Path, base: Path, leaf: str) -> None:
    folder = write_adapter(tmp_path / "a", without(f"{K1}.{leaf}"))
    with pytest.raises(AdapterError, match=rf"k_proj has no {leaf}"):
        check_adapter(folder, base)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fine_tune_type": "magic"}, "fine_tune_type magic is unknown"),
        ({"num_layers": "two"}, "num_layers must be a whole number"),
        ({"lora_parameters": None}, "has no lora_parameters"),
        ({"lora_parameters": {"rank": 4, "alpha": 8, "dropout": 0}}, "set scale to alpha / rank"),
        ({"lora_parameters": LORA | {"rank": 0}}, "rank must be a whole number"),
        ({"lora_parameters": LORA | {"rank": True}}, "rank must be a whole number"),
        ({"lora_parameters": LORA | {"scale": float("nan")}}, "it holds NaN"),
        ({"lora_parameters": LORA | {"scale": float("inf")}}, "scale must be a number"),
        ({"lora_parameters": LORA | {"dropout": 1}}, "dropout must be a number from 0"),
        ({"lora_parameters": LORA | {"keys": "q"}}, "keys must be a list"),
        ({"peft_type": "LORA"}, "is a PEFT (Hugging Face) adapter"),
    ],
)
def test_bad_settings(tmp_path: Path, base: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(AdapterError) as caught:
        check_adapter(write_adapter(tmp_path / "a", **changes), base)
    assert says in str(caught.value)
    assert "adapter_config.json" in str(caught.value)


def nothing(folder: Path) -> None:
    (folder / "adapters.safetensors").unlink()


def peft_file(folder: Path) -> None:
    (folder / "adapters.safetensors").rename(folder / "adapter_model.safetensors")


def peft_names(folder: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight"
    save_file(zeros({name: (4, 8)}), folder / "adapters.safetensors")


def empty(folder: Path) -> None:
    save_file({}, folder / "adapters.safetensors")


def truncated(folder: Path) -> None:
    file = folder / "adapters.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def checkpoint_only(folder: Path) -> None:
    (folder / "adapters.safetensors").rename(folder / "0000100_adapters.safetensors")


def fused(folder: Path) -> None:
    save_file(zeros({"model.norm.weight": (8,)}), folder / "adapters.safetensors")


def no_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (nothing, "has no adapters.safetensors; train it"),
        (peft_file, "is a PEFT (Hugging Face) adapter"),
        (peft_names, "is a PEFT (Hugging Face) adapter"),
        (empty, "is empty"),
        (truncated, "is truncated"),
        (checkpoint_only, "copy a checkpoint such as 0000100_adapters.safetensors"),
        (fused, "model.norm.weight is no part of a LoRA"),
        (no_config, "adapter_config.json is missing"),
    ],
)
def test_broken_folders(
    tmp_path: Path, base: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = write_adapter(tmp_path / "a")
    damage(folder)
    with pytest.raises(AdapterError) as caught:
        check_adapter(folder, base)
    assert says in str(caught.value)
    with pytest.raises(AdapterError, match="is not a folder"):
        check_adapter(tmp_path / "nowhere", base)


def test_a_broken_base_is_the_bases_fault(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        check_adapter(write_adapter(tmp_path / "a"), tmp_path / "nowhere")


def test_a_packed_base(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", quantization={"bits": 4, "group_size": 32})
    name = "model.layers.2.mlp.down_proj"
    save_file(
        {
            f"{name}.weight": np.zeros((24, 64 * 4 // 32), np.uint32),
            f"{name}.scales": np.zeros((24, 2), np.float16),
            f"{name}.biases": np.zeros((24, 2), np.float16),
        },
        base / "model.safetensors",
    )
    good = zeros({f"{name}.lora_a": (64, 4), f"{name}.lora_b": (4, 24)})
    assert check_adapter(write_adapter(tmp_path / "a", good), base).modules == 1
    bad = zeros({f"{name}.lora_a": (8, 4), f"{name}.lora_b": (4, 24)})
    with pytest.raises(AdapterError, match=r"base weight of shape \[24, 64\] needs \[64, 4\]"):
        check_adapter(write_adapter(tmp_path / "a", bad), base)


def test_renamed_modules_are_left_to_the_engine(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", model_type="granitemoehybrid")
    name = "model.layers.2.mlp.split_proj"
    tensors = lora_tensors() | zeros({f"{name}.lora_a": (8, 4), f"{name}.lora_b": (4, FFN)})
    assert check_adapter(write_adapter(tmp_path / "a", tensors), base).unchecked == (name,)


@pytest.mark.real
@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_mlx_lm_agrees(tmp_path: Path, name: str) -> None:
    """mlx-lm takes every adapter that is called good, and refuses or misreads the bad ones."""
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.utils import load_adapters

    model = Model(ModelArgs.from_dict(CONFIG))
    tensors, config, *bad = (GOOD | BAD)[name]
    folder = write_adapter(tmp_path / "a", tensors, **config)
    if not bad:
        load_adapters(model, str(folder))
    elif name != "dora without m":  # mlx-lm then computes m itself
        with pytest.raises(ValueError, match="incompatible tensors"):
            load_adapters(model, str(folder))
