"""`harness grade` on files of rows, good and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunHarness

ROWS = [
    {
        "question": "How many chambers has the heart?",
        "gold": "4",
        "answer": "It has four.",
        "id": 7,
    },
    {"question": "Which gland makes insulin?", "gold": ["pancreas"], "answer": "The liver does."},
    {"question": "Which gland makes insulin?", "gold": "pancreas", "answer": "", "note": "ç"},
]


def test_each_row_gains_outcome_and_reason(run_harness: RunHarness, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS), encoding="utf-8")
    done = run_harness("grade", "--cases", cases, "--format", "jsonl")
    assert done.code == 0, done.err
    graded = [json.loads(line) for line in done.out.splitlines()]
    assert [row["outcome"] for row in graded] == ["right", "wrong", "no_answer"]
    for before, after in zip(ROWS, graded, strict=True):
        assert after.pop("reason")
        after.pop("outcome")
        assert after == before
    summary = run_harness("grade", "--cases", cases)
    assert [line.split("|")[2].strip() for line in summary.out.splitlines()[2:]] == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"question": "a"}', "cases.jsonl:1: gold: field required"),
        ('{"question": "a", "gold": [], "answer": "b"}', "cases.jsonl:1: gold: "),
        ('{"question": "a", "gold": "b", "answer": 4}', "cases.jsonl:1: answer: "),
        ("[1, 2]", "cases.jsonl:1: the row: "),
        ("null", "cases.jsonl:1: the row: "),
        ('{"question": ', "cases.jsonl:1: the line is no JSON value"),
    ],
)
def test_a_broken_row_is_named(
    run_harness: RunHarness, tmp_path: Path, text: str, said: str
) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text(text + "\n")
    done = run_harness("grade", "--cases", cases, "--format", "jsonl")
    assert done.code == 2 and done.out == "", done.err
    assert said in done.err and len(done.err.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_told(run_harness: RunHarness, tmp_path: Path) -> None:
    done = run_harness("grade", "--cases", tmp_path / "none.jsonl")
    assert done.code == 2 and "cannot be read (No such file" in done.err
