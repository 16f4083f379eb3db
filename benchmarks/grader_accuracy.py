"""How well the fact grader agrees with people: precision, recall, and what it gets wrong.

    python benchmarks/grader_accuracy.py ROWS.jsonl [--errors 20] [--seed 0]

ROWS.jsonl holds one object per line: question, gold (a string, alternatives separated by "/", or a
list), answer, and correct (true or false, a person's verdict). Rows such as those of EVOUNA
(Wang et al. 2023, "Evaluating Open-QA Evaluation", https://github.com/wangcunxiang/QA-Eval) fit.

Precision is the share of the rows graded right that a person called right, recall the share of the
rows a person called right that are graded right. Both come with 95 % intervals: questions are
resampled, not rows, since the answers to one question stand or fall together. The questions are
also split in two halves by their hash, so that rules may be developed on half A and checked on B.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.grading import GRADER_VERSION, grade_answer
from harness.records import Outcome

RESAMPLES = 1000
LENGTHS = ((5, "1 to 5 words"), (30, "6 to 30 words"), (80, "31 to 80 words"))
LONGEST = "over 80 words"


class Judged(NamedTuple):
    """One row with both verdicts."""

    row: dict[str, Any]
    correct: bool
    """The person's."""
    right: bool
    """The grader's."""
    reason: str


def main() -> None:
    """Reads the rows, grades them and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path, help="JSON lines: question, gold, answer, correct")
    parser.add_argument("--errors", type=int, default=0, help="print so many errors of each kind")
    parser.add_argument("--half", choices=["A", "B"], help="print errors of this half only")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the intervals and the choice of errors"
    )
    options = parser.parse_args()
    rows = read_rows(options.rows)
    started = time.perf_counter()
    judged = [judge(row) for row in rows]
    seconds = time.perf_counter() - started
    print(f"grader version {GRADER_VERSION}, {len(judged)} rows graded in {seconds:.1f} s\n")
    print_table(judged, random.Random(options.seed))
    print_reasons(judged)
    if options.errors:
        chosen = [j for j in judged if options.half in (None, half_of(j.row))]
        print_errors(chosen, options.errors, random.Random(options.seed))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; ends the program with a message where one is no graded row."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            missing = {"question", "gold", "answer", "correct"} - row.keys()
            if missing:
                sys.exit(f"{path}:{number}: no {', '.join(sorted(missing))}")
            rows.append(row)
    return rows


def judge(row: dict[str, Any]) -> Judged:
    """Grades one row."""
    grade = grade_answer(row["question"], row["gold"], row["answer"])
    return Judged(row, bool(row["correct"]), grade.outcome is Outcome.RIGHT, grade.reason)


def half_of(row: dict[str, Any]) -> str:
    """ "A" or "B", the same for all answers to one question."""
    question = f"{row['set']}{row['qid']}" if {"set", "qid"} <= row.keys() else row["question"]
    return "AB"[hashlib.sha256(f"{question}x".encode()).digest()[0] % 2]


def length_of(row: dict[str, Any]) -> str:
    """The answer's length, in a few classes."""
    words = len(row["answer"].split())
    return next((name for limit, name in LENGTHS if words <= limit), LONGEST)


def groups(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All rows, then by half, by set and model where the rows name them, and by length."""
    result: dict[str, list[Judged]] = {"all": list(judged), "half A": [], "half B": []}
    for j in judged:
        result[f"half {half_of(j.row)}"].append(j)
    for key in ("set", "model"):
        for name in sorted({j.row[key] for j in judged if key in j.row}):
            result[str(name)] = [j for j in judged if j.row.get(key) == name]
    for name in (*(name for _, name in LENGTHS), LONGEST):
        result[name] = [j for j in judged if length_of(j.row) == name]
    return {name: rows for name, rows in result.items() if rows}


def accuracy(judged: Iterable[Judged]) -> tuple[float, float, Counter[tuple[bool, bool]]]:
    """(precision, recall, counts of (correct, right)); NaN where nothing was called right."""
    counts = Counter((j.correct, j.right) for j in judged)
    hits = counts[True, True]
    said, wanted = hits + counts[False, True], hits + counts[True, False]
    return hits / said if said else float("nan"), hits / wanted if wanted else float("nan"), counts


def intervals(judged: Sequence[Judged], chance: random.Random) -> tuple[str, str]:
    """95 % percentile bootstrap intervals of precision and recall, questions resampled."""
    clusters: dict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for j in judged:
        clusters[str(j.row["question"])][j.correct, j.right] += 1
    each = [(c[True, True], c[False, True], c[True, False]) for c in clusters.values()]
    precisions, recalls = [], []
    for _ in range(RESAMPLES):
        drawn = chance.choices(each, k=len(each))
        hits, false, missed = (sum(column) for column in zip(*drawn, strict=True))
        precisions.append(hits / max(1, hits + false))
        recalls.append(hits / max(1, hits + missed))
    return _middle(precisions), _middle(recalls)


def _middle(values: list[float]) -> str:
    values.sort()
    low, high = values[int(0.025 * len(values))], values[int(0.975 * len(values)) - 1]
    return f"{low:.3f}-{high:.3f}"


def print_table(judged: Sequence[Judged], chance: random.Random) -> None:
    """One line per group of rows."""
    print(f"{'rows':16}{'n':>6}  {'precision':22}{'recall':22}{'missed':>7}{'false':>7}")
    for name, rows in groups(judged).items():
        precision, recall, counts = accuracy(rows)
        around_precision, around_recall = intervals(rows, chance)
        print(
            f"{name:16}{len(rows):6}  {precision:.4f} ({around_precision})  {recall:.4f} "
            f"({around_recall})  {counts[True, False]:6}{counts[False, True]:7}"
        )


def print_reasons(judged: Sequence[Judged]) -> None:
    """Why rows that a person called right were not graded right, in the grader's words."""
    kinds = Counter(j.reason.split("'")[0].strip() for j in judged if j.correct and not j.right)
    print("\nreasons given for missed rows")
    for kind, count in kinds.most_common():
        print(f"{count:6}  {kind}")


def print_errors(judged: Sequence[Judged], most: int, chance: random.Random) -> None:
    """A sample of the errors, to be read by a person."""
    for title, right in (("missed", False), ("graded right, a person says wrong", True)):
        wrong = [j for j in judged if j.right is right and j.correct is not right]
        print(f"\n{title}: {len(wrong)}")
        for j in chance.sample(wrong, min(most, len(wrong))):
            print(f"\n  {j.row['question']}\n  gold: {str(j.row['gold'])[:200]}")
            print(f"  answer: {' '.join(j.row['answer'].split())[:300]}\n  grader: {j.reason}")


if __name__ == "__main__":
    main()
