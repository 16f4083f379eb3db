"""`harness vet` without weights, `harness memory` and `harness snapshot`, as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, llama_shapes
from conftest import RunHarness

from harness.checkpoints.ghost import TensorShape, write_ghost
from harness.registry import DEFAULT_REGISTRY
from harness.snapshots import load_snapshot, snapshot_path

OFFLINE = {"HF_HUB_OFFLINE": "1"}
SNAPSHOTS = DEFAULT_REGISTRY.parent / "snapshots"


def candidates(out: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(out)["candidates"]}


def statuses(candidate: dict[str, Any]) -> dict[str, str]:
    return {name: gate["status"] for name, gate in candidate["gates"].items()}


def disk_bytes(folder: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*"))


@pytest.mark.real
def test_the_registry_is_judged_offline_from_headers_alone(
    run_harness: RunHarness, tmp_path: Path
) -> None:
    names = ["llama-3.2-3b-instruct", "openbiollm-8b", "biomedlm", "granite-4.0-h-micro"]
    words = ["vet", *names, "--depth", "header", "--format", "json", "--output-dir", tmp_path]
    done = run_harness(*words, **OFFLINE)
    assert done.code == 1, done.err  # BioMedLM and the 8B fail
    found = candidates(done.out)
    assert list(found) == names
    for candidate in found.values():
        assert candidate["depth"] == "header"
        assert list(candidate["gates"]) == ["load", "memory", "gguf", "tokenizer"]
        for gate in candidate["gates"].values():
            assert {"status", "reason", "fix", "numbers"} <= set(gate) and gate["reason"]
        assert candidate["known"]["config"]["standing"] in ("published", "assembled", "unverified")
        # Its tokenizer is in no snapshot: not looked at, and so not passed.
        assert statuses(candidate)["tokenizer"] == "NOT_RUN"

    llama = found["llama-3.2-3b-instruct"]["gates"]
    assert llama["load"]["status"] == llama["gguf"]["status"] == "PASS"
    assert llama["load"]["numbers"]["parameters"] == 3_212_749_824
    assert llama["memory"]["status"] in ("PASS", "WARN")
    assert (
        llama["memory"]["numbers"]["train_peak_gb"] < llama["memory"]["numbers"]["budget_high_gb"]
    )
    assert statuses(found["granite-4.0-h-micro"])["gguf"] == "PASS"

    large = found["openbiollm-8b"]["gates"]["memory"]
    assert large["status"] == "FAIL" and large["numbers"]["fit_bits"] == 4
    assert "--q-bits 4" in large["fix"] and "mlx_lm.lora --train" in large["fix"]

    biomedlm = found["biomedlm"]["gates"]
    assert biomedlm["load"]["status"] == "FAIL" and "tensors" in biomedlm["load"]["reason"]
    advice = json.loads(done.out)["recommendation"]
    assert advice["best"] == "llama-3.2-3b-instruct"
    assert advice["next_command"] == "harness vet llama-3.2-3b-instruct --depth twin"

    assert disk_bytes(tmp_path) < 2_000_000  # the ghosts are gone, and were small
    again = run_harness(*words, **OFFLINE)
    assert again.out == done.out


@pytest.mark.real
def test_a_folder_with_mlx_quantised_tensors_is_told_before_it_is_converted(
    run_harness: RunHarness, tmp_path: Path
) -> None:
    # As `mlx_lm.fuse` without --dequantize leaves it: words of 32 bits, scales and biases.
    snapshot = load_snapshot(snapshot_path(SNAPSHOTS, "llama-3.2-1b-instruct"))
    tensors: dict[str, TensorShape] = {}
    for name, (dtype, shape) in snapshot.tensor_list().items():
        if len(shape) != 2:
            tensors[name] = TensorShape(dtype, shape)
            continue
        rows, columns = shape
        stem = name.removesuffix(".weight")
        tensors[name] = TensorShape("U32", (rows, columns // 8))
        tensors[f"{stem}.scales"] = tensors[f"{stem}.biases"] = TensorShape(
            "BF16", (rows, columns // 64)
        )
    config = {**snapshot.config, "quantization": {"group_size": 64, "bits": 4}}
    folder = write_ghost(tmp_path / "Fused-4bit", config, tensors)
    done = run_harness("vet", "--model-dir", folder, "-f", "json", "-o", tmp_path / "out")
    assert done.code == 1, done.err
    gates = candidates(done.out)["fused-4bit"]["gates"]
    assert gates["load"]["status"] == "PASS"
    assert gates["load"]["numbers"]["parameters"] == 1_235_814_400
    assert gates["gguf"]["status"] == "FAIL"
    assert "model.embed_tokens.biases" in gates["gguf"]["reason"]
    assert "--dequantize" in gates["gguf"]["fix"]
    assert gates["tokenizer"]["status"] == "NOT_RUN"


@pytest.mark.real
def test_a_broken_folder_and_a_namesake_do_not_stop_the_others(
    run_harness: RunHarness, tmp_path: Path
) -> None:
    config = {**CONFIG, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128}
    shapes = llama_shapes(hidden=64, ffn=128, vocab=64)
    tensors = {name: TensorShape("BF16", shape) for name, shape in shapes.items()}
    first = write_ghost(tmp_path / "a" / "My Model", config, tensors)
    second = write_ghost(tmp_path / "b" / "My Model", {**config, "rope_theta": 5e5}, tensors)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{nope")
    folders = [word for f in (first, broken, second, first) for word in ("--model-dir", f)]
    done = run_harness("vet", *folders, "-f", "json", "-o", tmp_path / "out")
    assert done.code == 1, done.err
    found = json.loads(done.out)["candidates"]
    names = [each["name"] for each in found]
    # The same folder given twice is looked at once; another of that name has a name of its own.
    assert names[:2] == ["my-model", "broken"] and len(names) == 3
    assert names[2].startswith("my-model ")
    assert statuses(found[0])["load"] == statuses(found[2])["load"] == "PASS"
    load = found[1]["gates"]["load"]
    assert load["status"] == "FAIL" and "not valid JSON" in load["reason"] and load["fix"]
    assert set(statuses(found[1]).values()) == {"FAIL", "NOT_RUN"}
    advice = json.loads(done.out)["recommendation"]
    assert advice["next_command"] == "harness vet --model-dir 'My Model' --depth twin"


@pytest.mark.real
def test_a_twin_goes_through_the_whole_pipeline(run_harness: RunHarness, tmp_path: Path) -> None:
    done = run_harness(
        "vet", "granite-4.0-micro", "--depth", "twin", "-f", "json", "-o", tmp_path, **OFFLINE
    )
    assert done.code == 3, done.err  # its tokenizer is not here
    candidate = candidates(done.out)["granite-4.0-micro"]
    pipeline = candidate["gates"]["pipeline"]
    assert candidate["depth"] == "twin" and pipeline["status"] == "PASS", pipeline
    numbers = pipeline["numbers"]
    assert 0 <= numbers["gguf_vs_mlx_kl_nats"] < 1e-6
    assert numbers["gguf_vs_mlx_top1_agreement"] == 1.0
    assert numbers["adapter_effect_nats"] > 0.001


def test_memory_needs_nothing_but_a_config(run_harness: RunHarness, tmp_path: Path) -> None:
    snapshot = load_snapshot(snapshot_path(SNAPSHOTS, "llama-3.2-3b-instruct"))
    (tmp_path / "config.json").write_text(json.dumps(snapshot.config))
    words = ["--lora-layers", 16, "--rank", 8, "--batch", 2, "--tokens-per-batch", 1024]
    words += ["--max-seq", 2048]
    seen = {}
    for bits in (16, 8, 4):
        done = run_harness("memory", tmp_path, "--bits", bits, *words, "--format", "json")
        assert done.code == 0, done.err
        seen[bits] = json.loads(done.out)
    for found in seen.values():
        assert found["train_low_gb"] <= found["train_peak_gb"] <= found["train_high_gb"]
        assert sum(found["breakdown_gb"].values()) == pytest.approx(found["train_peak_gb"])
        assert found["inference_peak_gb"] > found["weights_gb"] > 1
    assert seen[16]["train_peak_gb"] > seen[8]["train_peak_gb"] > seen[4]["train_peak_gb"]
    checkpointed = run_harness(
        "memory", tmp_path, "--bits", "16", *words, "--grad-checkpoint", "--format", "json"
    )
    assert json.loads(checkpointed.out)["train_peak_gb"] < seen[16]["train_peak_gb"]


def test_memory_of_a_candidate_is_told_to_people_too(run_harness: RunHarness) -> None:
    done = run_harness("memory", "llama-3.2-3b-instruct", "--device", "metal")
    assert done.code == 0, done.err
    assert "| **peak**" in done.out and "mlx_lm.lora --train" in done.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["memory", "llama-3.2-3b"], 2, "did you mean 'llama-3.2-"),
        (["memory", "llama-3.2-3b-instruct", "--bits", "7"], 2, "--bits is 7"),
        (["memory", "llama-3.2-3b-instruct", "--rank", "0"], 2, "--rank is 0"),
        (["memory", "./no-such-folder"], 2, "There is no folder"),
        (["vet", "--model-dir", "./no-such-folder"], 2, "There is no folder"),
        (["snapshot", "smolm2-135m-instruct"], 2, "did you mean 'smollm2-135m-instruct'"),
        (["snapshot", "biomedlm"], 4, "HF_HUB_OFFLINE"),
    ],
)
def test_a_mistake_is_one_sentence(
    run_harness: RunHarness, words: list[str], code: int, said: str
) -> None:
    done = run_harness(*words, **OFFLINE)
    assert done.code == code, done.err
    last = done.err.strip().splitlines()[-1]
    assert said in " ".join(done.err.split()) and "Traceback" not in done.err, last


@pytest.mark.parametrize("config", ["[1, 2]", "{", '{"model_type": "llama", "hidden_size": "a"}'])
def test_a_bad_config_is_refused_in_words(
    run_harness: RunHarness, tmp_path: Path, config: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    done = run_harness("memory", tmp_path)
    assert done.code == 4, done.err
    assert done.err.startswith("Error: ") and "Traceback" not in done.err


@pytest.mark.real
def test_a_snapshot_of_the_embedded_model_is_the_stored_one(
    run_harness: RunHarness, embedded: Path, tmp_path: Path
) -> None:
    del embedded  # it must be on this machine
    registry = shutil.copy(DEFAULT_REGISTRY, tmp_path / "model_registry.yaml")
    done = run_harness("snapshot", "smollm2-135m-instruct", "--registry", registry)
    assert done.code == 0, done.err
    name = "smollm2-135m-instruct"
    taken = load_snapshot(snapshot_path(tmp_path / "snapshots", name))
    assert taken == load_snapshot(snapshot_path(SNAPSHOTS, name))
