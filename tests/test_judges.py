from __future__ import annotations

from math import nan

import pytest

from harness.policy import load_policy
from harness.records import Finding, GateResult, Observation, Scalar, Status
from harness.verdict import judge_gate

POLICY = load_policy()

NUMBERS: dict[str, dict[str, Scalar]] = {
    "load": {
        "parameters": 134_515_008,
        "weights_gb": 0.54,
        "dtype": "float32",
        "forward_ok": True,
        "token_ok": True,
        "first_token": "Hello",
    },
    "memory": {
        "budget_gb": 16.0,
        "load_peak_gb": 0.6,
        "inference_peak_gb": 1.1,
        "train_peak_gb": 3.2,
        "context_tokens": 2048,
        "train_tokens": 512,
        "train_batch": 1,
        "lora_layers": 12,
        "rank": 6,
        "trainable_parameters": 480_000,
        "dtype": "float32",
    },
    "gguf": {
        "file_gb": 0.27,
        "outtype": "f16",
        "tokenizer_texts": 24,
        "tokenizer_equal": 24,
        "template_equal": True,
        "texts": 6,
        "tokens": 140,
        "mean_kl_nats": 0.0004,
        "max_kl_nats": 0.01,
        "top1_agreement": 0.98,
        "max_logit_difference": 0.06,
        "talk_right": 10,
        "talk_n": 10,
    },
    "greetings": {"n": 40, "right": 38, "wrong": 1, "no_answer": 1, "share_right": 0.95},
    "facts": {
        "n": 130,
        "right": 80,
        "wrong": 45,
        "no_answer": 5,
        "share_right": 0.615,
        "n_scored": 130,
        "choice_right": 90,
        "choice_share": 0.692,
        "chance_share": 0.25,
    },
}


def gate(name: str, **changes: Scalar) -> GateResult:
    return judge_gate(Observation(gate=name, numbers=NUMBERS[name] | changes), POLICY)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_good_numbers_pass_and_are_in_the_reason(name: str) -> None:
    result = gate(name)
    assert result.status is Status.PASS, result.reason
    assert any(character.isdigit() for character in result.reason)
    assert result.numbers == NUMBERS[name]
    assert result.fix is None


@pytest.mark.parametrize(
    ("name", "changes", "status", "says"),
    [
        ("load", {"forward_ok": False}, Status.FAIL, "not finite"),
        ("load", {"token_ok": False}, Status.FAIL, "before the first token"),
        ("memory", {"train_peak_gb": 13.0}, Status.WARN, "training needs 81.2 % of the memory"),
        ("memory", {"train_peak_gb": 16.5}, Status.FAIL, "limit 100 %"),
        ("memory", {"load_peak_gb": 20.0}, Status.FAIL, "loading needs 125 %"),
        ("gguf", {"mean_kl_nats": 0.05}, Status.WARN, "mean KL"),
        ("gguf", {"mean_kl_nats": 7.3}, Status.FAIL, "7.3 nats/token"),
        ("gguf", {"top1_agreement": 0.85}, Status.WARN, "85 %"),
        ("gguf", {"top1_agreement": 0.02}, Status.FAIL, "first choice agrees"),
        ("gguf", {"tokenizer_equal": 23}, Status.WARN, "23 of 24 texts"),
        ("gguf", {"tokenizer_equal": 10}, Status.FAIL, "tokenised"),
        ("gguf", {"template_equal": False}, Status.WARN, "chat template"),
        ("gguf", {"talk_right": 2}, Status.FAIL, "talks nonsense"),
        ("gguf", {"talk_right": 0, "talk_n": 0}, Status.INCONCLUSIVE, "not fully compared"),
        ("greetings", {"right": 34, "wrong": 5}, Status.WARN, "only 85 %"),
        ("greetings", {"right": 10, "wrong": 29}, Status.FAIL, "only 25 %"),
        ("greetings", {"n": 5, "right": 5, "wrong": 0, "no_answer": 0}, Status.INCONCLUSIVE, "few"),
        ("greetings", {"n": 0, "right": 0, "wrong": 0, "no_answer": 0}, Status.INCONCLUSIVE, "few"),
        ("greetings", {"n": 10, "right": 0, "wrong": 9}, Status.FAIL, "only 0 %"),
        ("facts", {"right": 50, "wrong": 75}, Status.WARN, "only 38.5 %"),
        ("facts", {"right": 5, "wrong": 120}, Status.FAIL, "only 3.85 %"),
        ("facts", {"choice_share": 0.3}, Status.WARN, "less than 10 % above chance"),
        ("facts", {"choice_share": 0.2}, Status.FAIL, "less than 2 % above chance"),
        (
            "facts",
            {"n_scored": 0, "choice_right": 0, "choice_share": None, "chance_share": None},
            Status.PASS,
            "no options were scored",
        ),
    ],
)
def test_gates(name: str, changes: dict[str, Scalar], status: Status, says: str) -> None:
    result = gate(name, **changes)
    assert result.status is status, result.reason
    assert says in result.reason
    assert "\n" not in result.reason
    if status in (Status.WARN, Status.FAIL):
        assert result.fix


def unusable() -> list[tuple[str, str, Scalar]]:
    """Every number a judge reads, with every way in which it can be spoilt."""
    cases: list[tuple[str, str, Scalar]] = []
    for name, numbers in NUMBERS.items():
        for key, good in numbers.items():
            values: list[Scalar] = ["missing", nan]
            if not isinstance(good, str):
                values.append("text")
            if key not in ("choice_share", "chance_share"):  # None: nothing was scored
                values.append(None)
            if key != "share_right":  # shown in the table; the judge divides for itself
                cases += [(name, key, value) for value in values]
    return cases


@pytest.mark.parametrize(("name", "key", "value"), unusable())
def test_no_missing_or_unusable_number_is_ever_a_pass(name: str, key: str, value: Scalar) -> None:
    numbers = {k: v for k, v in NUMBERS[name].items() if k != key}
    if value != "missing":
        numbers[key] = value
    result = judge_gate(Observation(gate=name, numbers=numbers), POLICY)
    assert result.status is Status.ERROR
    assert key in result.reason


def test_answers_that_do_not_add_up_are_an_error() -> None:
    assert gate("greetings", right=99).status is Status.ERROR


def test_a_crash_is_an_error_with_its_last_line() -> None:
    crash = "Traceback (most recent call last):\n  File …\nValueError: bad shape\n\n"
    result = judge_gate(Observation(gate="load", error=crash), POLICY)
    assert (result.status, result.reason) == (Status.ERROR, "ValueError: bad shape")
    assert judge_gate(Observation(gate="load", error=""), POLICY).status is Status.ERROR


def test_not_run_is_neither_pass_nor_fail() -> None:
    result = judge_gate(Observation(gate="gguf", not_run="the Hub is away"), POLICY)
    assert (result.status, result.reason) == (Status.NOT_RUN, "the Hub is away")


def test_findings_count() -> None:
    fail = Finding(severity="fail", message="Can not map tensor 'x.biases'", fix="dequantize")
    warn = Finding(severity="warn", message="no chat template", fix="take the instruct version")
    note = Finding(severity="note", message="odd")

    def status(*findings: Finding, numbers: dict[str, Scalar]) -> GateResult:
        return judge_gate(Observation(gate="load", numbers=numbers, findings=findings), POLICY)

    failed = status(warn, fail, fail, numbers={})
    assert (failed.status, failed.fix) == (Status.FAIL, "dequantize")
    assert failed.reason == "Can not map tensor 'x.biases' (and 1 more)"
    warned = status(note, warn, numbers=NUMBERS["load"])
    assert (warned.status, warned.fix) == (Status.WARN, "take the instruct version")
    assert warned.reason.startswith("no chat template; 134.5 M parameters")
    assert status(note, numbers=NUMBERS["load"]).status is Status.PASS
    assert status(warn, numbers={}).status is Status.ERROR


def test_a_gate_that_nobody_judges_is_an_error() -> None:
    result = judge_gate(Observation(gate="smell", numbers={"roses": 1}), POLICY)
    assert result.status is Status.ERROR
    assert "'smell'" in result.reason
