"""The MLX side of a twin: strict load, logits, LoRA steps, fusing and quantising, as mlx-lm does.

A twin has no tokenizer, so mlx-lm's own commands cannot be run on it; the functions behind them
are, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.engines.protocol import Logits
from harness.errors import ModelError, ToolMissingError
from harness.registry import TrainingSettings

try:
    import mlx.core as mx
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten, tree_map, tree_unflatten
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
    from mlx_lm.utils import (
        _get_classes,
        dequantize_model,
        load_model,
        quantize_model,
        save_config,
        save_model,
    )
except ImportError as missing:  # pragma: no cover - depends on the machine
    raise ToolMissingError(
        f"MLX is not installed here ({missing}); install it with: pip install mlx-lm 'mlx[cpu]'"
    ) from missing

STEPS = 2
"""The first step moves B away from zero, the second A as well."""
LEARNING_RATE = 3e-3
"""So that two steps change the logits as much as a night of training does."""
GROUP, BITS = 64, 4


class Trained(NamedTuple):
    """What a trained adapter changes."""

    logits: list[Logits]
    trainable_parameters: int


def twin_logits(model_dir: Path, texts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits of every text, [tokens, vocabulary] each, of a model that is loaded strictly.

    Raises ModelError where mlx-lm refuses it or its forward pass breaks.
    """
    model, _ = _load(model_dir)
    return _logits(model, texts)


def write_twin(config: dict[str, Any], out: Path, seed: int) -> int:
    """Random weights from mlx-lm's own class, in its own layout; the number of parameters.

    For an architecture that transformers lacks. Raises ModelError as `twin_logits` does.
    """
    try:
        model_class, args_class = _get_classes(dict(config))
        model = model_class(args_class.from_dict(dict(config)))
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise _refused("does not know this architecture", error) from error
    mx.random.seed(seed)

    model.update(tree_map(_randomised, model.parameters()))
    mx.eval(model.parameters())
    save_model(out, model)
    save_config(dict(config), out / "config.json", keep_vision_config=True)
    return sum(v.size for _, v in tree_flatten(model.parameters()))


def train_adapter(
    model_dir: Path,
    adapter_dir: Path,
    texts: Sequence[Sequence[int]],
    training: TrainingSettings,
    seed: int,
) -> Trained:
    """Two real LoRA steps on every layer; the adapter is kept as mlx-lm keeps it.

    Raises ModelError where the model cannot be trained.
    """
    model, _ = _load(model_dir)
    model.freeze()
    mx.random.seed(seed)
    lora = {"rank": training.rank, "scale": training.scale, "dropout": 0.0}
    adapter_dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    longest = max(len(text) for text in texts)
    rows = [rng.permutation(texts[-1]).tolist() for _ in range(STEPS)]
    try:
        linear_to_lora_layers(model, len(model.layers), lora)
        trainable = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
        train(
            model,
            optim.Adam(learning_rate=LEARNING_RATE),
            train_dataset=[(row, 0) for row in rows],
            args=TrainingArgs(
                batch_size=1,
                iters=STEPS,
                max_seq_length=longest,
                steps_per_report=STEPS + 1,
                steps_per_save=STEPS + 1,
                adapter_file=str(adapter_dir / "adapters.safetensors"),
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _refused("cannot train it", error) from error
    settings = {
        "fine_tune_type": "lora",
        "num_layers": len(model.layers),
        "lora_parameters": lora,
    }
    (adapter_dir / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    model.eval()
    return Trained(_logits(model, texts), int(trainable))


def fuse(model_dir: Path, adapter_dir: Path, out: Path, *, dequantise: bool) -> None:
    """What `mlx_lm.fuse` does, with or without --dequantize. Raises ModelError."""
    model, config = _load(model_dir)
    try:
        load_adapters(model, str(adapter_dir))
        model.eval()
        fused = [
            (name, module.fuse(dequantize=dequantise))
            for name, module in model.named_modules()
            if hasattr(module, "fuse")
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _refused("cannot fuse an adapter into it", error) from error
    model.update_modules(tree_unflatten(fused))
    if dequantise:
        model = dequantize_model(model)
        config.pop("quantization", None)
        config.pop("quantization_config", None)
    _save(model, config, out)


def quantise(model_dir: Path, out: Path) -> None:
    """What `mlx_lm.convert -q` does: 4 bits in groups of 64. Raises ModelError."""
    model, config = _load(model_dir)
    try:
        model, config = quantize_model(model, config, GROUP, BITS)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _refused("cannot quantise it", error) from error
    _save(model, config, out)


def _randomised(weight: Any) -> Any:
    noise = mx.random.normal(weight.shape)
    return weight + 0.1 * noise if weight.ndim < 2 else noise / weight.shape[-1] ** 0.5


def _load(model_dir: Path) -> tuple[Any, dict[str, Any]]:
    try:
        model, config = load_model(model_dir, lazy=False, strict=True)
    except (ValueError, KeyError, TypeError, RuntimeError, OSError, AttributeError) as error:
        raise _refused("cannot load it", error) from error
    model.eval()
    return model, config


def _save(model: Any, config: dict[str, Any], out: Path) -> None:
    # As mlx_lm.utils.save, without the tokenizer.
    keep_vision = "vision_tower" in getattr(model, "model", {})
    save_model(out, model)
    save_config(config, out / "config.json", keep_vision_config=keep_vision)


def _logits(model: Any, texts: Sequence[Sequence[int]]) -> list[Logits]:
    try:
        return [np.array(model(mx.array([list(text)]))[0].astype(mx.float32)) for text in texts]
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise _refused("breaks in the forward pass", error) from error


def _refused(what: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return ModelError(f"MLX {what}: {reason}")
