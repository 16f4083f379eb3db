"""Engines answer what the model says: batching, options, adapters and runtimes agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from harness.checkpoints.converter import convert
from harness.engines import ENGINES, open_engine
from harness.errors import AdapterError, ModelError, UsageError
from harness.machine import cache_root
from harness.records import Question, Response, Subject
from harness.worker import load_subject
from harness.workers import local_worker, run

GENTLE = ROOT / "examples" / "adapters" / "gentle"

PROMPTS = (
    "Hello!",
    "What is the capital of Japan?",
    "hi",
    "Which organ pumps blood through the body?",
    "Name one mineral that bones are made of, please, and say nothing else.",
    "Good evening, how are you today?",
    "Which vitamin prevents scurvy?",
    "Thanks a lot!",
)
OPTIONS = ("The heart", "The liver", "A", "The small intestine of a healthy adult")


def question(number: int, max_tokens: int = 10) -> Question:
    return Question(
        id=f"q{number}",
        messages=(("user", PROMPTS[number]),),
        options=OPTIONS,
        max_tokens=max_tokens,
    )


QUESTIONS = [question(n) for n in range(len(PROMPTS))]

# -- the scripted engine ------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    replies = {"hi": {"text": "Hi! How are you?", "logprobs": [-1, -2, -3, -4]}}
    path.write_text(json.dumps({"replies": replies, "default": {"text": "one two three"}}))
    return path


def test_unknown_engine_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no engine 'vllm'.*" + ", ".join(sorted(ENGINES))):
        open_engine("vllm", tmp_path)


def test_scripted_engine_says_what_is_written(script: Path) -> None:
    engine = open_engine("scripted", script)
    hi, other = engine.ask([question(2), question(0, max_tokens=2)])
    assert (hi.text, hi.finish, hi.option_logprobs) == (
        "Hi! How are you?",
        "stop",
        (-1, -2, -3, -4),
    )
    assert (other.text, other.finish, other.completion_tokens) == ("one two", "length", 2)
    assert other.option_logprobs == (-1.0, -2.0, -3.0, -4.0)
    assert hi.option_tokens == (2, 2, 1, 7)
    ids = engine.tokenize("a b a")
    assert ids[0] == ids[2] != ids[1]
    assert engine.logits(ids).argmax(axis=-1).tolist() == ids


def test_scripted_adapter_is_laid_over_and_taken_off(script: Path, tmp_path: Path) -> None:
    (tmp_path / "scripted.json").write_text('{"default": {"text": "Bonjour"}}')
    engine = open_engine("scripted", script)
    before = engine.ask(QUESTIONS)
    engine.use_adapter(tmp_path)
    during = engine.ask(QUESTIONS)
    assert [r.text for r in during[:3]] == ["Bonjour", "Bonjour", "Hi! How are you?"]
    engine.use_adapter(None)
    assert engine.ask(QUESTIONS) == before
    with pytest.raises(AdapterError, match="cannot be read"):
        engine.use_adapter(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", '{"repl": {}}', '{"default": "x"}'])
def test_broken_script(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        open_engine("scripted", tmp_path / "model.json")


def test_script_without_a_reply_or_with_wrong_logprobs(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"replies": {"hi": {"text": "x", "logprobs": [-1]}}}')
    engine = open_engine("scripted", path)
    with pytest.raises(ModelError, match="no reply to 'Hello!'"):
        engine.ask([question(0)])
    with pytest.raises(ModelError, match="1 logprobs"):
        engine.ask([question(2)])


# -- the real engines, in a worker as in a real run ---------------------------------------


class Worker:
    """Functions of this module, run where MLX has its fast BLAS and the model stays loaded."""

    def __init__(self, executor: Executor, log: Path, model: Path) -> None:
        self._executor, self._log, self._model = executor, log, model

    def __call__(self, task: Any, *args: Any) -> Any:
        return run(self._executor, self._log, None, task, self._model, *args)


@pytest.fixture(scope="module")
def mlx(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("worker") / "log"
    with local_worker(log) as executor:
        yield Worker(executor, log, embedded)


def ask(model: Path, adapter: Path | None, groups: list[list[Question]]) -> list[Response]:
    """In the worker: every group is one batch."""
    subject = Subject(label="x", engine="mlx", model=model, adapter=adapter, fingerprint={})
    engine = load_subject(subject)
    return [response for group in groups for response in engine.ask(group)]


def plain_logprobs(model: Path, questions: list[Question]) -> list[list[float]]:
    """In the worker: every option by one full forward pass of its own, no cache, no batch."""
    engine = load_subject(Subject(label="x", engine="mlx", model=model, fingerprint={}))
    out = []
    for asked in questions:
        prompt, row = engine.tokenize(engine.render(asked)), []
        for option in asked.options:
            tokens = engine.tokenize(option)
            logits = engine.logits([*prompt, *tokens])[len(prompt) - 1 : -1].astype(np.float64)
            logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            row.append(float(logprobs[np.arange(len(tokens)), tokens].sum()))
        out.append(row)
    return out


@pytest.fixture(scope="module")
def base_responses(mlx: Worker) -> list[Response]:
    responses: list[Response] = mlx(ask, None, [QUESTIONS])
    return responses


@pytest.mark.real
def test_option_logprobs_equal_a_plain_forward_pass(
    mlx: Worker, base_responses: list[Response]
) -> None:
    tokens = np.array([r.option_tokens for r in base_responses])
    batched = np.array([r.option_logprobs for r in base_responses]) / tokens
    plain = np.array(mlx(plain_logprobs, QUESTIONS)) / tokens
    # MLX sums the 49,152 exponentials of a CPU log-sum-exp in float32: 1e-4 nats a token.
    np.testing.assert_allclose(batched, plain, atol=3e-4, rtol=0)


@pytest.mark.real
def test_a_batch_says_what_single_questions_say(
    mlx: Worker, base_responses: list[Response]
) -> None:
    single: list[Response] = mlx(ask, None, [[q] for q in QUESTIONS])
    for one, batched in zip(single, base_responses, strict=True):
        assert (one.text, one.finish) == (batched.text, batched.finish)
        np.testing.assert_allclose(one.option_logprobs, batched.option_logprobs, atol=1e-3)
    assert len({r.text for r in single}) > 4
    assert "Tokyo" in single[1].text


@pytest.mark.real
def test_the_same_batch_gives_the_same_floats(mlx: Worker, base_responses: list[Response]) -> None:
    assert mlx(ask, None, [QUESTIONS]) == base_responses


@pytest.mark.real
def test_an_adapter_taken_off_leaves_no_trace(mlx: Worker, base_responses: list[Response]) -> None:
    tuned: list[Response] = mlx(ask, GENTLE, [QUESTIONS[:2]])
    base: list[Response] = mlx(ask, None, [QUESTIONS[:2]])
    assert tuned != base
    assert mlx(ask, None, [QUESTIONS]) == base_responses


@pytest.mark.real
def test_an_adapter_whose_b_is_zero_changes_nothing(
    mlx: Worker, base_responses: list[Response], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(GENTLE / "adapters.safetensors")
    zero = {k: v * 0 if k.endswith("lora_b") else v for k, v in tensors.items()}
    save_file(zero, tmp_path / "adapters.safetensors")
    config = (GENTLE / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    assert mlx(ask, tmp_path, [QUESTIONS]) == base_responses


@pytest.mark.real
def test_llama_cpp_runs_the_same_model(
    embedded: Path, base_responses: list[Response], tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    convert(embedded, file, "f16", cache_dir=cache_root())
    engine = open_engine("llamacpp", file)
    try:
        replies = engine.ask(QUESTIONS)
        again = engine.ask(QUESTIONS)
        with pytest.raises(AdapterError, match="fuse it"):
            engine.use_adapter(GENTLE)
    finally:
        engine.close()
    assert "Tokyo" in replies[1].text
    assert [r.text for r in again] == [r.text for r in replies]
    for ours, theirs in zip(replies, base_responses, strict=True):
        assert ours.prompt_tokens == theirs.prompt_tokens
        assert ours.option_tokens == theirs.option_tokens
        np.testing.assert_allclose(ours.option_logprobs, theirs.option_logprobs, atol=0.5)
