"""What the pipeline gate's judge makes of numbers, without running anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness.judges.pipeline import judge
from harness.parity import parity
from harness.policy import load_policy
from harness.records import Status

STAGES = (
    "mlx_vs_reference", "gguf_vs_reference", "base_gguf_vs_mlx", "fused_vs_adapter", "gguf_vs_mlx",
    "gguf_vs_adapter", "qlora_fused_vs_adapter", "qlora_gguf_vs_mlx", "qlora_gguf_vs_adapter",
)  # fmt: skip


def stage(name: str, kl: float = 4e-12, gap: float = 3e-5, same: float = 1.0) -> dict[str, Any]:
    return {
        f"{name}_kl_nats": kl,
        f"{name}_max_logit_difference": gap,
        f"{name}_top1_agreement": same,
    }


def off(name: str) -> dict[str, Any]:
    return stage(name, 0.5, 4.0, 0.3)


def numbers(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "architecture": "llama", "texts": 6, "tokens": 376, "twin_parameters": 1246464,
        "logit_spread_nats": 1.5, "adapter_effect_nats": 0.05, "qlora_adapter_effect_nats": 0.05,
        "requantised_adapter_kept": 0.02,
    }  # fmt: skip
    for name in STAGES:
        found |= stage(name)
    return found | changes


def texts(found: dict[str, Any]) -> list[tuple[Status, str]]:
    return [(p.status, p.text) for p in judge(found, load_policy().gates).problems]


def test_agreement_passes_and_says_what_requantising_loses() -> None:
    judged = judge(numbers(), load_policy().gates)
    assert judged.problems == []
    assert "2 % of the adapter is left" in judged.summary


@pytest.mark.parametrize("name", [n for n in STAGES if n not in ("gguf_vs_reference",
                                                                 "base_gguf_vs_mlx")])  # fmt: skip
def test_a_stage_that_disagrees_fails(name: str) -> None:
    assert Status.FAIL in [status for status, _ in texts(numbers() | off(name))]


@pytest.mark.parametrize("name", ["fused_vs_adapter", "gguf_vs_mlx", "qlora_gguf_vs_mlx"])
def test_a_missing_stage_is_never_a_pass(name: str) -> None:
    found = {key: value for key, value in numbers().items() if not key.startswith(f"{name}_")}
    with pytest.raises(ValidationError):
        judge(found, load_policy().gates)


def test_without_the_4_bit_path_it_is_inconclusive() -> None:
    found = {k: v for k, v in numbers().items() if not k.startswith(("qlora", "requantised"))}
    assert [status for status, _ in texts(found)] == [Status.INCONCLUSIVE]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("mlx_vs_reference", "base_gguf_vs_mlx", "gguf_vs_mlx"), "MLX is alone"),
        (("mlx_vs_reference", "gguf_vs_reference"), "llama.cpp agrees with MLX"),
        (("gguf_vs_reference", "base_gguf_vs_mlx", "gguf_vs_mlx"), "MLX is right about the base"),
        (("gguf_vs_mlx",), "the base converts rightly"),
        (("fused_vs_adapter",), "in mlx_lm.fuse"),
    ],
)
def test_it_says_whose_side_it_is(wrong: tuple[str, ...], said: str) -> None:
    found = numbers()
    for name in wrong:
        found |= off(name)
    assert any(said in text for _, text in texts(found))


def test_one_cause_is_told_once() -> None:
    found = texts(numbers() | off("gguf_vs_mlx") | off("gguf_vs_adapter"))
    assert len(found) == 1


def test_rounding_as_of_a_table_passes_and_ten_times_more_warns() -> None:
    assert texts(numbers() | stage("gguf_vs_mlx", 1.8e-7, 0.0033)) == []
    (found,) = texts(numbers() | stage("gguf_vs_mlx", 2e-5, 0.01))
    assert found[0] is Status.WARN


def test_only_llama_cpp_beyond_the_window_fails() -> None:
    found = numbers(window_tokens=1024) | off("beyond_window_gguf_vs_mlx")
    ((status, text),) = texts(found)
    assert status is Status.FAIL and "1024 tokens" in text


def test_an_adapter_that_changes_nothing_shows_nothing() -> None:
    (found,) = texts(numbers(adapter_effect_nats=1e-6))
    assert found[0] is Status.INCONCLUSIVE


def test_no_tokens_are_inconclusive() -> None:
    assert [status for status, _ in texts(numbers(tokens=0))] == [Status.INCONCLUSIVE]


def test_the_page_has_the_thresholds_of_the_policy() -> None:
    page = (Path(__file__).parents[1] / "docs" / "twins.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)?) \| ([\d., ]+) \|", page, re.MULTILINE)
    told = {
        key: float(value)
        for keys, values in rows
        for key, value in zip(re.findall(r"\w+", keys), values.split(", "), strict=True)
    }
    assert told == load_policy().gates.pipeline.model_dump()


def test_parity_of_known_distributions() -> None:
    """Logits (0, 0) against (ln 3, 0): KL = ln 2 − ½·ln 3 … = ½·ln(4/3) nats."""
    even = np.zeros((1, 2), np.float32)
    skewed = np.array([[np.log(3.0), 0.0]], np.float32)
    seen = parity([even], [skewed])
    assert seen.mean_kl_nats == pytest.approx(0.5 * np.log(4 / 3), rel=1e-6)
    assert seen.max_logit_difference == pytest.approx(np.log(3.0), rel=1e-6)
    assert (seen.tokens, seen.top1_agreement) == (1, 1.0)


def test_parity_of_broken_logits_is_not_a_number() -> None:
    broken = np.array([[np.nan, 0.0]], np.float32)
    assert np.isnan(parity([np.zeros((1, 2), np.float32)], [broken]).mean_kl_nats)
