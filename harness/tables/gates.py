"""Candidates × gates, their reasons, and the recommendation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from harness.escape import cell, prose
from harness.records import (
    CandidateReport,
    Comparison,
    GateResult,
    Recommendation,
    Scalar,
    Status,
)
from harness.tables.markdown import LONG as _LONG
from harness.tables.markdown import NOTHING as _NOTHING
from harness.tables.markdown import compact, pipe_table
from harness.verdict import SEVERITY

GATE_ORDER = ("load", "memory", "gguf", "tokenizer", "pipeline", "greetings", "facts")

Owners: TypeAlias = Sequence[tuple[str, Sequence[GateResult]]]
"""(candidate or subject, its gate results), in the order of the report."""

_MANY = 4
_COMMAND = 2000
# Characters of a fix: a command cut short is none.


def gates_table(candidates: Sequence[CandidateReport]) -> str:
    """Return candidates × gates, each cell a status with its one telling number.

    Gates beyond those of `GATE_ORDER` get columns after them, in order of appearance. Below
    the table follow the reasons of all that did not pass, worst first, each reason once.
    """
    gates = _gate_columns(candidates)
    rows = []
    for candidate in candidates:
        by_name = {result.gate: result for result in candidate.gates}
        results = [by_name.get(gate) for gate in gates]
        shown = [gate_cell(result) if result else _NOTHING for result in results]
        rows.append([cell(candidate.name), candidate.depth, *shown])
    table = pipe_table(["candidate", "depth", *(cell(gate) for gate in gates)], rows)
    reasons = reasons_list([(candidate.name, candidate.gates) for candidate in candidates])
    return f"{table}\n\n{reasons}" if reasons else table


def gate_cell(result: GateResult) -> str:
    """Return e.g. "PASS 134.5 M" or "**FAIL** KL 7.31"."""
    status = result.status.value
    if result.status in (Status.FAIL, Status.ERROR):
        status = f"**{status}**"
    headline = "" if result.status in (Status.NOT_RUN, Status.ERROR) else _headline(result)
    return f"{status} {cell(headline)}".rstrip()


def tuned_gates_table(comparison: Comparison) -> str:
    """Return the gates run on the tuned model itself, as one row, with their reasons below."""
    rows = [[cell(comparison.subject), *(gate_cell(result) for result in comparison.gates)]]
    headers = ["tuned model", *(cell(result.gate) for result in comparison.gates)]
    reasons = reasons_list([("tuned model", comparison.gates)])
    return "\n\n".join(part for part in (pipe_table(headers, rows), reasons) if part)


def reasons_list(owners: Owners) -> str:
    """Return `grouped_reasons` as a Markdown list; empty if everything passed."""
    lines = []
    for status, who, reason, fix in grouped_reasons(owners):
        shown = prose(reason, _LONG)
        if fix:
            shown += (
                f"{'' if shown.endswith(('.', '!', '?')) else '.'} *Fix:* {prose(fix, _COMMAND)}"
            )
        lines.append(f"- **{status.value}** {cell(who, _LONG)}: {shown}")
    return "\n".join(lines)


def grouped_reasons(owners: Owners) -> list[tuple[Status, str, str, str]]:
    """Return (status, who, reason, fix) once for each distinct reason that is not a pass.

    Worst first, and last what did not run. `who` names candidates and gates, e.g.
    "llama, granite (every gate); smollm2 (gguf)"; more than four candidates are counted.
    """
    grouped: dict[tuple[Status, str, str], dict[str, list[str]]] = {}
    for owner, results in owners:
        for result in results:
            if result.status is not Status.PASS:
                key = (result.status, last_words(result.reason), result.fix or "")
                grouped.setdefault(key, {}).setdefault(owner, []).append(result.gate)
    sizes = {owner: len(results) for owner, results in owners}
    ordered = sorted(grouped, key=lambda key: (key[0] is Status.NOT_RUN, SEVERITY.index(key[0])))
    return [(key[0], _who(grouped[key], sizes), key[1], key[2]) for key in ordered]


def candidates_table(candidates: Sequence[CandidateReport]) -> str:
    """Return where each candidate comes from, under which licence, and why it is one."""
    rows = [[cell(c.name), cell(c.source), cell(c.licence), cell(c.why, 300)] for c in candidates]
    return compact(pipe_table(["candidate", "source", "licence", "why"], rows))


def known_table(candidates: Sequence[CandidateReport]) -> str:
    """Return how well each part of a candidate is known without its weights; empty at full."""
    rows = [
        [
            "" if number else cell(candidate.name),
            cell(part),
            known.standing,
            cell(known.source, 200),
            cell(known.note, 300),
        ]
        for candidate in candidates
        for number, (part, known) in enumerate(sorted(candidate.known.items()))
    ]
    headers = ["candidate", "part", "standing", "source", "note"]
    return compact(pipe_table(headers, rows)) if rows else ""


def findings_table(candidates: Sequence[CandidateReport]) -> str:
    """Return what the gates noticed beyond the reasons: notes, and failures after the first."""
    rows = []
    for candidate in candidates:
        for result in candidate.gates:
            first = next((f for f in result.findings if f.severity == "fail"), None)
            for finding in result.findings:
                if finding is not first and finding.severity != "warn":
                    row = [candidate.name, result.gate, finding.message, finding.fix or ""]
                    rows.append([prose(text, _COMMAND) for text in row])
    return compact(pipe_table(["candidate", "gate", "noticed", "fix"], rows)) if rows else ""


def recommendation_table(advice: Recommendation) -> str:
    """Return the candidates by place, with what each can do or lost by."""
    rows = [
        [
            str(each.place) if each.place else _NOTHING,
            cell(each.name),
            prose(each.reason, _COMMAND),
        ]
        for each in advice.ranking
    ]
    return compact(pipe_table(["place", "candidate", "why"], rows))


def last_words(reason: str) -> str:
    """Return the last line of a traceback, which names the error; other text as it is."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    is_traceback = any(line.startswith("Traceback (most recent call last)") for line in lines)
    return lines[-1] if is_traceback else reason.strip()


def _headline(result: GateResult) -> str:
    """Return the one number of a gate that a person asks for first; "" if it has none."""
    return _HEADLINES.get(result.gate, _first_number)(result.numbers)


def _parameters(numbers: Mapping[str, Scalar]) -> str:
    count = _number(numbers, "parameters")
    if count is None:
        return ""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _training_peak(numbers: Mapping[str, Scalar]) -> str:
    peak = _number(numbers, "train_peak_gb")
    return "" if peak is None else f"{peak:.2f} GB train"


def _file(numbers: Mapping[str, Scalar]) -> str:
    """How far the file is from the model, or, where there is no file yet, how large it will be."""
    size = _number(numbers, "file_gb")
    planned = "" if size is None else f"{size:.2f} GB"
    return _divergence(_number(numbers, "mean_kl_nats")) or planned


def _pipeline(numbers: Mapping[str, Scalar]) -> str:
    return _divergence(_number(numbers, "gguf_vs_mlx_kl_nats"))


def _texts(numbers: Mapping[str, Scalar]) -> str:
    equal, texts = _number(numbers, "equal"), _number(numbers, "texts")
    return "" if equal is None or texts is None else f"{equal:.0f}/{texts:.0f} texts"


def _divergence(nats: float | None) -> str:
    if nats is None:
        return ""
    if nats < 0.0001:
        return f"KL {nats:.0e}"
    return f"KL {nats:.4f}" if nats < 0.01 else f"KL {nats:.2f}"


def _right_of_asked(numbers: Mapping[str, Scalar]) -> str:
    right, asked = _number(numbers, "right"), _number(numbers, "n")
    if right is None or asked is None:
        return ""
    choice = _number(numbers, "choice_share")
    shown = f"{right:.0f}/{asked:.0f}"
    return shown if choice is None else f"{shown} (choice {100 * choice:.0f} %)"


def _first_number(numbers: Mapping[str, Scalar]) -> str:
    for name in numbers:
        value = _number(numbers, name)
        if value is not None:
            return f"{name} {value:.4g}"
    return ""


def _number(numbers: Mapping[str, Scalar], name: str) -> float | None:
    value = numbers.get(name)
    return None if isinstance(value, str | bool) else value


_HEADLINES: dict[str, Callable[[Mapping[str, Scalar]], str]] = {
    "load": _parameters,
    "memory": _training_peak,
    "gguf": _file,
    "tokenizer": _texts,
    "pipeline": _pipeline,
    "greetings": _right_of_asked,
    "facts": _right_of_asked,
}


def _gate_columns(candidates: Iterable[CandidateReport]) -> list[str]:
    present = dict.fromkeys(result.gate for c in candidates for result in c.gates)
    known = [gate for gate in GATE_ORDER if gate in present]
    return known + [gate for gate in present if gate not in GATE_ORDER]


def _who(gates_by_owner: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> str:
    """Return e.g. "llama, granite (every gate); smollm2 (gguf, facts)"."""
    owners_by_gates: dict[str, list[str]] = {}
    for owner, gates in gates_by_owner.items():
        whole = len(gates) == sizes[owner] and len(gates) > 1
        label = "every gate" if whole else ", ".join(gates)
        owners_by_gates.setdefault(label, []).append(owner)
    return "; ".join(
        f"{', '.join(owners) if len(owners) <= _MANY else f'{len(owners)} candidates'} ({label})"
        for label, owners in owners_by_gates.items()
    )
