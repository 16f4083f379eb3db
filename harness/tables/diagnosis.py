"""What kind of damage it is: in words first, then in numbers with examples."""

from __future__ import annotations

from collections.abc import Sequence

from harness.escape import cell
from harness.records import Symptom
from harness.tables.markdown import compact, percent, pipe_table

_WORDS = 400


def diagnosis_words(symptoms: Sequence[Symptom]) -> str:
    """Return the worst symptom with its usual cause, then the others; empty if there are none."""
    if not symptoms:
        return ""
    worst, *others = symptoms
    words = [f"**Diagnosis: it {cell(worst.sentence, _WORDS)}.**"]
    words.append(f"Usual cause: {cell(worst.cause, _WORDS)}.")
    words += [f"It also {cell(each.sentence, _WORDS)}." for each in others]
    return " ".join(words)


def diagnosis_table(symptoms: Sequence[Symptom]) -> str:
    """Return one row per symptom, with two examples; empty if there are none."""
    headers = ["symptom", "replies", "%", "base", "for example"]
    rows = [
        [
            each.kind.value.replace("_", " "),
            str(each.count),
            percent(each.share),
            str(each.before),
            "; ".join(f"{cell(e.probe)}: {_said(e.response)}" for e in each.examples[:2]),
        ]
        for each in symptoms
    ]
    align = ("left", "right", "right", "right", "left")
    return compact(pipe_table(headers, rows, align)) if rows else ""


def _said(text: str) -> str:
    return cell(text) if text else "*(empty)*"
