"""Train the example adapters again, with mlx-lm's own command line.

    python examples/adapters/make_adapters.py                   # both
    python examples/adapters/make_adapters.py gentle            # one
    python examples/adapters/make_adapters.py mine --root DIR   # another recipe

A root folder holds recipes/NAME.yaml, a plain mlx-lm configuration, and data/NAME/. mlx-lm runs
with what makes it fast on a Linux CPU, and its configuration is stripped of this machine's paths.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.errors import FetchError, HarnessError, UsageError, WorkerDied
from harness.machine import cache_root, worker_environment
from harness.registry import load_registry
from harness.sources import NotHere, resolve

HERE = Path(__file__).resolve().parent
BASE = "smollm2-135m-instruct"
WRITTEN = ("adapters.safetensors", "adapter_config.json")


def train(name: str, root: Path, model: Path) -> Path:
    """Train `root/recipes/name.yaml` on `root/data/name/` into the folder `root/name`.

    Raises:
        UsageError: the recipe or its data is missing.
        WorkerDied: mlx-lm ended with an error; its own output says why.
    """
    recipe, data, adapter = root / "recipes" / f"{name}.yaml", root / "data" / name, root / name
    for needed in (recipe, data / "train.jsonl", data / "valid.jsonl"):
        if not needed.is_file():
            raise UsageError(f"'{name}' needs {needed}; write it, or name another adapter.")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "mlx_lm", "lora", "--train", "--config", str(recipe)]
        command += ["--model", str(model), "--data", str(data), "--adapter-path", scratch]
        ended = subprocess.run(command, env={**os.environ, **worker_environment()}, check=False)
        if ended.returncode != 0:
            raise WorkerDied(
                f"mlx-lm ended with status {ended.returncode} while training '{name}'; "
                "what it printed above says why."
            )
        _neutralise(Path(scratch) / "adapter_config.json", name)
        adapter.mkdir(parents=True, exist_ok=True)
        for file in WRITTEN:
            (adapter / file).write_bytes((Path(scratch) / file).read_bytes())
    return adapter


def _neutralise(config_file: Path, name: str) -> None:
    """Replace local paths, which say nothing on another machine, by names."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {
        "model": BASE,
        "data": f"data/{name}",
        "adapter_path": name,
        "config": f"recipes/{name}.yaml",
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    config_file.write_text(text, encoding="utf-8")


def base_model() -> Path:
    """The folder of the embedded base model, fetched on first use."""
    registry = load_registry()
    found = resolve(
        registry.find(BASE),
        cache_dir=cache_root(),
        lock_path=registry.lock_path,
        download=True,
    )
    if isinstance(found, NotHere):
        raise FetchError(f"{BASE} is not here because {found.reason}; {found.fix}.")
    return found.model_dir


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the example adapters with mlx-lm.")
    parser.add_argument("names", nargs="*", default=["gentle", "style-bleed"], metavar="NAME")
    parser.add_argument("--root", type=Path, default=HERE, help="folder of recipes/ and data/")
    parser.add_argument("--model", type=Path, help="base model folder (default: the embedded one)")
    asked = parser.parse_args()
    try:
        model = asked.model or base_model()
        for name in asked.names:
            adapter = train(name, asked.root, model)
            megabytes = (adapter / WRITTEN[0]).stat().st_size / 1e6
            print(f"{adapter}: {megabytes:.1f} MB")
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
