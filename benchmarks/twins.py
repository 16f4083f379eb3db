"""Print what twins measure: every family through the pipeline, and Granite in 16 bits.

    python benchmarks/twins.py [FAMILY ...]      # the table of docs/twins.md
    python benchmarks/twins.py --sixteen-bits    # f16 against bf16 files of Granite twins

The families are those of tests/twin_configs.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from twin_configs import CONFIGS  # noqa: E402

from harness.judges.pipeline import judge  # noqa: E402
from harness.machine import cache_root  # noqa: E402
from harness.policy import load_policy  # noqa: E402
from harness.records import Scalar  # noqa: E402
from harness.registry import TrainingSettings  # noqa: E402
from harness.twins.pipeline import Examined, Settings, examine  # noqa: E402
from harness.twins.shrink import shrink  # noqa: E402
from harness.workers import local_worker, run  # noqa: E402

OVERFLOW = 3e4
"""What the inner activations of a feed-forward layer are scaled up by: some pass f16's 65,504."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(CONFIGS), metavar="FAMILY")
    parser.add_argument("--sixteen-bits", action="store_true")
    arguments = parser.parse_args()
    if arguments.sixteen_bits:
        rows = [row for name in ("granite", "granite4", "granite4-hybrid") for row in _run16(name)]
        headers = ["twin", "activations", "file", "KL to f32", "same top", "finite"]
    else:
        rows = [_family(name) for name in arguments.families]
        headers = ["family", "M params", "MLX vs transformers", "fused vs adapter", "GGUF vs MLX",
                   "largest Δ", "GGUF vs MLX, QLoRA", "kept at 4 bits", "s", "said"]  # fmt: skip
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def _family(name: str) -> list[str]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, local_worker(Path(folder) / "log") as executor:
        seen: Examined = run(
            executor, Path(folder) / "log", None, _examine, CONFIGS[name], Path(folder) / "work"
        )
    numbers = seen.numbers
    said = [finding.message for finding in seen.findings if finding.severity != "note"]
    if not said:
        said = [problem.text for problem in judge(numbers, load_policy().gates).problems]
    parameters = numbers.get("twin_parameters")
    return [
        name,
        f"{float(parameters) / 1e6:.1f}" if isinstance(parameters, int) else "",
        *(
            _cell(numbers.get(key))
            for key in (
                "mlx_vs_reference_kl_nats", "fused_vs_adapter_kl_nats", "gguf_vs_mlx_kl_nats",
                "gguf_vs_mlx_max_logit_difference", "qlora_gguf_vs_mlx_kl_nats",
                "requantised_adapter_kept",
            )
        ),
        f"{time.monotonic() - started:.0f}",
        "; ".join(said)[:300] or "agree",
    ]  # fmt: skip


def _examine(config: dict[str, Any], work: Path) -> Examined:
    return examine(shrink(config), work, Settings(cache_root(), TrainingSettings()))


def _cell(value: Scalar) -> str:
    return f"{value:.2g}" if isinstance(value, float) else ""


def _run16(name: str) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder, local_worker(Path(folder) / "log") as executor:
        rows: list[list[str]] = run(
            executor, Path(folder) / "log", None, _sixteen_bits, name, Path(folder) / "work"
        )
    return rows


def _sixteen_bits(name: str, work: Path) -> list[list[str]]:
    """A fused twin's files in f32, f16 and bf16, as it is and with large activations."""
    from harness.checkpoints.converter import convert
    from harness.engines.llamacpp import LlamaCppEngine
    from harness.parity import parity
    from harness.twins.build import random_texts
    from harness.twins.pipeline import FUSED

    settings = Settings(cache_root(), TrainingSettings(), quantised=False)
    examine(shrink(CONFIGS[name]), work, settings)
    texts, rows = random_texts(0), []
    for size in ("as they are", f"× {OVERFLOW:.0e}"):
        if size != "as they are":
            _scale_up(work / FUSED)
        logits = {}
        for outtype in ("f32", "f16", "bf16"):
            file = work / f"{outtype}.gguf"
            convert(work / FUSED, file, outtype, cache_dir=cache_root(), vocabulary="none")
            engine = LlamaCppEngine(file, exact=True)
            logits[outtype] = [engine.logits(text) for text in texts]
            engine.close()
            seen = parity(logits["f32"], logits[outtype])
            finite = np.mean([np.isfinite(text).all(axis=-1).mean() for text in logits[outtype]])
            same = f"{100 * seen.top1_agreement:.1f} %"
            kl = f"{seen.mean_kl_nats:.2g}"
            rows.append([name, size, outtype, kl, same, f"{100 * finite:.0f} %"])
    return rows


def _scale_up(folder: Path) -> None:
    """The same function, but what goes into the last matrix of each MLP is larger."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    for key in tensors:
        if "mlp.up_proj" in key:
            tensors[key] = tensors[key] * np.float32(OVERFLOW)
        elif "mlp.down_proj" in key:
            tensors[key] = tensors[key] / np.float32(OVERFLOW)
    save_file(tensors, file, metadata={"format": "mlx"})


if __name__ == "__main__":
    main()
