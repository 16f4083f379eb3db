"""Records → Markdown tables. Pure: no I/O, no clock.

Every string that a model or a file could have written goes through `escape`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeAlias

from tabulate import tabulate

from harness.escape import cell
from harness.records import (
    CandidateReport,
    Comparison,
    Flip,
    GateResult,
    PairedProbe,
    Scalar,
    Status,
    SuiteComparison,
)
from harness.verdict import SEVERITY

GATE_ORDER = ("load", "memory", "gguf", "greetings", "facts")

Owners: TypeAlias = Sequence[tuple[str, Sequence[GateResult]]]
"""(candidate or subject, its gate results), in the order of the report."""

_NOTHING = "–"
_MANY = 4
_LONG = 600
_LEGEND = (
    "Right answers in %; Δ, its interval and MDE, the smallest drop that so many probes can show, "
    "in points; p one-sided."
)
_LEGEND_SCORED = (
    " Choice: the right option is the likeliest. "
    "Margin: nats per token between the right option and the wrong ones."
)
_BLANKS = re.compile(" {2,}")
_RULE_RUN = re.compile("-{4,}")


def gates_table(candidates: Sequence[CandidateReport]) -> str:
    """Return candidates × gates, each cell a status with its one telling number.

    Gates beyond the five of `GATE_ORDER` get columns after them, in order of appearance. Below
    the table follow the reasons of all that did not pass, worst first, each reason once.
    """
    gates = _gate_columns(candidates)
    rows = []
    for candidate in candidates:
        by_name = {result.gate: result for result in candidate.gates}
        results = [by_name.get(gate) for gate in gates]
        shown = [gate_cell(result) if result else _NOTHING for result in results]
        rows.append([cell(candidate.name), candidate.depth, *shown])
    table = _table(["candidate", "depth", *(cell(gate) for gate in gates)], rows)
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
    return "\n\n".join(part for part in (_table(headers, rows), reasons) if part)


def reasons_list(owners: Owners) -> str:
    """Return `grouped_reasons` as a Markdown list; empty if everything passed."""
    lines = []
    for status, who, reason, fix in grouped_reasons(owners):
        shown = cell(reason, _LONG)
        if fix:
            shown += f"{'' if shown.endswith(('.', '!', '?')) else '.'} *Fix:* {cell(fix, _LONG)}"
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


def comparison_table(comparison: Comparison) -> str:
    """Return before and after, one row per suite in lm-eval's order of columns.

    Below a suite follow, where there are any, replies without an answer, the share of scored
    probes whose right option is the likeliest, and the margin of the right option.
    """
    headers = ["metric", "n", "before", "after", "Δ", "95 % CI"]
    headers += ["lost/gained", "p", "MDE", "verdict"]
    rows = [row for suite in comparison.suites for row in _suite_rows(suite)]
    table = _table(headers, rows, align=("left", *["right"] * 8, "left"))
    scored = any(suite.n_scored for suite in comparison.suites)
    return f"{table}\n\n*{_LEGEND}{_LEGEND_SCORED if scored else ''}*"


def lost_table(comparison: Comparison, first: int = 0, limit: int | None = 12) -> str:
    """Return the lost probes with both answers side by side; empty if there are none.

    The suites take turns, so that a few rows show every kind of loss.

    Args:
        comparison: its `changed` holds the probes.
        first: how many to pass over.
        limit: rows shown, None for all.
    """
    lost = _in_turns([pair for pair in comparison.changed if pair.flip is Flip.LOST])
    headers = ["probe", "question", "right answer", "before", "after", "why it is not right"]
    rows = [
        [
            cell(pair.probe.id),
            _said(pair.probe.prompt),
            cell(pair.probe.accepted[0], 60),
            _said(pair.before.response.text),
            _said(pair.after.response.text),
            cell(pair.after.grade.reason),
        ]
        for pair in lost[first : None if limit is None else first + limit]
    ]
    return _compact(_table(headers, rows)) if rows else ""


def _in_turns(pairs: Sequence[PairedProbe]) -> list[PairedProbe]:
    by_grader: dict[str, list[PairedProbe]] = {}
    for pair in pairs:
        by_grader.setdefault(pair.probe.grader, []).append(pair)
    rounds = zip_longest(*by_grader.values())
    return [pair for turn in rounds for pair in turn if pair is not None]


def gained_table(comparison: Comparison, limit: int = 5) -> str:
    """Return the gained probes, shorter than `lost_table`; empty if none was gained."""
    gained = [pair for pair in comparison.changed if pair.flip is Flip.GAINED]
    headers = ["probe", "question", "before", "after"]
    rows = [_gained_row(pair) for pair in gained[:limit]]
    return _limited(headers, rows, len(gained), "gained")


def candidates_table(candidates: Sequence[CandidateReport]) -> str:
    """Return where each candidate comes from, under which licence, and why it is one."""
    rows = [[cell(c.name), cell(c.source), cell(c.licence), cell(c.why, 300)] for c in candidates]
    return _compact(_table(["candidate", "source", "licence", "why"], rows))


def provenance_table(sections: Sequence[tuple[str, Mapping[str, Scalar]]]) -> str:
    """Return one row per value, sorted within its section; empty if there are none."""
    rows = []
    for title, values in sections:
        for number, name in enumerate(sorted(values)):
            first = "" if number else cell(title)
            rows.append([first, cell(name), cell(_plain(values[name]), 200)])
    return _compact(_table(["of", "what", "value"], rows)) if rows else ""


def last_words(reason: str) -> str:
    """Return the last line of a traceback, which names the error; other text as it is."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    is_traceback = any(line.startswith("Traceback (most recent call last)") for line in lines)
    return lines[-1] if is_traceback else reason.strip()


def percent(share: float) -> str:
    """Return a share as a per cent figure, e.g. 0.909 → "90.9"."""
    return f"{100 * share:.1f}"


def probability(value: float) -> str:
    """Return a p-value with three decimals; below those, "<0.001"."""
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None
) -> str:
    # Numbers must be printed as they were formatted here, so tabulate may not read them.
    return tabulate(
        rows,
        headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=align or ["left"] * len(headers),
    )


def _compact(table: str) -> str:
    # Padding each row to the longest answer would make every line hundreds of columns wide.
    return _BLANKS.sub(" ", _RULE_RUN.sub("---", table))


def _limited(headers: Sequence[str], rows: Sequence[Sequence[str]], total: int, word: str) -> str:
    if not rows:
        return f"{total} {word} probes; see the JSON report." if total else ""
    table = _compact(_table(headers, rows))
    left_out = total - len(rows)
    if not left_out:
        return table
    return f"{table}\n\n… and {left_out} more {word}; all are in the JSON report."


def _headline(result: GateResult) -> str:
    """Return the one number of a gate that a person asks for first; "" if it has none."""
    tell = _HEADLINES.get(result.gate, _first_number)
    return tell(result.numbers) or _first_number(result.numbers)


def _parameters(numbers: Mapping[str, Scalar]) -> str:
    count = _number(numbers, "parameters")
    if count is None:
        return ""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _training_peak(numbers: Mapping[str, Scalar]) -> str:
    peak = _number(numbers, "train_peak_gb")
    return "" if peak is None else f"{peak:.2f} GB train"


def _divergence(numbers: Mapping[str, Scalar]) -> str:
    nats = _number(numbers, "mean_kl_nats")
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
    "gguf": _divergence,
    "greetings": _right_of_asked,
    "facts": _right_of_asked,
}


def _said(text: str) -> str:
    return cell(text) if text else "*(empty)*"


def _gained_row(pair: PairedProbe) -> list[str]:
    texts = (pair.before.response.text, pair.after.response.text)
    return [cell(pair.probe.id), _said(pair.probe.prompt), *(_said(text) for text in texts)]


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


def _suite_rows(suite: SuiteComparison) -> list[list[str]]:
    rows = [
        [
            f"**{cell(suite.suite)}**",
            str(suite.n),
            percent(suite.before),
            percent(suite.after),
            _points(suite.after - suite.before),
            _interval(suite.ci, _points),
            f"{suite.lost}/{suite.gained}",
            probability(suite.p_value),
            percent(suite.mde),
            _verdict(suite.verdict),
        ]
    ]
    if suite.no_answer_before or suite.no_answer_after:
        before, after = suite.no_answer_before / suite.n, suite.no_answer_after / suite.n
        shares = [percent(before), percent(after), _points(after - before)]
        rows.append(["↳ no answer", str(suite.n), *shares, "", "", "", "", ""])
    if suite.choice_before is not None and suite.choice_after is not None:
        shares = [percent(suite.choice_before), percent(suite.choice_after)]
        change = _points(suite.choice_after - suite.choice_before)
        flips = f"{suite.choice_lost}/{suite.choice_gained}"
        row = ["↳ choice", str(suite.n_scored), *shares, change, "", flips]
        rows.append([*row, _probability_or_blank(suite.choice_p), "", ""])
    if suite.margin_change is not None:
        interval = _interval(suite.margin_ci, _nats) if suite.margin_ci else ""
        row = ["↳ margin", str(suite.n_scored), "", "", _nats(suite.margin_change), interval, ""]
        rows.append([*row, _probability_or_blank(suite.margin_p), "", ""])
    return rows


def _verdict(status: Status) -> str:
    return status.value if status is Status.PASS else f"**{status.value}**"


def _points(share: float) -> str:
    return _signed(100 * share, 1)


def _nats(value: float) -> str:
    return _signed(value, 2)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    # "+0.0" and "-0.0" would claim a direction that the shown digits do not have.
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def _interval(bounds: tuple[float, float], show: Callable[[float], str]) -> str:
    return f"{show(bounds[0])} … {show(bounds[1])}"


def _probability_or_blank(value: float | None) -> str:
    return "" if value is None else probability(value)


def _plain(value: Scalar) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)
