"""One adapter regression by the harness against the same work by mlx_lm.evaluate run twice.

200 scored options (50 questions) and 60 generations, before and after, on the same machine,
model, adapter, BLAS and prompts, every run in fresh processes with start-up counted:

    pip install -e '.[bench]' && python benchmarks/regression.py --rounds 3

Prints medians and ratios, and how many answers agree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonlines

from harness.machine import cache_root, worker_environment
from harness.probes import bundled_probes_dir, load_probe_set
from harness.registry import load_registry
from harness.sources import Ready, resolve
from harness.transcripts import MAX_TOKENS

MODEL = "smollm2-135m-instruct"
ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "examples" / "adapters"
QUESTIONS, SCORED = 60, 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    registry = load_registry()
    found = resolve(registry.find(MODEL), cache_dir=cache_root(), lock_path=registry.lock_path)
    if not isinstance(found, Ready):
        sys.exit(f"{MODEL} is not here: {found.reason}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        probes = write_probes(work / "probes")
        fused = work / "fused"
        child(["-c", FUSE, str(found.model_dir), str(ADAPTERS / "gentle"), str(fused)])
        times: dict[str, list[float]] = {"peer": [], "cold": [], "cached": []}
        for number in range(rounds):
            times["peer"].append(
                peer(found.model_dir, probes, work / "before") + peer(fused, probes, work / "after")
            )
            out = work / f"reports-{number}"
            times["cold"].append(harness("gentle", probes.parent, out))
            for file in (out / "evidence").glob("*gentle*"):
                file.unlink()  # the base stays cached, the adapter is asked again
            times["cached"].append(harness("gentle", probes.parent, out))
            show(number, {k: v[-1] for k, v in times.items()})
        medians = {k: statistics.median(v) for k, v in times.items()}
        show("median", medians)
        print(
            f"harness cold {medians['peer'] / medians['cold']:.1f}x, with the base cached "
            f"{medians['peer'] / medians['cached']:.1f}x faster than mlx_lm.evaluate run twice"
        )
        for side in ("before", "after"):
            agreement(side, work / side / "answers.json", out)


FUSE = (
    "import sys; from pathlib import Path; from harness.engines.mlx_training import fuse_adapter;"
    "fuse_adapter(*map(Path, sys.argv[1:4]))"
)


def write_probes(folder: Path) -> Path:
    """60 facts, 50 of them with four options."""
    folder.mkdir()
    facts = load_probe_set(bundled_probes_dir() / "medical_facts.jsonl").probes
    chosen = facts[:: len(facts) // QUESTIONS][:QUESTIONS]
    path = folder / "medical_facts.jsonl"
    with jsonlines.open(path, "w") as out:
        for number, probe in enumerate(chosen):
            row = probe.model_dump(mode="json")
            if number >= SCORED:
                row["distractors"] = []
            out.write(row)
    return path


def child(arguments: list[str]) -> float:
    """Run a Python child in the workers' environment; its wall time in seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **worker_environment(), "HF_HUB_OFFLINE": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def peer(model: Path, probes: Path, work: Path) -> float:
    """One model through mlx_lm.evaluate."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    script = str(Path(__file__).with_name("peer_mlx_lm.py"))
    out = str(work / "answers.json")
    return child([script, str(model), str(probes), out, str(MAX_TOKENS["fact"])])


def harness(adapter: str, probes: Path, out: Path) -> float:
    """One `harness compare`, as a person would call it; any verdict will do."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "harness", "compare", MODEL, "--format", "json"]
    command += ["--adapter", str(ADAPTERS / adapter), "--probes", str(probes)]
    done = subprocess.run([*command, "--output-dir", str(out)], capture_output=True, check=False)
    if done.returncode not in (0, 1, 3):
        sys.exit(done.stderr.decode())
    return time.perf_counter() - started


def agreement(side: str, peer_answers: Path, reports: Path) -> None:
    """How often both give the same reply, and prefer the same option by summed log-probability."""
    pattern = "*gentle--medical_facts*" if side == "after" else f"{MODEL}--medical_facts*"
    (transcript,) = (reports / "evidence").glob(pattern)
    with jsonlines.open(transcript) as lines:
        ours = {e["probe"]["id"]: e["response"] for e in lines if e["kind"] == "response"}
    theirs = json.loads(peer_answers.read_text())
    texts = sum(ours[i]["text"].strip() == t.strip() for i, t in theirs["generate"].items())
    picks = sum(
        best(ours[i]["option_logprobs"]) == best(values) for i, values in theirs["choose"].items()
    )
    print(
        f"{side}: same reply on {texts} of {len(theirs['generate'])}, same preferred option on "
        f"{picks} of {len(theirs['choose'])}"
    )


def best(values: list[float]) -> int:
    """Index of the largest."""
    return max(range(len(values)), key=values.__getitem__)


def show(label: object, seconds: dict[str, float]) -> None:
    """One line of times."""
    cells = "  ".join(f"{name} {value:6.1f} s" for name, value in seconds.items())
    print(f"round {label}: {cells}", flush=True)


if __name__ == "__main__":
    main()
