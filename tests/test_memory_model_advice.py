"""From a prediction to a verdict, to the largest setting that fits, to a command line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoint_files import write_model
from test_memory_model import GRANITE_H, MEDGEMMA, PUBLISHED, TWINS

from harness.errors import UsageError
from harness.gates.context import GateContext, Tools
from harness.gates.header_memory import GATE
from harness.judges.header_memory import judge
from harness.memory_command import make_settings, memory_markdown, memory_report
from harness.memory_model import (
    Settings,
    fits,
    largest_that_fits,
    lora_command,
    predict,
    read_architecture,
)
from harness.policy import load_policy
from harness.records import Observation, Status, Subject
from harness.registry import TrainingSettings

LOW, HIGH = 11.453, 12.713
"""Metal's working set on an older and on a recent 16 GB Mac, GB."""
GENTLE = Settings(lora_layers=12, rank=6, batch=1, tokens_per_batch=1024, dropout=0.1)
LLAMA_8B, MISTRAL, LLAMA_3B = (
    PUBLISHED[name] for name in ("Llama-8B", "Mistral-7B-v0.2", "Llama-3.2-3B")
)


# ---- advice --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [LLAMA_8B, MISTRAL, PUBLISHED["Qwen2-7B"]])
def test_7_and_8_billion_fit_a_16_gb_mac_on_4_bits_only(model: dict[str, Any]) -> None:
    architecture = read_architecture(model)
    assert predict(architecture, GENTLE).train_peak_gb > HIGH
    fit = largest_that_fits(architecture, GENTLE, LOW)
    assert fit is not None and fit.settings.bits == 4
    assert fits(fit.prediction, LOW)
    assert fit.prediction == predict(architecture, fit.settings)


def test_what_fits_stays_as_it_is() -> None:
    fit = largest_that_fits(read_architecture(LLAMA_3B), GENTLE, 64.0)
    assert fit is not None and fit.settings == GENTLE and fit.given_up == ()


def test_time_is_given_up_before_bits_and_bits_before_examples() -> None:
    architecture = read_architecture(LLAMA_3B)
    wanted = GENTLE.model_copy(update={"batch": 4, "tokens_per_batch": 4096})
    given_up = []
    for limit in (40.0, 12.0, 10.0, 6.5, 4.5, 3.0, 1.0):
        fit = largest_that_fits(architecture, wanted, limit)
        given_up.append(None if fit is None else len(fit.given_up))
        if fit is not None and fit.settings.lora_layers != wanted.lora_layers:
            assert fit.settings.padded_tokens == 128
        if fit is not None and fit.settings.padded_tokens < 1024:
            assert fit.settings.bits == 4
        if fit is not None and fit.settings.bits is not None:
            assert fit.settings.batch == 1 and fit.settings.grad_checkpoint
    assert given_up[0] == 0 and given_up[-1] is None
    assert given_up[:-1] == sorted(given_up[:-1])  # type: ignore[type-var]
    assert len(set(given_up)) >= 4


def test_float32_becomes_bfloat16_first() -> None:
    whole = {**PUBLISHED["TinyLlama"], "torch_dtype": "float32"}
    architecture = read_architecture(whole)
    half = predict(read_architecture(PUBLISHED["TinyLlama"]), GENTLE)
    fit = largest_that_fits(architecture, GENTLE, half.train_high_gb + 0.01)
    assert fit is not None and fit.given_up == ("the base in 16 bits",)
    assert "--dtype bfloat16" in lora_command("org/tiny", fit.settings, "adapters")


def test_the_command_is_one_that_a_shell_reads_as_meant(tmp_path: Path) -> None:
    wanted = GENTLE.model_copy(update={"batch": 4, "tokens_per_batch": 4096})
    fit = largest_that_fits(read_architecture(LLAMA_8B), wanted, LOW)
    assert fit is not None
    name = "an org/it's a model"
    convert, write, train = lora_command(name, fit.settings, "out dir", wanted=wanted).split(" && ")
    words = shlex.split(convert)
    assert words[:3] == ["mlx_lm.convert", "--hf-path", name]
    assert words[words.index("--q-bits") + 1] == "4"
    subprocess.run(["sh", "-c", write], cwd=tmp_path, check=True)
    assert yaml.safe_load((tmp_path / "lora.yaml").read_text()) == {
        "lora_parameters": {"rank": 6, "scale": 1.33, "dropout": 0.1}
    }
    words = shlex.split(train)
    assert words[words.index("--model") + 1] == "it's a model-4bit"
    assert words[words.index("--adapter-path") + 1] == "out dir"
    assert int(words[words.index("--grad-accumulation-steps") + 1]) * fit.settings.batch == 4
    assert int(words[words.index("--max-seq-length") + 1]) == 1024


@pytest.mark.real
def test_mlx_lm_takes_the_commands() -> None:
    """Both command lines through mlx-lm's own parsers."""
    fit = largest_that_fits(read_architecture(LLAMA_8B), GENTLE, LOW)
    assert fit is not None
    convert, _, train = lora_command("org/name", fit.settings, "adapters").split(" && ")
    script = (
        "import sys, json, importlib; from mlx_lm import lora\n"
        "convert = importlib.import_module('mlx_lm.convert')\n"
        "train, conv = json.loads(sys.argv[1])\n"
        "a = lora.build_parser().parse_args(train[1:])\n"
        "b = convert.configure_parser().parse_args(conv[1:])\n"
        "print(a.num_layers, a.max_seq_length, a.grad_checkpoint, b.q_bits, b.quantize)\n"
    )
    words = json.dumps([shlex.split(train), shlex.split(convert)])
    done = subprocess.run(
        [sys.executable, "-c", script, words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12", "1024", "True", "4", "True"]


# ---- gate and judge ------------------------------------------------------------------------


def observed(config: dict[str, Any], folder: Path, **training: Any) -> Observation:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    context = GateContext(
        subject=Subject(label="patient", engine="mlx", model=folder, fingerprint={}),
        budget_gb=HIGH,
        budget_low_gb=LOW,
        context_tokens=2048,
        training=TrainingSettings(**training),
        suites=(),
        evidence_dir=folder,
        work_dir=folder,
        cache_dir=folder,
        seed=0,
    )
    assert json.dumps(GATE.asked(context))
    return GATE.observe(context, Tools(engine=pytest.fail, transcript=pytest.fail))  # type: ignore[arg-type]


def verdict(seen: Observation) -> tuple[Status, str, str | None]:
    judged = judge(dict(seen.numbers), load_policy().gates)
    if not judged.problems:
        return Status.PASS, judged.summary, None
    problem = judged.problems[0]
    return problem.status, f"{problem.text}; {judged.summary}", problem.fix


@pytest.mark.parametrize(
    ("model", "status"),
    [
        (PUBLISHED["TinyLlama"], {Status.PASS}),
        (PUBLISHED["Qwen2.5-1.5B"], {Status.PASS, Status.WARN}),
        (LLAMA_3B, {Status.PASS, Status.WARN}),
        (MISTRAL, {Status.FAIL}),
        (LLAMA_8B, {Status.FAIL}),
    ],
)
def test_the_gate_on_a_16_gb_mac(
    model: dict[str, Any], status: set[Status], tmp_path: Path
) -> None:
    seen = observed(model, tmp_path)
    assert (seen.gate, seen.depth, seen.findings) == ("memory", "header", ())
    found, reason, fix = verdict(seen)
    assert found in status, reason
    assert f"{seen.numbers['train_peak_gb']:.2f} GB training" in reason
    if found is Status.FAIL:
        assert seen.numbers["fit_bits"] == 4 and "4 bits" in reason
        assert fix is not None and "mlx_lm.lora --train" in fix and "--q-bits 4" in fix


def test_the_judge_draws_its_lines_at_the_working_sets(tmp_path: Path) -> None:
    numbers = dict(observed(LLAMA_8B, tmp_path).numbers)

    def at(peak: float, high: float) -> Status:
        policy = load_policy().gates
        judged = judge({**numbers, "train_peak_gb": peak, "train_high_gb": high}, policy)
        return judged.problems[0].status if judged.problems else Status.PASS

    numbers["inference_peak_gb"] = 5.0
    assert at(8.0, 11.0) is Status.PASS
    assert at(8.0, 11.5) is Status.WARN
    assert at(11.5, 12.0) is Status.WARN
    assert at(12.72, 13.0) is Status.FAIL
    numbers["inference_peak_gb"] = 13.0
    assert at(8.0, 11.0) is Status.FAIL


def test_a_model_that_no_setting_saves(tmp_path: Path) -> None:
    seen = observed({**LLAMA_8B, "num_hidden_layers": 320}, tmp_path)
    assert seen.numbers["fits_somehow"] is False and "fit_command" not in seen.numbers
    found, _, fix = verdict(seen)
    assert found is Status.FAIL and fix is not None and "smaller base" in fix


def test_layers_that_the_model_does_not_have_are_not_asked_for(tmp_path: Path) -> None:
    seen = observed({**LLAMA_8B, "num_hidden_layers": 8}, tmp_path, lora_layers=500, rank=4096)
    assert seen.numbers["lora_layers"] == 8
    assert "--num-layers 500" not in str(seen.numbers.get("fit_command"))


def test_an_architecture_that_is_not_modelled_is_not_judged(tmp_path: Path) -> None:
    seen = observed({"model_type": "rwkv7"}, tmp_path)
    assert seen.not_run is not None and "rwkv7" in seen.not_run and not seen.numbers


def test_a_nonsense_config_fails(tmp_path: Path) -> None:
    seen = observed({**LLAMA_3B, "num_attention_heads": 0}, tmp_path)
    assert [f.severity for f in seen.findings] == ["fail"]
    assert "num_attention_heads" in seen.findings[0].message


@pytest.mark.parametrize(("said", "bits"), [("bfloat16", 32), (None, 32)])
def test_the_weights_say_what_they_are_stored_as(
    said: str | None, bits: int, tmp_path: Path
) -> None:
    """float32 files under a config that says something else, or nothing."""
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"dtype": said}
    assert observed(config, folder).numbers["bits"] == bits
    (folder / "model.safetensors").unlink()
    assert observed(config, folder).numbers["bits"] == 16


def test_what_mlx_lm_leaves_out_is_noted(tmp_path: Path) -> None:
    seen = observed(MEDGEMMA, tmp_path)
    assert [f.severity for f in seen.findings] == ["note"]


# ---- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize("config", [LLAMA_3B, LLAMA_8B, GRANITE_H, MEDGEMMA])
def test_the_report_is_json_whose_parts_add_up(config: dict[str, Any]) -> None:
    report = memory_report(config, GENTLE, name="patient")
    assert json.loads(json.dumps(report)) == report
    assert sum(report["breakdown_gb"].values()) == pytest.approx(report["train_peak_gb"], abs=1e-9)
    assert sum(report["inference_breakdown_gb"].values()) == pytest.approx(
        report["inference_peak_gb"], abs=1e-9
    )
    assert report["train_low_gb"] < report["train_peak_gb"] < report["train_high_gb"]
    assert report["verdict"] in ("fits", "may not fit", "fits recent Macs only", "does not fit")


def test_the_report_for_people() -> None:
    text = memory_markdown(memory_report(LLAMA_8B, GENTLE, name="a|b", model="org/name"))
    assert "does not fit" in text and "mlx_lm.convert --hf-path org/name" in text
    assert "a\\|b" in text or "a&#124;b" in text
    assert f"{predict(read_architecture(LLAMA_8B), GENTLE).train_peak_gb:.2f}" in text


def test_on_the_cpu_the_verdict_is_still_about_a_mac() -> None:
    cpu = make_settings("cpu", **GENTLE.model_dump(exclude={"device"}))
    here, mac = (memory_report(LLAMA_8B, s, name="x") for s in (cpu, GENTLE))
    assert here["train_peak_gb"] != mac["train_peak_gb"]
    assert here["metal"] == mac["metal"]
    assert (here["verdict"], here["fit"]) == (mac["verdict"], mac["fit"])


def test_auto_means_a_mac_for_all_but_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    small = TWINS["smollm2-135m-instruct"]

    def device(config: dict[str, Any]) -> str:
        return str(memory_report(config, make_settings(), name="x")["settings"]["device"])

    monkeypatch.setattr(sys, "platform", "linux")
    assert (device(small), device(LLAMA_3B)) == ("cpu", "metal")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (device(small), device(LLAMA_3B)) == ("metal", "metal")


def test_bits_as_stored_need_no_conversion() -> None:
    def command(config: dict[str, Any], bits: int) -> str:
        report = memory_report(config, make_settings("metal", bits=bits), name="x")
        return str(report["fit"]["command"])

    assert "convert" not in command(LLAMA_3B, 16)
    assert "convert" in command(LLAMA_3B, 4)
    packed = {**LLAMA_3B, "quantization": {"bits": 4, "group_size": 64}}
    assert "convert" not in command(packed, 4)
    assert "convert" in command(packed, 8)


@pytest.mark.parametrize(
    "typed", [{"bits": 7}, {"rank": 0}, {"batch": -1}, {"tokens_per_batch": 0}, {"rank": 10**30}]
)
def test_wrong_options_are_named(typed: dict[str, Any]) -> None:
    option = next(iter(typed)).replace("_", "-")
    with pytest.raises(UsageError, match=f"--{option}"):
        make_settings("metal", **typed)
