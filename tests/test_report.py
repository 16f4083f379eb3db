"""Whole reports against golden files, their JSON, and how they reach the disk.

UPDATE_GOLDEN=1 pytest tests/test_report.py rewrites tests/golden/*.md; look at the diff.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from sample_reports import (
    changed,
    demo_report,
    fail_report,
    failed_comparison,
    gate,
    header_report,
    inconclusive_report,
    vet_report,
)

from harness.errors import OperationalError
from harness.records import Provenance, Status, SuiteComparison
from harness.report import file_name, overall, to_dict, to_json, to_markdown, write_report

GOLDEN = Path(__file__).with_name("golden")

REPORTS = {
    "vet": vet_report,
    "vet-header": header_report,
    "compare-fail": fail_report,
    "compare-inconclusive": inconclusive_report,
    "demo": demo_report,
}


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_is_the_golden_one(name: str) -> None:
    golden = GOLDEN / f"{name}.md"
    markdown = to_markdown(REPORTS[name]())
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(markdown, encoding="utf-8")
    assert markdown == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_a_model_said_reaches_the_page_as_markup(name: str) -> None:
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(to_markdown(REPORTS[name]()))
    )
    html = [token.content for token in tokens if token.type == "html_block"]
    assert set("".join(html).split("\n")) <= {
        "",
        "<details>",
        "</details>",
        "<summary>Where the candidates come from</summary>",
        "<summary>What else was noticed</summary>",
        "<summary>How well they are known without their weights</summary>",
        "<summary>Gained: 1</summary>",
        "<summary>Provenance</summary>",
    }
    inline = [child.type for token in tokens for child in token.children or []]
    emphasis = {"strong_open", "strong_close", "em_open", "em_close"}
    # Code is for the harness's own commands; the reports of comparisons have none.
    assert set(inline) <= {"text", *emphasis} | ({"code_inline"} if name == "vet-header" else set())


def test_a_single_comparison_is_the_top_level_of_its_json() -> None:
    data = json.loads(to_json(fail_report()))
    assert (data["verdict"], data["exit_code"]) == ("FAIL", 1)
    assert all(isinstance(reason, str) for reason in data["reasons"]) and data["reasons"]
    assert list(data["suites"]) == ["greetings", "medical_facts"]
    facts = data["suites"]["medical_facts"]
    assert (facts["n"], facts["lost"], facts["gained"], facts["verdict"]) == (170, 39, 1, "FAIL")
    assert facts["ci"] == [-0.297, -0.151]
    assert set(SuiteComparison.model_fields) - {"suite"} == set(facts)
    assert data["gates"]["gguf"]["numbers"]["mean_kl_nats"] == 7.31
    first = data["changed"][0]
    assert (first["probe"], first["flip"]) == ("hormone-lowers", "lost")
    assert first["before"]["outcome"] == "right" and first["after"]["text"] == "\n" * 64
    assert data["provenance"]["git"] == {"commit": "0123abcd", "dirty": False}


def test_the_diagnosis_is_said_first_and_kept_as_data() -> None:
    report = fail_report()
    markdown = to_markdown(report)
    assert markdown.index("**FAIL:") < markdown.index("**Diagnosis: it answers 31 of 44 greetings")
    assert markdown.index("**Diagnosis:") < markdown.index("a drop of 22.4 points")
    style, empty = json.loads(to_json(report))["diagnosis"]
    assert list(style)[:3] == ["kind", "count", "share"]
    assert (style["kind"], style["count"], style["share"]) == ("style_bleed", 31, 31 / 44)
    assert empty["examples"] == [{"probe": "hormone-lowers", "response": ""}]
    for calm in (vet_report(), inconclusive_report()):
        assert "Diagnosis" not in to_markdown(calm)
    assert json.loads(to_json(inconclusive_report()))["diagnosis"] == []


def test_several_results_are_listed_side_by_side() -> None:
    data = json.loads(to_json(demo_report()))
    assert [each["verdict"] for each in data["comparisons"]] == ["INCONCLUSIVE", "FAIL"]
    assert data["candidates"][0]["gates"]["load"]["status"] == "PASS"
    assert (data["verdict"], data["exit_code"]) == ("FAIL", 1)
    assert data["reasons"][0].startswith("WARN smollm2-135m-instruct (facts): 61 of 170")


def test_what_did_not_run_is_neither_pass_nor_fail() -> None:
    vet = vet_report()
    smollm, biomedlm, llama = vet.candidates
    assert overall(vet.model_copy(update={"candidates": (smollm, llama)})) == (Status.NOT_RUN, 3)
    assert overall(vet.model_copy(update={"candidates": (llama,)})) == (Status.NOT_RUN, 3)
    assert overall(vet.model_copy(update={"candidates": (biomedlm,)})) == (Status.ERROR, 4)
    assert "**1 candidate: 1 not run (llama-3.2-1b-instruct).**" in to_markdown(
        vet.model_copy(update={"candidates": (llama,)})
    )


def test_json_survives_what_json_and_utf8_cannot_hold() -> None:
    weird = gate("load", Status.FAIL, "half a character: \ud800", peak_gb=float("nan"))
    report = vet_report().model_copy(
        update={"candidates": (vet_report().candidates[0].model_copy(update={"gates": (weird,)}),)}
    )
    text = to_json(report)
    load = json.loads(text.encode("utf-8"))["candidates"][0]["gates"]["load"]
    assert load["numbers"] == {"peak_gb": None}
    assert load["reason"] == "half a character: \ud800"
    to_markdown(report).encode("utf-8")


def test_local_paths_are_cut_but_answers_are_not() -> None:
    said = changed(
        "p", "Where is it?", "x", "In /etc/ssl/certs.", "In /home/ada/x.", "is in /a/b/c"
    )
    comparison = failed_comparison().model_copy(
        update={
            "changed": (said,),
            "reasons": (
                "Cannot read '/Users/Ada L/models/x': see /home/ada/y.txt, https://a.example/b/c.",
                "5 mg/dL and/or 3 mmol/L/h",
            ),
        }
    )
    data = to_dict(fail_report().model_copy(update={"comparisons": (comparison,)}))
    assert data["reasons"] == [
        "Cannot read '…/x': see …/y.txt, https://a.example/b/c.",
        "5 mg/dL and/or 3 mmol/L/h",
    ]
    after = data["changed"][0]["after"]
    assert (after["text"], after["reason"]) == ("In /home/ada/x.", "is in …/c")
    assert "/home/ada" not in to_json(vet_report())
    assert "/home/ada" not in to_markdown(vet_report())


def test_the_order_in_which_provenance_was_filled_does_not_matter() -> None:
    settings = {"seed": 0, "dtype": "float32"}
    backwards = dict(reversed(settings.items()))
    one, other = (
        vet_report().model_copy(update={"provenance": Provenance(settings=each)})
        for each in (settings, backwards)
    )
    assert to_json(one) == to_json(other) and to_markdown(one) == to_markdown(other)


@pytest.mark.parametrize("run", ["../../etc/passwd", "a b/c", "", "..", "x" * 300, "é|\n\x00"])
def test_any_run_name_gives_a_plain_file_name(run: str) -> None:
    name = file_name(run)
    assert Path(name).name == name and name.isascii() and name.isprintable()
    assert 0 < len(name) <= 140 and not name.startswith(".")
    assert file_name(run + "!") != name


def test_a_report_is_written_twice_with_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    markdown, data = write_report(fail_report(), folder)
    first = markdown.read_bytes(), data.read_bytes()
    assert write_report(fail_report(), folder) == (markdown, data)
    assert (markdown.read_bytes(), data.read_bytes()) == first
    assert sorted(path.name for path in folder.iterdir()) == sorted([markdown.name, data.name])
    assert data.read_text(encoding="utf-8") == to_json(fail_report())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What a full disk is to a writer: the file cannot grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_keeps_the_old_report_whole(tmp_path: Path) -> None:
    markdown, data = write_report(fail_report(), tmp_path)
    old = markdown.read_bytes()
    with largest_file(100), pytest.raises(OperationalError, match="--output-dir"):
        write_report(fail_report(), tmp_path)
    assert markdown.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([markdown.name, data.name])


def test_a_file_in_place_of_the_folder_is_an_operational_error(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(OperationalError, match=r"reports.*--output-dir"):
        write_report(fail_report(), tmp_path / "reports")


def test_a_folder_in_place_of_the_file_is_an_operational_error(tmp_path: Path) -> None:
    (tmp_path / f"{fail_report().run}.md").mkdir()
    with pytest.raises(OperationalError, match="--output-dir"):
        write_report(fail_report(), tmp_path)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere, so it steps down for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_folder_is_an_operational_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        ordinary_user(),
        pytest.raises(OperationalError, match=r"permission denied.*--output-dir"),
    ):
        write_report(fail_report(), tmp_path)
    assert list(tmp_path.iterdir()) == []
