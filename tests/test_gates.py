"""The gates on the real embedded model, and on copies of it that are broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import worker
from harness.checkpoints.folder import fingerprint
from harness.gates import GATES, GateContext
from harness.machine import cache_root
from harness.policy import load_policy
from harness.probes import bundled_probes_dir, load_suites
from harness.records import GateResult, Status, Subject
from harness.registry import TrainingSettings, load_registry
from harness.sources import Ready, resolve
from harness.verdict import judge_gate
from harness.workers import local_worker, run

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model_dir() -> Path:
    registry = load_registry()
    candidate = registry.find("smollm2-135m-instruct")
    found = resolve(candidate, cache_dir=cache_root(), lock_path=registry.lock_path)
    assert isinstance(found, Ready)
    return found.model_dir


def judged(gate: str, model: Path, tmp_path: Path) -> GateResult:
    """One gate in a worker of its own, as the campaign runs it."""
    context = GateContext(
        subject=Subject(
            label="patient", engine="mlx", model=model, fingerprint=fingerprint(model, cache_root())
        ),
        budget_gb=12.7,
        budget_low_gb=11.5,
        context_tokens=128,
        training=TrainingSettings(tokens_per_batch=64, lora_layers=2),
        suites=load_suites(bundled_probes_dir(), limit=24),
        evidence_dir=tmp_path / "evidence",
        work_dir=tmp_path / "work",
        cache_dir=cache_root(),
        seed=0,
    )
    log = tmp_path / "worker.log"
    with local_worker(log) as executor:
        seen = run(executor, log, None, worker.run_gate, "full", gate, context)
    assert not context.work_dir.exists()
    return judge_gate(seen, load_policy())


def copy_with_config(model: Path, folder: Path, **changes: object) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_load_counts_the_parameters(model_dir: Path, tmp_path: Path) -> None:
    result = judged("load", model_dir, tmp_path)
    assert result.status is Status.PASS
    assert result.numbers["parameters"] == 134_515_008


def test_load_fails_on_an_architecture_that_mlx_does_not_know(
    model_dir: Path, tmp_path: Path
) -> None:
    odd = copy_with_config(model_dir, tmp_path / "odd", model_type="nonesuch")
    result = judged("load", odd, tmp_path)
    assert result.status is Status.FAIL
    assert "nonesuch" in result.reason


def test_load_fails_on_tensors_of_another_shape(model_dir: Path, tmp_path: Path) -> None:
    odd = copy_with_config(model_dir, tmp_path / "odd", intermediate_size=1024)
    result = judged("load", odd, tmp_path)
    assert result.status is Status.FAIL
    assert "mlp" in result.reason


def test_memory_measures_a_training_step(model_dir: Path, tmp_path: Path) -> None:
    result = judged("memory", model_dir, tmp_path)
    assert result.status is Status.PASS
    assert result.numbers["train_peak_gb"] > result.numbers["load_peak_gb"] > 0.5
    assert result.numbers["trainable_parameters"] > 0


def test_gguf_is_the_same_model(model_dir: Path, tmp_path: Path) -> None:
    result = judged("gguf", model_dir, tmp_path)
    assert result.status is Status.PASS, result.reason
    assert result.numbers["template_equal"] is True
    assert result.numbers["tokenizer_equal"] == result.numbers["tokenizer_texts"]
    assert 0 <= result.numbers["mean_kl_nats"] < 0.01


def test_gguf_names_the_tensor_of_a_quantised_model_and_the_fix(
    model_dir: Path, tmp_path: Path
) -> None:
    quantised = tmp_path / "quantised"
    subprocess.run(
        [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", str(model_dir),
         "--mlx-path", str(quantised), "-q"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    result = judged("gguf", quantised, tmp_path)
    assert result.status is Status.FAIL
    assert ".biases" in result.reason or ".scales" in result.reason
    assert "--dequantize" in (result.fix or "")


def test_gguf_that_computes_something_else_fails(model_dir: Path, tmp_path: Path) -> None:
    """The file converts and opens; only its logits betray that it is another model."""
    from harness.checkpoints.converter import convert
    from harness.engines import open_engine
    from harness.gates.gguf import compare_logits

    wrong_rope = copy_with_config(
        model_dir, tmp_path / "wrong", rope_theta=50.0, rope_parameters=None
    )
    file = tmp_path / "wrong.gguf"
    convert(wrong_rope, file, cache_dir=cache_root())
    parity = compare_logits(open_engine("mlx", model_dir), open_engine("llamacpp", file))
    limits = load_policy().gates.gguf
    assert parity.mean_kl_nats > limits.kl_fail_nats or parity.top1_agreement < limits.top1_fail


def test_every_gate_leaves_numbers_its_judge_can_read(model_dir: Path, tmp_path: Path) -> None:
    assert [g.name for g in GATES["full"]] == ["load", "memory", "gguf", "greetings", "facts"]
    for gate in ("greetings", "facts"):
        result = judged(gate, model_dir, tmp_path)
        assert result.status not in (Status.ERROR, Status.NOT_RUN), result.reason
        assert result.numbers["n"] == 24
