"""What only MLX can tell about training: the memory a real step takes, and a fused model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.generate import generate_step
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer, save

from harness.engines.mlx import MlxEngine, compute_dtype
from harness.records import Scalar
from harness.registry import TrainingSettings

GENERATED = 8
"""Tokens generated after the context: the peak is the prefill's, one step shows the cache."""
STEPS = 2
"""The optimizer's state appears in the first step and is held during the second."""


def measure_peaks(
    model_dir: Path, context_tokens: int, training: TrainingSettings, seed: int
) -> dict[str, Scalar]:
    """Peak memory of MLX's allocator in GB (10⁹ bytes): load, inference, LoRA training.

    Every training batch is filled to `tokens_per_batch`, since the longest batch sets the peak
    of a real run. Runs mlx-lm's own trainer; the process is spent afterwards.

    Raises:
        ModelError: the model does not load.
    """
    mx.reset_peak_memory()
    engine = MlxEngine(model_dir)
    model, load_peak = engine.model, _peak_gb()
    vocabulary = len(engine.tokenizer)
    del engine
    mx.random.seed(seed)
    rng = np.random.default_rng(seed)

    mx.reset_peak_memory()
    prompt = mx.array(rng.integers(0, vocabulary, context_tokens - GENERATED))
    for _ in generate_step(prompt, model, max_tokens=GENERATED):
        pass
    inference_peak = _peak_gb()
    mx.clear_cache()

    model.freeze()
    linear_to_lora_layers(
        model,
        len(model.layers) if training.lora_layers < 0 else training.lora_layers,
        {"rank": training.rank, "scale": training.scale, "dropout": training.dropout},
    )
    trainable = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    mx.reset_peak_memory()
    _train(model, training, vocabulary, rng)
    return {
        "load_peak_gb": load_peak,
        "inference_peak_gb": inference_peak,
        "train_peak_gb": _peak_gb(),
        "context_tokens": context_tokens,
        "train_tokens": training.tokens_per_batch,
        "train_batch": training.batch_size,
        "lora_layers": training.lora_layers,
        "rank": training.rank,
        "trainable_parameters": int(trainable),
        "grad_checkpoint": training.grad_checkpoint,
        "dtype": str(compute_dtype() or "as stored").removeprefix("mlx.core."),
    }


def _train(
    model: Any, training: TrainingSettings, vocabulary: int, rng: np.random.Generator
) -> None:
    length = training.tokens_per_batch // training.batch_size
    rows = rng.integers(0, vocabulary, (training.batch_size, length)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            optim.Adam(learning_rate=training.learning_rate),
            train_dataset=[(row, 0) for row in rows],
            args=TrainingArgs(
                batch_size=training.batch_size,
                iters=STEPS,
                max_seq_length=length,
                steps_per_report=STEPS + 1,
                steps_per_save=STEPS + 1,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
                grad_checkpoint=training.grad_checkpoint,
            ),
        )


def fuse_adapter(model_dir: Path, adapter_dir: Path, out_dir: Path) -> Path:
    """Write the model with its adapter fused in, dequantised, ready for the GGUF converter.

    Raises:
        ModelError: the model does not load.
        AdapterError: the adapter does not fit it.
    """
    engine = MlxEngine(model_dir)
    engine.use_adapter(adapter_dir)
    model = engine.model
    fused = [(n, m.fuse(dequantize=True)) for n, m in model.named_modules() if hasattr(m, "fuse")]
    if fused:
        model.update_modules(tree_unflatten(fused))
    model = dequantize_model(model)
    _, config = load_model(model_dir, lazy=True)
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    save(out_dir, model_dir, model, load_tokenizer(model_dir), config, donate_model=False)
    return out_dir


def _peak_gb() -> float:
    return round(mx.get_peak_memory() / 1e9, 2)
