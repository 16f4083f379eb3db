"""The gguf gate at depth header: real dry runs of the converter on ghosts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, llama_shapes
from gguf_classes import CLASSES
from header_context import context, facts, no_tools

from harness.checkpoints.converter import ConversionJob, convert_all
from harness.checkpoints.gguf_forecast import Obstacle
from harness.checkpoints.ghost import TensorShape, write_ghost
from harness.errors import ConversionError
from harness.gates import header_gguf
from harness.judges import judge_gate
from harness.judges.header_gguf import judge
from harness.machine import cache_root
from harness.policy import load_policy
from harness.records import Finding, HeaderFacts, Known, Observation, Scalar, Status

POLICY = load_policy(None)
NUMBERS: dict[str, Scalar] = {
    "parameters": 3_212_749_824,
    "tensors": 255,
    "outtype": "bf16",
    "file_gb": 6.426,
    "q8_0_gb": 3.414,
    "q4_k_m_gb": 2.012,
    "q4_k_m_without_fallback_gb": 2.012,
    "kquant_fallback_share": 0.0,
    "kquant_extra_share": 0.0,
    "tied_embeddings": True,
    "dropped_tensors": 0,
    "vocabulary_checked": True,
    "has_chat_template": True,
}
BY_NAME = {case.name: case for case in CLASSES}


def sound() -> dict[str, TensorShape]:
    return {name: TensorShape("BF16", shape) for name, shape in llama_shapes().items()}


def look(folder: Path, tmp_path: Path, known: HeaderFacts | None) -> Observation:
    seen = header_gguf.observe(context(folder, tmp_path, known), no_tools())
    assert (seen.gate, seen.depth) == ("gguf", "header")
    assert all(one.message.isprintable() for one in seen.findings)
    assert all(one.fix for one in seen.findings if one.severity == "fail")
    return seen


@pytest.mark.real
def test_the_converter_agrees_on_every_class(tmp_path: Path) -> None:
    folders = [case.ghost(tmp_path / str(number)) for number, case in enumerate(CLASSES)]
    jobs = [
        ConversionJob(model_dir=folder, out_file=tmp_path / "out" / f"{folder.name}.gguf",
                      outtype="bf16", mode="dry_run", vocabulary="none")
        for folder in folders
    ]  # fmt: skip
    outcomes = convert_all(jobs, cache_dir=cache_root())
    for case, outcome in zip(CLASSES, outcomes, strict=True):
        stopped = isinstance(outcome, ConversionError)
        assert stopped == case.converter_stops, (case.name, outcome)
        if isinstance(outcome, ConversionError):
            assert outcome.fix
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.real
def test_a_sound_model_passes_without_its_tokenizer(tmp_path: Path) -> None:
    tensors = sound() | {"vision_tower.layers.0.w.weight": TensorShape("BF16", (8, 8))}
    seen = look(write_ghost(tmp_path / "m", CONFIG, tensors), tmp_path, facts())
    numbers = seen.numbers
    elements = sum(math.prod(shape.shape) for shape in sound().values())
    assert numbers["parameters"] == elements
    assert numbers["outtype"] == "bf16"
    assert (numbers["tensors"], numbers["dropped_tensors"]) == (29, 1)
    assert (numbers["vocabulary_checked"], numbers["has_chat_template"]) == (False, None)
    assert numbers["kquant_fallback_share"] == 1.0, "rows of 8 and 16 suit no block type at all"
    assert any("vocabulary was not checked" in one.message for one in seen.findings)
    result = judge_gate(seen, POLICY)
    assert "1 tensors of vision or audio stay out, its vocabulary was not checked" in result.reason


@pytest.mark.real
def test_a_quantised_model_fails_by_name(tmp_path: Path) -> None:
    folder = BY_NAME["mlx 4 bit"].ghost(tmp_path / "mlx")
    result = judge_gate(look(folder, tmp_path, facts()), POLICY)
    assert result.status is Status.FAIL
    assert result.reason.startswith("model.embed_tokens.biases and 1 more tensors show")
    assert "more)" not in result.reason, "one cause is told once"
    assert "--dequantize" in str(result.fix)


def test_the_converter_has_the_last_word_on_what_it_looks_at() -> None:
    said = Finding(severity="fail", message="it is packed", fix="unpack it")
    findings = header_gguf._after_success(
        [Obstacle("a", said, converter_decides=True), Obstacle("b", said, converter_decides=False)]
    )
    assert [one.severity for one in findings] == ["note", "fail"]
    assert findings[0].message == "it is packed; the converter copes with that"
    error = ConversionError("the GGUF converter failed: no; mend it", tensor="x.y", fix="mend it")
    told = header_gguf._explained([Obstacle("x.y", said)], error)
    assert [one.message for one in told] == ["it is packed"]
    told = header_gguf._explained([Obstacle("z", said)], error)
    assert [(one.message, one.fix) for one in told[1:]] == [
        ("the GGUF converter failed: no", "mend it")
    ]


def test_pickled_weights_fail_without_a_look(tmp_path: Path) -> None:
    known = facts(weight_format="pickle", files=("config.json", "pytorch_model.bin"))
    result = judge_gate(look(tmp_path / "missing", tmp_path, known), POLICY)
    assert result.status is Status.FAIL
    assert "pickled (pytorch_model.bin)" in result.reason
    assert "refs/convert/safetensors" in str(result.fix)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x80\x02pickle", "safetensors"),
        (b"\xff" * 90, "download it again"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, says: str) -> None:
    folder = write_ghost(tmp_path / "m", CONFIG, sound())
    (folder / "model.safetensors").write_bytes(content)
    seen = look(folder, tmp_path, facts())
    assert says in f"{seen.findings[0].message} {seen.findings[0].fix}"
    assert judge_gate(seen, POLICY).status is Status.FAIL


def test_weights_under_another_name(tmp_path: Path) -> None:
    folder = write_ghost(tmp_path / "m", CONFIG, sound())
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (finding,) = look(folder, tmp_path, facts()).findings
    assert "no model*.safetensors" in finding.message
    assert "rename the weights" in str(finding.fix)


def test_shards_beside_a_single_file(tmp_path: Path) -> None:
    folder = write_ghost(tmp_path / "m", CONFIG, sound())
    (folder / "model-00001-of-00001.safetensors").hardlink_to(folder / "model.safetensors")
    seen = look(folder, tmp_path, facts())
    assert "twice" in seen.findings[0].message
    assert seen.findings[0].severity == "fail"


@pytest.mark.real
def test_without_tensors_only_the_class_can_be_judged(tmp_path: Path) -> None:
    known = facts()
    parts = known.parts | {"tensors": Known(standing="missing", source="")}
    known = known.model_copy(update={"parts": parts})
    seen = look(write_ghost(tmp_path / "m", CONFIG, {}), tmp_path, known)
    assert seen.not_run is not None
    config = CONFIG | {"architectures": ["MllamaForConditionalGeneration"]}
    seen = look(write_ghost(tmp_path / "m", config, {}), tmp_path, known)
    assert judge_gate(seen, POLICY).status is Status.FAIL


# -- the judge ------------------------------------------------------------------------------------


def judged(**changes: Scalar) -> tuple[list[Status], str]:
    found = judge(NUMBERS | changes, POLICY.gates)
    return [problem.status for problem in found.problems], found.summary


def test_a_good_file_passes() -> None:
    problems, summary = judged()
    assert problems == []
    assert summary == (
        "converts to a bf16 file of 6.43 GB (3.41 as Q8_0, 2.01 as Q4_K_M), 3.21 B parameters"
    )


@pytest.mark.parametrize(("extra", "expected"), [(0.15, []), (0.151, [Status.WARN])])
def test_k_quants_warn_only_where_they_cost_much(extra: float, expected: list[Status]) -> None:
    assert judged(kquant_extra_share=extra, kquant_fallback_share=0.8)[0] == expected


def test_what_was_not_looked_at_is_said() -> None:
    assert "its vocabulary was not checked" in judged(vocabulary_checked=False)[1]
    assert "439 tensors of vision or audio stay out" in judged(dropped_tensors=439)[1]


@pytest.mark.parametrize("gap", sorted(set(NUMBERS)))
def test_a_missing_number_is_an_error(gap: str) -> None:
    numbers: dict[str, Any] = {key: value for key, value in NUMBERS.items() if key != gap}
    seen = Observation(gate="gguf", depth="header", numbers=numbers)
    assert judge_gate(seen, POLICY).status is Status.ERROR
