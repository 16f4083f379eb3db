"""Probe files: what loading refuses, what --limit selects, and what the lint finds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ProbeError
from harness.probes import (
    bundled_probes_dir,
    contains_phrase,
    lint_probe_set,
    load_probe_set,
    load_suites,
    numbers_in,
    select_probes,
)
from harness.records import Probe, ProbeSet

ROW: dict[str, Any] = {
    "id": "organs-001",
    "grader": "fact",
    "prompt": "Which organ pumps blood?",
    "accepted": ["The heart", "heart"],
    "distractors": ["The liver", "The lung"],
    "category": "organs",
    "source": "A textbook, ch. 1",
}


def line(**changes: Any) -> str:
    return json.dumps(ROW | changes, ensure_ascii=False)


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture(scope="module")
def facts() -> ProbeSet:
    return load_probe_set(bundled_probes_dir() / "medical_facts.jsonl")


# --- loading ------------------------------------------------------------------------------------


def test_loads_every_line_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "organs.jsonl", line(id="b"), line(id="a", strict=True))
    suite = load_probe_set(path)
    assert suite.name == "organs"
    assert [(p.id, p.strict) for p in suite.probes] == [("b", False), ("a", True)]


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = load_probe_set(write(tmp_path / "organs.jsonl", line(prompt="Où est le cœur?")))
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line(prompt="Où est le cœur?").encode() + b"\r\n")
    assert load_probe_set(path).sha256 == plain.sha256


def test_hash_follows_content_and_not_spelling_of_the_json(tmp_path: Path) -> None:
    first = load_probe_set(write(tmp_path / "a.jsonl", line()))
    reordered = json.dumps(dict(reversed(ROW.items())) | {"strict": False}, indent=None)
    assert load_probe_set(write(tmp_path / "b.jsonl", reordered)).sha256 == first.sha256
    changed = load_probe_set(write(tmp_path / "c.jsonl", line(source="Another")))
    assert changed.sha256 != first.sha256


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ('{"id": "x", ', "one complete JSON object"),
        ('{"id": "x" "y"}', "broken JSON at column 12"),
        ("[1, 2]", "no object in braces"),
        ("null", "one complete JSON object"),
        ("", "blank; delete it"),
        ("[" * 100_000, "nested too deeply"),
        (line()[:-1] + ', "id": "again"}', "'id' is written twice"),
        (line(number={"value": 1}).replace("1}", "NaN}"), "NaN is no number"),
        (line(acepted=["x"]), "unknown key 'acepted'; did you mean 'accepted'?"),
        (line().replace('"prompt"', '"promt"'), "unknown key 'promt'; did you mean 'prompt'?"),
        (line(zzz=1), "unknown key 'zzz'; the keys are id, grader, "),
        (line(number={"value": 1, "units": "g"}), "'number.units'; did you mean 'unit'?"),
        (json.dumps({k: v for k, v in ROW.items() if k != "source"}), "'source' is missing"),
        (line(accepted="heart"), "'accepted' cannot be \"heart\""),
        (line(accepted=[]), "'accepted' cannot be []"),
        (line(strict="yes"), "'strict' cannot be \"yes\""),
        (line(number={"value": "4"}), "'number.value' cannot be \"4\""),
        (line(grader="essay"), "'grader' cannot be \"essay\""),
        (line(id="Has Space"), "'id' cannot be \"Has Space\""),
        (line(prompt="   "), "blank"),
        (line(distractors=["The liver", ""]), "blank"),
        (line(distractors=["the  HEART", "The liver"]), "both an accepted answer and a distractor"),
        (line(number={"value": 5, "high": 4}), "number.high must not be below"),
        (line(number={"value": 5, "tolerance": -0.1}), "number.tolerance"),
    ],
)
def test_bad_line_is_named_with_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    path = write(tmp_path / "organs.jsonl", line(id="fine"), bad)
    with pytest.raises(ProbeError) as caught:
        load_probe_set(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2")
    assert says in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "organs.jsonl", line(), line(id="other"), line(prompt="Which?"))
    with pytest.raises(ProbeError, match=r"organs\.jsonl:3: .*'organs-001'.* line 1;"):
        load_probe_set(path)


def test_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "organs.jsonl", line(), line(id="x", prompt="Où?"), encoding="latin-1")
    with pytest.raises(ProbeError, match=r"organs\.jsonl:2: .*utf-8"):
        load_probe_set(path)


def test_missing_empty_and_wrong_places(tmp_path: Path) -> None:
    empty = tmp_path / "organs.jsonl"
    empty.touch()
    with pytest.raises(ProbeError, match="is empty"):
        load_probe_set(empty)
    with pytest.raises(ProbeError, match="no probe file at"):
        load_probe_set(tmp_path / "nowhere.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProbeError, match="cannot be read"):
        load_probe_set(tmp_path / "folder")
    with pytest.raises(ProbeError, match=r"holds no \*\.jsonl file"):
        load_suites(tmp_path / "folder")
    with pytest.raises(ProbeError, match="no probe folder at"):
        load_suites(tmp_path / "nowhere")


def test_suites_come_greetings_first_then_by_name(tmp_path: Path) -> None:
    for name in ("zebra", "greetings", "anatomy"):
        write(tmp_path / f"{name}.jsonl", line())
    (tmp_path / "notes.txt").write_text("not a probe file")
    assert [s.name for s in load_suites(tmp_path)] == ["greetings", "anatomy", "zebra"]


# --- --limit ------------------------------------------------------------------------------------


def suite_of(categories: list[str]) -> ProbeSet:
    probes = tuple(
        Probe.model_validate(ROW | {"id": f"p{i}", "category": category})
        for i, category in enumerate(categories)
    )
    return ProbeSet(name="organs", sha256="whole", probes=probes)


categories = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=40)


@given(categories, st.integers(1, 50), st.integers(0, 5))
def test_limit_selects_an_even_subset_in_file_order(
    names: list[str], limit: int, seed: int
) -> None:
    suite = suite_of(names)
    chosen = select_probes(suite, limit, seed)
    ids = [p.id for p in chosen.probes]
    assert len(ids) == min(limit, len(names))
    assert ids == [p.id for p in suite.probes if p.id in set(ids)]
    assert chosen == select_probes(suite, limit, seed)

    taken, available = Counter(p.category for p in chosen.probes), Counter(names)
    for scarce in available:
        for rich in available:
            assert taken[scarce] >= min(taken[rich] - 1, available[scarce])


@given(categories, st.integers(1, 40), st.integers(0, 5))
def test_larger_limit_keeps_the_smaller_choice(names: list[str], limit: int, seed: int) -> None:
    suite = suite_of(names)
    small = {p.id for p in select_probes(suite, limit, seed).probes}
    large = {p.id for p in select_probes(suite, limit + 1, seed).probes}
    assert small <= large


def test_seed_and_limit_change_the_choice_and_its_hash(facts: ProbeSet) -> None:
    picks = {select_probes(facts, 20, seed).sha256 for seed in range(5)}
    assert len(picks) == 5
    assert facts.sha256 not in picks
    assert select_probes(facts, None) == facts
    assert select_probes(facts, 10_000).sha256 == facts.sha256
    with pytest.raises(ProbeError, match="--limit is 0"):
        select_probes(facts, 0)


def test_load_suites_limits_each_suite() -> None:
    suites = {s.name: s for s in load_suites(bundled_probes_dir(), limit=16, seed=3)}
    assert len(suites["greetings"].probes) == 16
    assert set(Counter(p.category for p in suites["medical_facts"].probes).values()) == {2}


# --- lint ---------------------------------------------------------------------------------------


def test_phrases_match_whole_words_only() -> None:
    assert contains_phrase("Is it THE  heart?", "the heart")
    assert not contains_phrase("The heartbeat", "heart")
    assert not contains_phrase("The tricuspid valve", "bicuspid valve")
    assert contains_phrase("about 5 °C", "5 °C")
    assert numbers_in("150,000 to 450,000 or 7.4") == (150000.0, 450000.0, 7.4)


def test_lint_finds_each_planted_fault() -> None:
    planted = [
        ROW | {"id": "leak", "prompt": "The heart is which organ?"},
        ROW | {"id": "holds", "prompt": "Beats?", "distractors": ["The heart and liver"]},
        ROW | {"id": "one", "prompt": "What is the normal level of sodium in the blood?"},
        ROW | {"id": "two", "prompt": "What is the normal level of sodium in blood?"},
        ROW
        | {
            "id": "range",
            "prompt": "How warm?",
            "accepted": ["37 °C"],
            "distractors": ["36.9 °C", "30 °C"],
            "number": {"value": 37, "tolerance": 0.01},
        },
    ]
    probes = tuple(Probe.model_validate(row) for row in planted)
    found = lint_probe_set(ProbeSet(name="planted", sha256="", probes=probes))
    assert {message.split(":")[0].split(" ")[0] for message in found} == {
        "leak",
        "holds",
        "one",
        "range",
    }
    assert not any("30 °C" in message for message in found)
