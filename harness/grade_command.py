"""`harness grade`: rows of question, gold and answer, each with its outcome and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jsonlines
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tabulate import tabulate

from harness.errors import UsageError
from harness.grading import grade_answer
from harness.records import Outcome

Words = Annotated[str, Field(min_length=1, max_length=10_000)]


class Case(BaseModel):
    """What a row must hold; what else it holds is kept."""

    model_config = ConfigDict(extra="allow", strict=True)

    question: Words
    gold: Words | list[Words] = Field(min_length=1)
    """One right answer, or several of which one will do."""
    answer: Annotated[str, Field(max_length=1_000_000)]


def grade_rows(cases: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file in their order, each with `outcome` and `reason`.

    Raises:
        UsageError: the file cannot be read, or a line is no such row; names file and line.
    """
    try:
        with jsonlines.open(cases) as reader:
            for number, row in enumerate(reader.iter(allow_none=True, skip_empty=True), start=1):
                case = _case(cases, number, row)
                grade = grade_answer(case.question, case.gold, case.answer)
                kept = case.model_dump()
                yield {**kept, "outcome": grade.outcome.value, "reason": grade.reason}
    except jsonlines.InvalidLineError as error:
        raise UsageError(
            f"{cases}:{error.lineno}: the line is no JSON value ({str(error).split(' (line')[0]}); "
            "mend or remove it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"{cases} cannot be read ({reason}); give a JSONL file.") from error


def _case(cases: Path, number: int, row: object) -> Case:
    try:
        return Case.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"][:1])) or "the row"
        raise UsageError(
            f"{cases}:{number}: {key}: {first['msg'].lower()}; a row needs question, gold (text or "
            "a list of texts) and answer."
        ) from error


def grades_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows have which outcome."""
    counts = Counter(row["outcome"] for row in rows)
    table = [
        [outcome.value, counts[outcome.value], f"{100 * counts[outcome.value] / len(rows):.1f}"]
        for outcome in Outcome
        if rows
    ]
    return tabulate(table, ["outcome", f"of {len(rows)}", "%"], tablefmt="pipe") + "\n"
