"""Fed garbage, every command ends with one clear sentence, and never with a verdict."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HARNESS, ROOT, RunHarness, replace_file, write_probes
from safetensors.numpy import load_file, save_file
from scripted_run import compare

from harness.evidence import lock

BASE = "smollm2-135m-instruct"
GENTLE = ROOT / "examples" / "adapters" / "gentle"

pytestmark = pytest.mark.real  # the embedded model is fetched, and some cases load it


@pytest.fixture
def refused(run_harness: RunHarness, tmp_path: Path) -> Callable[..., str]:
    """Run, expect a refusal with `code`; returns the sentence."""

    def run(code: int, *words: object) -> str:
        out = [] if "--output-dir" in words else ["--output-dir", tmp_path / "out"]
        ended = run_harness(*words, *out)
        assert ended.code == code, ended
        assert ended.out == ""
        assert "Traceback" not in ended.err
        sentences = [s for s in ended.err.splitlines() if s.startswith("Error: ")]
        assert len(sentences) == 1, ended.err
        assert ended.err.rstrip().splitlines()[-1] == sentences[0]
        assert len(sentences[0]) < 700
        return sentences[0]

    return run


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of a good adapter, to be broken."""
    return Path(shutil.copytree(GENTLE, tmp_path / "tuned"))


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    replace_file(path, {**value, **changes})


def test_truncated_weights(model_copy: Path, refused: Any) -> None:
    weights = model_copy / "model.safetensors"
    with weights.open("rb") as whole:
        head = whole.read(5_000_000)
    replace_file(weights, head)
    assert "model.safetensors" in refused(4, "vet", model_copy)
    assert "model.safetensors" in refused(4, "compare", model_copy, "--adapter", GENTLE)


def test_weights_that_are_not_finite_are_no_crash(
    model_copy: Path, run_harness: RunHarness, tmp_path: Path
) -> None:
    """NaN weights are loaded: then the verdict says what it is worth, with valid JSON."""
    weights = load_file(model_copy / "model.safetensors")
    weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], np.nan)
    (model_copy / "model.safetensors").unlink()
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    probes = write_probes(tmp_path / "few", {"medical_facts": 2})
    ended = run_harness(
        "compare", model_copy, "--adapter", GENTLE, "--probes", probes,
        "--output-dir", tmp_path / "out", "--format", "json",
    )  # fmt: skip
    assert ended.code in (0, 1, 3), ended.err
    json.loads(ended.out, parse_constant=pytest.fail)


def test_only_pickled_weights(model_copy: Path, refused: Any) -> None:
    (model_copy / "model.safetensors").rename(model_copy / "pytorch_model.bin")
    assert "pickled" in refused(4, "vet", model_copy)


def test_model_that_brings_its_own_code(model_copy: Path, refused: Any) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    replace_file(model_copy / "config.json", {**config, "model_file": "evil.py"})
    (model_copy / "evil.py").write_text("raise SystemExit('this code must never run')")
    assert "model_file" in refused(4, "vet", model_copy)


TEMPLATES = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "allocates": "{{ 'a' * 10**10 }}",
    "attacks": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "is broken": "{% if %}",
    "ignores the user": "{{ 'hello' }}",
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_hostile_chat_template(model_copy: Path, refused: Any, what: str) -> None:
    edit_json(model_copy / "tokenizer_config.json", chat_template=TEMPLATES[what])
    started = time.monotonic()
    sentence = refused(4, "compare", model_copy, "--adapter", GENTLE)
    assert "chat template" in sentence
    assert time.monotonic() - started < 60


def test_truncated_adapter(adapter: Path, refused: Any) -> None:
    file = adapter / "adapters.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "adapters.safetensors" in refused(4, "compare", BASE, "--adapter", adapter)


def test_adapter_without_config(adapter: Path, refused: Any) -> None:
    (adapter / "adapter_config.json").unlink()
    assert "adapter_config.json" in refused(4, "compare", BASE, "--adapter", adapter)


@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff{}", '{"num_layers": "many"}'])
def test_adapter_with_a_broken_config(adapter: Path, refused: Any, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    assert "adapter_config.json" in refused(4, "compare", BASE, "--adapter", adapter)


def test_adapter_of_another_rank(adapter: Path, refused: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    rank = config["lora_parameters"]["rank"]
    config["lora_parameters"]["rank"] = rank + 2
    replace_file(adapter / "adapter_config.json", config)
    assert f"rank {rank + 2}" in refused(4, "compare", BASE, "--adapter", adapter)


def test_adapter_of_another_model(adapter: Path, refused: Any) -> None:
    file = adapter / "adapters.safetensors"
    wider = {
        name: np.zeros((2048, a.shape[1]), np.float32) if name.endswith("lora_a") else a
        for name, a in load_file(file).items()
    }
    save_file(wider, file)
    sentence = refused(4, "compare", BASE, "--adapter", adapter)
    assert "[2048, " in sentence
    assert "base" in sentence


def test_peft_adapter(tmp_path: Path, refused: Any) -> None:
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file({"base_model.model.x.lora_A.weight": np.zeros((2, 2))}, folder / "adapter_model.safetensors")  # fmt: skip # noqa: E501
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    assert "PEFT" in refused(4, "compare", BASE, "--adapter", folder)


def test_adapter_with_a_header_of_absurd_length(adapter: Path, refused: Any) -> None:
    (adapter / "adapters.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "adapters.safetensors" in refused(4, "compare", BASE, "--adapter", adapter)


@pytest.mark.parametrize("words", [["compare", BASE, "--adapter", "no/such"], ["vet", "no/such"]])
def test_folder_that_is_not_there(refused: Any, words: list[str]) -> None:
    code = 2 if words[0] == "vet" else 4
    assert "no/such" in refused(code, *words)


PROBES = {
    "empty": ("", ":?is empty"),
    "broken JSON": ('{"id": "a", \n', ":1"),
    "blank line": ("\n", ":1"),
    "unknown key": ('{"id": "a", "promt": "x"}\n', "prompt"),
}


@pytest.mark.parametrize("what", PROBES)
def test_bad_probes(tmp_path: Path, refused: Any, what: str) -> None:
    folder = tmp_path / "probes"
    folder.mkdir()
    (folder / "facts.jsonl").write_text(PROBES[what][0])
    sentence = refused(2, "vet", BASE, "--probes", folder)
    assert "facts.jsonl" in sentence
    assert PROBES[what][1].removeprefix(":?") in sentence


def test_bad_registry_names_file_line_and_near_miss(tmp_path: Path, refused: Any) -> None:
    registry = tmp_path / "registry.yaml"
    registry.write_text("candidates:\n  - nane: x\n    source: {path: y}\n")
    sentence = refused(2, "vet", "--registry", registry)
    assert f"{registry}:2" in sentence
    assert "'name'" in sentence
    registry.write_text("candidates: [\n")
    assert "registry.yaml" in refused(2, "vet", "--registry", registry)


def test_unknown_name_has_a_near_miss(refused: Any) -> None:
    assert BASE in refused(2, "vet", "smollm2-135m-instrct")
    assert BASE in refused(2, "compare", "smollm2-135m-instrct", "--adapter", GENTLE)


def test_unknown_policy_key(tmp_path: Path, refused: Any) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("suites:\n  default:\n    alpa: 0.1\n")
    assert f"{policy}:3" in refused(2, "vet", BASE, "--policy", policy)


def test_bad_options_are_one_sentence_too(refused: Any) -> None:
    assert "--limit" in refused(2, "vet", BASE, "--limit", "0")
    assert "--limit" in refused(2, "vet", BASE, "--limit", "many")
    assert "--adapter" in refused(2, "compare", BASE)
    assert "--frmat" in refused(2, "vet", BASE, "--frmat", "json")
    assert "twin" in refused(2, "vet", BASE, "--depth", "twins")


def test_output_folder_that_cannot_be_written(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "file").write_text("")
    for command in (["vet", BASE], ["compare", BASE, "--adapter", GENTLE]):
        sentence = refused(4, *command, "--output-dir", tmp_path / "file" / "out")
        assert "--output-dir" in sentence
    sentence = refused(4, "vet", BASE, "--output-dir", tmp_path / "file")
    assert "--output-dir" in sentence


def test_report_of_no_run(refused: Any) -> None:
    assert "nonexistent" in refused(2, "report", "nonexistent")


def test_two_runs_at_once(tmp_path: Path, refused: Any) -> None:
    held = lock(tmp_path / "out" / "evidence")
    try:
        sentence = refused(4, "vet", BASE, "--output-dir", tmp_path / "out")
        assert "Another harness run" in sentence
    finally:
        held.release()


def test_damaged_evidence_names_the_file(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "adapter").mkdir()
    for script in (tmp_path / "base.json", tmp_path / "adapter" / "scripted.json"):
        script.write_text('{"default": {"text": "Hello!"}}')
    write_probes(tmp_path / "probes", {"greetings": 2})
    out = tmp_path / "out"
    name = compare(tmp_path, out).run
    transcript = next((out / "evidence").glob("*.jsonl"))
    lines = transcript.read_text().splitlines()
    transcript.write_text("\n".join([lines[0], "rubbish", *lines[2:], ""]))
    sentence = refused(4, "report", name, "--output-dir", out)
    assert f"{transcript.name}:2" in sentence


def test_help_is_not_an_error() -> None:
    done = subprocess.run([HARNESS, "--help"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
