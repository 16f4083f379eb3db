"""Bugs found by reading: each was a test first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlx_lm.utils import load_tokenizer

from harness.commands import _candidate
from harness.engines.mlx import BROKEN_LOGPROB, MlxEngine
from harness.engines.protocol import PROMPT_DATE, strftime_now
from harness.forgetting import score
from harness.records import Question, Response
from harness.registry import load_registry
from harness.transcripts import file_stem


def test_an_unknown_blas_is_one_sentence_and_wrong_usage(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "harness", "vet", "smollm2-135m-instruct", "-o", str(tmp_path)],
        env={**os.environ, "HARNESS_BLAS": "typo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]


def test_broken_log_probabilities_prefer_no_option() -> None:
    lengths = (3, 1, 2)
    broken = Response(
        probe_id="a",
        text="",
        finish="length",
        prompt_tokens=1,
        completion_tokens=0,
        option_logprobs=tuple(BROKEN_LOGPROB * n for n in lengths),
        option_tokens=lengths,
    )
    told = score(broken)
    assert told is not None
    assert not told.right
    assert told.margin == 0


@pytest.mark.parametrize("name", ["médical", "Модель", "x" * 120, "…"])
def test_a_folder_of_any_name_is_a_candidate(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    assert _candidate(load_registry(), str(folder)).name


@pytest.mark.parametrize("label", ["base + médical", "x" * 300, "模型" * 60, "../../etc"])
def test_file_stems_are_short_plain_and_never_empty(label: str) -> None:
    stem = file_stem(label)
    assert 0 < len(stem) <= 80
    assert stem.isascii()
    assert "/" not in stem


def test_the_date_in_a_prompt_is_fixed() -> None:
    assert strftime_now("%d %b %Y") == PROMPT_DATE.strftime("%d %b %Y")


@pytest.mark.real
def test_templates_that_print_the_date_get_the_fixed_one(embedded: Path) -> None:
    engine = MlxEngine.__new__(MlxEngine)  # the tokenizer alone renders
    engine.tokenizer = load_tokenizer(embedded)
    engine.tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }} {{ messages[0]['content'] }}"
    question = Question(id="q", messages=(("user", "hi"),), max_tokens=1)
    assert engine.render(question) == f"{PROMPT_DATE:%Y-%m-%d} hi"
