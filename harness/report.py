"""What a report says and where it is written.

`to_dict` is the one machine-readable form: `--format json` prints it and `reports/<run>.json`
holds it. `to_markdown` is the same for people. Both are functions of the report alone, so the
same report always gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from harness import tables
from harness.errors import OperationalError
from harness.escape import block, cell, folded, visible
from harness.records import (
    CandidateReport,
    Comparison,
    Flip,
    GateResult,
    PairedProbe,
    Probe,
    Record,
    Report,
    Response,
    Status,
    SuiteComparison,
    Symptom,
    SymptomExample,
)
from harness.report_candidates import LONGEST_COMMAND, candidates_part
from harness.verdict import SEVERITY, exit_code_of

_QUOTED_PATH = re.compile(r"""(?P<quote>["'])/(?:[^"'\n]*/)?(?P<name>[^"'/\n]+)/?(?P=quote)""")
_PATH = re.compile(r"(?<![\w/:.~…>&])/(?:[\w.@+~%-]+/)+(?P<name>[\w.@+~%-]*)")
_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 120
_SHOWN = 12
# Lost probes that a person sees at once; the rest is folded.

_SENTENCES = {
    Status.PASS: "{after} still does what {before} could do.",
    Status.WARN: "{after} still does most of what {before} could do; read the warnings.",
    Status.FAIL: "{after} lost what {before} could do.",
    Status.INCONCLUSIVE: "the evidence does not show whether {after} lost anything of {before}.",
    Status.NOT_RUN: "{after} was not compared with {before}.",
    Status.ERROR: "the comparison of {after} with {before} broke.",
}


def overall(report: Report) -> tuple[Status, int]:
    """Return the verdict over everything in `report`, and its exit code.

    The worst status wins, in the order of `verdict.SEVERITY`: a candidate that was asked for and
    not looked at leaves the whole question open, whatever the others passed.
    """
    if _is_one_comparison(report):
        return report.comparisons[0].verdict, report.comparisons[0].exit_code
    found = {result.status for candidate in report.candidates for result in candidate.gates}
    found |= {comparison.verdict for comparison in report.comparisons}
    return min(found, key=SEVERITY.index, default=Status.NOT_RUN), exit_code_of(found)


def without_local_paths(report: Report) -> Report:
    """Return `report` with absolute paths cut to "…/name", except in probes and responses.

    Such paths name the person and the machine, and make equal runs look different.
    """
    clean = _strip(report)
    assert isinstance(clean, Report)
    return clean


def to_dict(report: Report) -> dict[str, Any]:
    """Return `report` as plain values that JSON can hold.

    A single comparison is spread over the top level (verdict, reasons, diagnosis, suites, …);
    several are listed under "comparisons", candidates under "candidates". Numbers that are not
    finite become None, and local paths are cut as `without_local_paths` says.
    """
    report = without_local_paths(report)
    verdict, exit_code = overall(report)
    data: dict[str, Any] = {
        "schema_version": report.schema_version,
        "run": report.run,
        "command": report.command,
        "verdict": verdict.value,
        "exit_code": exit_code,
        "reasons": _reasons(report),
    }
    if _is_one_comparison(report):
        data |= _comparison_dict(report.comparisons[0])
    elif report.comparisons:
        data["comparisons"] = [_comparison_dict(each) for each in report.comparisons]
    if report.candidates:
        data["candidates"] = [_candidate_dict(each) for each in report.candidates]
    if report.recommendation is not None:
        data["recommendation"] = report.recommendation.model_dump(mode="json")
    data["provenance"] = _json_value(report.provenance.model_dump())
    return data


def to_json(report: Report) -> str:
    """Return `to_dict` as indented JSON with a final newline."""
    text = json.dumps(to_dict(report), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    # A lone surrogate cannot be written as UTF-8; its backslash form is valid JSON.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def to_markdown(report: Report) -> str:
    """Return `report` as Markdown for a pull request: verdicts, reasons, tables, provenance."""
    report = without_local_paths(report)
    sections = []
    if report.candidates:
        sections.append(("Candidates", *candidates_part(report)))
    for comparison in report.comparisons:
        sections.append((cell(comparison.subject), *_comparison_part(comparison)))
    parts = [f"# {block(report.run)}", *(verdict for _, verdict, _ in sections)]
    for title, _, body in sections:
        # A lone section needs no heading of its own.
        parts += [f"## {title}", *body] if len(sections) > 1 else body
    parts.append(_provenance_part(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(report: Report, output_dir: Path) -> tuple[Path, Path]:
    """Write `<run>.md` and `<run>.json` into `output_dir`, each whole or not at all.

    Returns: the paths of the Markdown and of the JSON file.
    Raises: OperationalError where the folder or the files cannot be written.
    """
    name = file_name(report.run)
    contents = {
        output_dir / f"{name}.md": to_markdown(report),
        output_dir / f"{name}.json": to_json(report),
    }
    # A fixed name, so that what a killed run left behind is overwritten by the next one.
    drafts = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            _write_durably(drafts[path], text.encode("utf-8"))
        for path, draft in drafts.items():
            draft.replace(path)
        _sync_folder(output_dir)
    except OSError as error:
        raise OperationalError(
            f"The report cannot be written to {output_dir} "
            f"({(error.strerror or str(error)).lower()}); mend that, or name another folder "
            "with --output-dir."
        ) from error
    finally:
        for draft in drafts.values():
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
    markdown, data = contents
    return markdown, data


def file_name(run: str) -> str:
    """Return `run` as a file name without extension; different runs keep different names."""
    name = _UNSAFE_NAME.sub("-", run).strip("-.")[:_LONGEST_NAME]
    if name and name == run:
        return name
    digest = hashlib.sha256(run.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{name or 'report'}-{digest}"


def _reasons(report: Report) -> list[str]:
    if _is_one_comparison(report):
        return list(report.comparisons[0].reasons)
    owners = [(candidate.name, candidate.gates) for candidate in report.candidates]
    reasons = [
        f"{status.value} {who}: {reason}"
        for status, who, reason, _ in tables.grouped_reasons(owners)
    ]
    for comparison in report.comparisons:
        reasons += [f"{comparison.subject}: {reason}" for reason in comparison.reasons]
    return reasons


def _is_one_comparison(report: Report) -> bool:
    return len(report.comparisons) == 1 and not report.candidates


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "base": comparison.base,
        "subject": comparison.subject,
        "verdict": comparison.verdict.value,
        "exit_code": comparison.exit_code,
        "reasons": list(comparison.reasons),
        "diagnosis": [_symptom_dict(each) for each in comparison.diagnosis],
        "suites": {suite.suite: _suite_dict(suite) for suite in comparison.suites},
        "gates": {result.gate: _gate_dict(result) for result in comparison.gates},
        "changed": [_changed_dict(pair) for pair in comparison.changed],
    }


def _symptom_dict(symptom: Symptom) -> dict[str, Any]:
    plain = {name: _json_value(getattr(symptom, name)) for name in Symptom.model_fields}
    return {**plain, "examples": [each.model_dump() for each in symptom.examples]}


def _suite_dict(suite: SuiteComparison) -> dict[str, Any]:
    return {
        name: _json_value(getattr(suite, name))
        for name in SuiteComparison.model_fields
        if name != "suite"
    }


def _changed_dict(pair: PairedProbe) -> dict[str, Any]:
    sides: dict[str, Any] = {
        side: {
            "text": answered.response.text,
            "outcome": answered.grade.outcome.value,
            "reason": answered.grade.reason,
            "extracted": answered.grade.extracted,
            "finish": answered.response.finish,
        }
        for side, answered in (("before", pair.before), ("after", pair.after))
    }
    probe = pair.probe
    return {
        "probe": probe.id,
        "prompt": probe.prompt,
        "accepted": list(probe.accepted),
        "category": probe.category,
        "source": probe.source,
        "flip": pair.flip.value,
        **sides,
    }


def _candidate_dict(candidate: CandidateReport) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "depth": candidate.depth,
        "source": candidate.source,
        "licence": candidate.licence,
        "why": candidate.why,
        "known": {part: known.model_dump() for part, known in sorted(candidate.known.items())},
        "gates": {result.gate: _gate_dict(result) for result in candidate.gates},
    }


def _gate_dict(result: GateResult) -> dict[str, Any]:
    return {
        "status": result.status.value,
        "reason": result.reason,
        "fix": result.fix,
        "numbers": _json_value(result.numbers),
        "findings": [finding.model_dump() for finding in result.findings],
    }


def _json_value(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            # Whoever filled it may have done so in any order.
            return {key: _json_value(value[key]) for key in sorted(value)}
        case tuple() | list():
            return [_json_value(each) for each in value]
        case _:
            return value


def _strip(value: object) -> object:
    match value:
        case Probe() | Response() | SymptomExample() | Enum():
            return value
        case Record():
            fields = {name: _strip(getattr(value, name)) for name in type(value).model_fields}
            return value.model_copy(update=fields)
        case str():
            text = _QUOTED_PATH.sub(r"\g<quote>…/\g<name>\g<quote>", value)
            return _PATH.sub(r"…/\g<name>", text)
        case Mapping():
            return {_strip(key): _strip(each) for key, each in value.items()}
        case tuple():
            return tuple(_strip(each) for each in value)
        case _:
            return value


def _comparison_part(comparison: Comparison) -> tuple[str, list[str]]:
    sentence = _SENTENCES[comparison.verdict].format(
        before=cell(comparison.base), after=cell(comparison.subject)
    )
    verdict = f"**{comparison.verdict.value}: {sentence}**"
    body = ["\n".join(f"- {block(reason)}" for reason in comparison.reasons)]
    if comparison.diagnosis:
        verdict += f"\n\n{tables.diagnosis_words(comparison.diagnosis)}"
        body.insert(0, tables.diagnosis_table(comparison.diagnosis))
    if comparison.suites:
        body.append(tables.comparison_table(comparison))
    if comparison.gates:
        body.append(tables.tuned_gates_table(comparison))
    counts = Counter(pair.flip for pair in comparison.changed)
    if counts[Flip.LOST]:
        body.append(f"**Lost: {counts[Flip.LOST]}**\n\n{tables.lost_table(comparison, 0, _SHOWN)}")
        rest = tables.lost_table(comparison, _SHOWN, None)
        if rest:
            body.append(folded(f"The other {counts[Flip.LOST] - _SHOWN} lost probes", rest))
    if counts[Flip.GAINED]:
        title = f"Gained: {counts[Flip.GAINED]}"
        body.append(folded(title, tables.gained_table(comparison)))
    return verdict, body


def _provenance_part(report: Report) -> str:
    provenance = report.provenance
    table = tables.provenance_table(
        [
            *sorted(provenance.subjects.items()),
            ("probe sets", provenance.probe_sets),
            ("settings", provenance.settings),
            ("packages", provenance.packages),
            ("machine", provenance.machine),
            ("harness", provenance.git),
        ]
    )
    # Indented code: no run of backticks in the command can end it.
    command = f"Repeat it with:\n\n    {visible(report.command, LONGEST_COMMAND)}"
    return folded("Provenance", f"{command}\n\n{table}".rstrip())


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
