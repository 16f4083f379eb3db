"""Probe files: `probes/*.jsonl` → probe sets, checked line by line and hashed.

One JSON object a line, each a `records.Probe`. Nothing is skipped: a blank line, an unknown key,
a key written twice or a number that is text stops the load, and the message names file and line.
What is legal but poor (an answer given away by its question, …) is found by `lint_probe_set`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonlines
from pydantic import ValidationError
from rapidfuzz import fuzz, process

from harness.errors import ProbeError
from harness.records import Number, Probe, ProbeSet

NEAR_DUPLICATE = 93.0
"""Token-sort similarity, 0–100, from which `lint_probe_set` takes two prompts for one question."""

_FIRST_SUITE = "greetings"
_NEAR_MISS = 60.0


def bundled_probes_dir() -> Path:
    """Folder of the probe files that come with the source tree (an editable install keeps it)."""
    return Path(__file__).resolve().parents[1] / "probes"


def load_probe_set(path: Path) -> ProbeSet:
    """Read one probe file; the suite is named after the file's stem.

    Raises ProbeError if the file is missing, unreadable or empty, or at its first bad line.
    """
    probes: dict[str, Probe] = {}
    lines: dict[str, int] = {}
    for line, raw in _read_objects(path):
        probe = _parse_probe(raw, f"{path}:{line}")
        if probe.id in lines:
            raise ProbeError(
                f"{path}:{line}: the id '{probe.id}' is already used on line {lines[probe.id]}; "
                "give one of the two another id."
            )
        lines[probe.id] = line
        probes[probe.id] = probe
    if not probes:
        raise ProbeError(f"{path} is empty; write at least one probe, one JSON object a line.")
    return _probe_set(path.stem, probes.values())


def load_suites(directory: Path, limit: int | None = None, seed: int = 0) -> tuple[ProbeSet, ...]:
    """Read every `*.jsonl` of `directory`: greetings first, then by name.

    `limit` keeps that many probes of each suite (see `select_probes`); None keeps all.
    Raises ProbeError for a missing folder, a folder without probe files, or any bad file.
    """
    if not directory.is_dir():
        raise ProbeError(
            f"There is no probe folder at {directory}; name a folder that holds *.jsonl files."
        )
    paths = sorted(directory.glob("*.jsonl"), key=lambda p: (p.stem != _FIRST_SUITE, p.stem))
    if not paths:
        raise ProbeError(f"The folder {directory} holds no *.jsonl file; put a probe file there.")
    return tuple(select_probes(load_probe_set(path), limit, seed) for path in paths)


def select_probes(suite: ProbeSet, limit: int | None, seed: int = 0) -> ProbeSet:
    """At most `limit` probes of `suite`, in file order and spread evenly over its categories.

    The choice depends on seed, suite name and probe ids alone, and a larger limit adds to a
    smaller one's choice, so that stored answers stay usable. Raises ProbeError if `limit` < 1.
    """
    if limit is None:
        return suite
    if limit < 1:
        raise ProbeError(f"--limit is {limit}; give a number of probes of 1 or more.")
    by_category: dict[str, list[Probe]] = defaultdict(list)
    for probe in suite.probes:
        by_category[probe.category].append(probe)

    def lot(text: str) -> str:
        # A hash, not `random`: the same choice on every Python version and in any file order.
        return hashlib.sha256(f"{seed}\0{suite.name}\0{text}".encode()).hexdigest()

    turns = [
        (turn, lot(category), probe.id)
        for category, members in by_category.items()
        for turn, probe in enumerate(sorted(members, key=lambda p: lot(p.id)))
    ]
    chosen = {probe_id for _, _, probe_id in sorted(turns)[:limit]}
    return _probe_set(suite.name, (p for p in suite.probes if p.id in chosen))


def lint_probe_set(suite: ProbeSet) -> tuple[str, ...]:
    """Weaknesses that would blur a measurement, one sentence each; empty if there are none.

    Checks near-duplicate prompts; and for facts, answers that stand in their own prompt,
    distractors that contain an accepted answer, and numeric distractors inside the gold range.
    """
    found = list(_near_duplicates(suite.probes))
    for probe in suite.probes:
        if probe.grader != "fact":
            continue  # "hello" answers "hello": an echo is no leak there
        for answer in probe.accepted:
            if contains_phrase(probe.prompt, answer):
                found.append(f"{probe.id}: the prompt gives away the answer '{answer}'.")
            found.extend(
                f"{probe.id}: the distractor '{d}' contains the accepted answer '{answer}'."
                for d in probe.distractors
                if contains_phrase(d, answer)
            )
        if probe.number is not None:
            found.extend(
                f"{probe.id}: the distractor '{d}' lies in the accepted range."
                for d in probe.distractors
                if any(_in_range(value, probe.number) for value in numbers_in(d))
            )
    return tuple(found)


def contains_phrase(text: str, phrase: str) -> bool:
    """True if `phrase` stands in `text` as whole words, ignoring case and Unicode form."""
    pattern = rf"(?<!\w){re.escape(_folded(phrase))}(?!\w)"
    return re.search(pattern, _folded(text)) is not None


def numbers_in(text: str) -> tuple[float, ...]:
    """The numbers written in digits in `text`; commas are read as thousands separators."""
    return tuple(float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text))


def _in_range(value: float, gold: Number) -> bool:
    low, high = gold.value, gold.value if gold.high is None else gold.high
    return low * (1 - gold.tolerance) <= value <= high * (1 + gold.tolerance)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _near_duplicates(probes: Sequence[Probe]) -> Iterator[str]:
    # Greetings differ by a letter on purpose ("helo", "hello"), so only equal ones are doubled.
    for i, first in enumerate(probes):
        for second in probes[i + 1 :]:
            a, b = _folded(first.prompt), _folded(second.prompt)
            alike = fuzz.token_sort_ratio(a, b) >= NEAR_DUPLICATE
            if first.prompt == second.prompt or (alike and first.grader == "fact"):
                yield f"{first.id} and {second.id} ask almost the same: '{second.prompt}'."


def _probe_set(name: str, probes: Iterable[Probe]) -> ProbeSet:
    chosen = tuple(probes)
    canonical = json.dumps(
        [probe.model_dump(mode="json") for probe in chosen],
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    digest = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
    return ProbeSet(name=name, sha256=digest, probes=chosen)


def _read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object) of every line. Raises ProbeError, never skips."""
    if not path.exists():
        raise ProbeError(f"There is no probe file at {path}; check the path.")
    try:
        # Bytes, so that a line that is not UTF-8 is reported with its number; a BOM is dropped.
        with path.open("rb") as file, jsonlines.Reader(file, loads=_loads) as reader:
            yield from enumerate(reader.iter(type=dict), 1)
    except jsonlines.InvalidLineError as error:
        what = "the line is blank; delete it" if not error.line else _line_fault(error)
        raise ProbeError(f"{path}:{error.lineno}: {what}.") from error
    except OSError as error:
        raise ProbeError(
            f"The probe file {path} cannot be read ({error.strerror}); "
            "name a *.jsonl file and check its permissions."
        ) from error


def _line_fault(error: jsonlines.InvalidLineError) -> str:
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        detail = f"broken JSON at column {cause.colno}: {cause.msg[0].lower() + cause.msg[1:]}"
    elif cause is not None:
        detail = str(cause)
    else:
        detail = "this is JSON, but no object in braces"
    return f"{detail}; each line must be one complete JSON object in UTF-8"


def _loads(line: str | bytes) -> Any:
    try:
        return json.loads(
            line.rstrip(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of two equal keys in silence, which would hide an edit gone wrong.
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"the key '{twice}' is written twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _parse_probe(raw: dict[str, Any], where: str) -> Probe:
    """Validate one object strictly ("yes" is no boolean). Raises ProbeError starting `where`."""
    try:
        probe = Probe.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ProbeError(f"{where}: {_explain(error)}") from error
    where = f"{where} ('{probe.id}')"
    blank = [
        text for text in (probe.prompt, *probe.accepted, *probe.distractors) if not _folded(text)
    ]
    if blank:
        raise ProbeError(f"{where}: the prompt or an answer is blank; write it or delete it.")
    distractors = {_folded(text) for text in probe.distractors}
    both = next((text for text in probe.accepted if _folded(text) in distractors), None)
    if both is not None:
        raise ProbeError(
            f"{where}: '{both}' is both an accepted answer and a distractor; delete it from one."
        )
    gold = probe.number
    if gold is not None and (gold.tolerance < 0 or (gold.high or gold.value) < gold.value):
        raise ProbeError(
            f"{where}: number.high must not be below number.value, nor number.tolerance below 0."
        )
    return probe


def _explain(error: ValidationError) -> str:
    """The first fault in words, with a near miss for an unknown key."""
    # A misspelt key is also a missing one; the misspelling is what has to be mended.
    fault = min(error.errors(), key=lambda f: f["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in fault["loc"])
    more = (
        "" if error.error_count() == 1 else f" ({error.error_count() - 1} more faults in this line)"
    )
    if fault["type"] == "extra_forbidden":
        *parents, key = (str(part) for part in fault["loc"])
        known = list((Number if parents == ["number"] else Probe).model_fields)
        return f"unknown key '{place}'; {_suggest(key, known)}{more}"
    if fault["type"] == "missing":
        return f"the key '{place}' is missing; add it.{more}"
    shown = json.dumps(fault["input"], ensure_ascii=False)
    reason = fault["msg"][0].lower() + fault["msg"][1:]
    return f"'{place}' cannot be {_shortened(shown)}: {reason}.{more}"


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _suggest(key: str, known: list[str]) -> str:
    near = process.extractOne(key, known, scorer=fuzz.ratio, score_cutoff=_NEAR_MISS)
    return f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(known)}."
