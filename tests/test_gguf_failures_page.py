"""The page of conversion failures: every row complete, every class that is tested on it."""

from __future__ import annotations

import re
from pathlib import Path

from gguf_classes import CLASSES

PAGE = (Path(__file__).parents[1] / "docs" / "gguf-failures.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| what people see")
]
TOLD = ("header", "header + tokenizer", "twin", "full", "no")


def test_fifty_failures_have_cause_fix_depth_and_source() -> None:
    assert len(ROWS) == 50
    assert all(len(row) == 5 and all(row) for row in ROWS)
    assert all(re.fullmatch(r"\[[^]]+\]\(https://[^)]+\)", row[4]) for row in ROWS)
    assert len({row[4] for row in ROWS}) == 50
    for row in ROWS:
        assert re.split(r"[:;]| for ", row[3])[0] in TOLD, row[3]


def test_the_classes_that_tests_build_are_on_the_page() -> None:
    links = {row[4].rpartition("(")[2].strip(")"): row[3] for row in ROWS}
    for case in CLASSES:
        assert links[case.source].startswith("header"), case.name


def test_what_cannot_be_told_from_headers_is_said() -> None:
    late = [row[4] for row in ROWS if not row[3].startswith("header")]
    assert len(late) == 3
