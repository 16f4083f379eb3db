"""One adapter against its base: suites, and the probes that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from harness.escape import cell
from harness.records import Comparison, Flip, PairedProbe, Status, SuiteComparison
from harness.tables.markdown import compact, percent, pipe_table, probability

_LEGEND = (
    "Right answers in %; Δ, its interval and MDE, the smallest drop that so many probes can show, "
    "in points; p one-sided."
)
_LEGEND_SCORED = (
    " Choice: the right option is the likeliest. "
    "Margin: nats per token between the right option and the wrong ones."
)


def comparison_table(comparison: Comparison) -> str:
    """Return before and after, one row per suite in lm-eval's order of columns.

    Below a suite follow, where there are any, replies without an answer, the share of scored
    probes whose right option is the likeliest, and the margin of the right option.
    """
    headers = ["metric", "n", "before", "after", "Δ", "95 % CI"]
    headers += ["lost/gained", "p", "MDE", "verdict"]
    rows = [row for suite in comparison.suites for row in _suite_rows(suite)]
    table = pipe_table(headers, rows, align=("left", *["right"] * 8, "left"))
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
    return compact(pipe_table(headers, rows)) if rows else ""


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


def _limited(headers: Sequence[str], rows: Sequence[Sequence[str]], total: int, word: str) -> str:
    if not rows:
        return f"{total} {word} probes; see the JSON report." if total else ""
    table = compact(pipe_table(headers, rows))
    left_out = total - len(rows)
    if not left_out:
        return table
    return f"{table}\n\n… and {left_out} more {word}; all are in the JSON report."


def _said(text: str) -> str:
    return cell(text) if text else "*(empty)*"


def _gained_row(pair: PairedProbe) -> list[str]:
    texts = (pair.before.response.text, pair.after.response.text)
    return [cell(pair.probe.id), _said(pair.probe.prompt), *(_said(text) for text in texts)]


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
