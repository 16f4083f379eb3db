"""A stored run becomes the same report again, and a damaged one says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import write_probes
from scripted_run import subjects

from harness.engines import open_engine
from harness.errors import EvidenceError, UsageError
from harness.policy import load_policy
from harness.probes import load_suites
from harness.records import SCHEMA, Flip, Provenance, Status
from harness.runs import (
    FOLDER,
    Run,
    StoredComparison,
    StoredSuite,
    judge_run,
    load_run,
    measure_overlap,
    save_run,
)
from harness.training_data import TrainingData
from harness.transcripts import batches, transcribe, transcript_file

GOOD = {"text": "Hello! How can I help you?"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A base that greets, and an adapter that answers everything with newlines."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "base.json").write_text(json.dumps({"default": GOOD}))
    (tmp_path / "adapter" / "scripted.json").write_text(json.dumps({"default": {"text": "\n\n"}}))
    write_probes(tmp_path / "probes", {"greetings": 34, "medical_facts": 3})
    return tmp_path


@pytest.fixture
def stored(work: Path) -> Run:
    """A finished comparison in work/out."""
    evidence = work / "out" / FOLDER
    base, tuned = subjects(work)
    engine = open_engine("scripted", base.model)
    suites = []
    for suite in load_suites(work / "probes"):
        names = []
        for subject in (base, tuned):
            engine.use_adapter(subject.adapter)
            file = transcript_file(evidence, subject, suite)
            transcribe(engine, suite, file)
            names.append(file.path.name)
        suites.append(StoredSuite(suite=suite.name, before=names[0], after=names[1]))
    run = Run(
        run="compare-base-adapter-01234567",
        command="harness compare base",
        comparisons=(StoredComparison(base="base", subject=tuned.label, suites=tuple(suites)),),
        provenance=Provenance(),
        policy=load_policy(),
    )
    save_run(run, work / "out")
    return run


def test_stored_run_is_read_back_by_name_or_path(work: Path, stored: Run) -> None:
    for name in (stored.run, f"{stored.run}.md", f"reports/{stored.run}.json"):
        assert load_run(name, work / "out") == stored
    assert [p.name for p in (work / "out" / FOLDER / "runs").iterdir()] == [f"{stored.run}.json"]


def test_judging_needs_evidence_alone(work: Path, stored: Run) -> None:
    report = judge_run(stored, work / "out")
    (comparison,) = report.comparisons
    greetings = comparison.suites[0]
    assert comparison.verdict is Status.FAIL
    assert comparison.exit_code == 1
    assert (greetings.suite, greetings.n, greetings.after) == ("greetings", 34, 0.0)
    assert greetings.before > 0.9
    assert {p.flip for p in comparison.changed} == {Flip.LOST}
    assert judge_run(stored, work / "out") == report


def test_unknown_run_lists_the_known_ones(work: Path, stored: Run) -> None:
    with pytest.raises(UsageError, match=rf"no run 'nothing'.*{stored.run}"):
        load_run("nothing", work / "out")
    with pytest.raises(UsageError, match="none yet"):
        load_run("nothing", work / "elsewhere")


def manifest(work: Path, run: Run) -> Path:
    return work / "out" / FOLDER / "runs" / f"{run.run}.json"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "x"}', '{"runn": 1}', "\xff"])
def test_damaged_manifest(work: Path, stored: Run, text: str) -> None:
    manifest(work, stored).write_bytes(text.encode("latin-1"))
    with pytest.raises(EvidenceError, match=r"is damaged .*run the original command again"):
        load_run(stored.run, work / "out")


def test_newer_manifest(work: Path, stored: Run) -> None:
    path = manifest(work, stored)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": SCHEMA + 1}))
    with pytest.raises(EvidenceError, match="newer harness"):
        load_run(stored.run, work / "out")


def transcript(work: Path, stored: Run) -> Path:
    return work / "out" / FOLDER / stored.comparisons[0].suites[0].after


def test_a_manifest_older_than_a_gate_is_judged_as_ever(work: Path, stored: Run) -> None:
    path = manifest(work, stored)
    data = json.loads(path.read_text())
    del data["policy"]["gates"]["pipeline"]
    path.write_text(json.dumps(data))
    assert load_run(stored.run, work / "out") == stored


def test_missing_transcript(work: Path, stored: Run) -> None:
    transcript(work, stored).unlink()
    with pytest.raises(EvidenceError, match=r"base \+ adapter.*missing"):
        judge_run(stored, work / "out")


def test_cut_transcript_is_never_judged(work: Path, stored: Run) -> None:
    path = transcript(work, stored)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(EvidenceError, match="not finished"):
        judge_run(stored, work / "out")


def test_answer_without_grade_is_named(work: Path, stored: Run) -> None:
    path = transcript(work, stored)
    path.write_text(path.read_text().replace('"grade":', '"grad":', 1))
    with pytest.raises(EvidenceError, match=f"{path.name}.*delete the file"):
        judge_run(stored, work / "out")


def test_answers_of_an_older_grader_are_graded_anew(work: Path, stored: Run) -> None:
    path = transcript(work, stored)
    lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for entry in old:
        if entry["kind"] == "response":
            entry["grader"] = -1
            entry["grade"] = {"outcome": "right", "reason": "an old mistake", "extracted": None}
    path.write_text("".join(json.dumps(entry) + "\n" for entry in old))
    assert judge_run(stored, work / "out").comparisons[0].suites[0].after == 0.0


def test_a_crash_is_an_error_with_its_traceback(work: Path) -> None:
    run = Run(
        run="compare-x",
        command="harness compare x",
        comparisons=(StoredComparison(base="a", subject="b", error="Traceback …\nBoom: why"),),
        provenance=Provenance(),
        policy=load_policy(),
    )
    (comparison,) = judge_run(run, work / "out").comparisons
    assert (comparison.verdict, comparison.exit_code) == (Status.ERROR, 4)
    assert "Boom: why" in comparison.reasons[0]


def test_manifest_that_cannot_be_written(work: Path, stored: Run) -> None:
    with pytest.raises(EvidenceError, match="--output-dir"):
        save_run(stored, work / "base.json")


def test_batches_depend_on_the_probes_alone(work: Path) -> None:
    suite = load_suites(work / "probes")[0]
    forward, backward = batches(suite.probes), batches(suite.probes[::-1])
    assert forward == backward
    assert [len(b) for b in forward] == [32, 2]


def test_transcript_asks_only_what_is_missing(work: Path) -> None:
    suite = load_suites(work / "probes")[0]
    base, _ = subjects(work)
    folder = work / "again"
    engine = open_engine("scripted", base.model)
    whole = transcript_file(folder, base, suite)
    transcribe(engine, suite, whole)
    undisturbed = whole.path.read_bytes()
    lines = undisturbed.splitlines(keepends=True)
    whole.path.write_bytes(b"".join(lines[:33]))  # header and first batch
    (work / "base.json").write_text('{"default": {"text": "Another answer"}}')
    resumed = transcript_file(folder, base, suite)
    transcribe(open_engine("scripted", base.model), suite, resumed)
    texts = [e["response"]["text"] for e in resumed.entries]
    assert texts == [GOOD["text"]] * 32 + ["Another answer"] * 2


def test_a_report_says_what_kind_of_damage_it_is(work: Path, stored: Run) -> None:
    (comparison,) = judge_run(stored, work / "out").comparisons
    (empty,) = comparison.diagnosis
    assert (empty.kind, empty.count, empty.share, empty.before) == ("empty", 34, 1.0, 0)
    # Three facts are too few for a pattern.
    assert empty.sentence == "says nothing in reply to every greeting (the base: none)"


def test_a_base_against_itself_has_no_diagnosis(work: Path, stored: Run) -> None:
    suites = tuple(s.model_copy(update={"after": s.before}) for s in stored.comparisons[0].suites)
    itself = stored.comparisons[0].model_copy(update={"suites": suites})
    run = stored.model_copy(update={"comparisons": (itself,)})
    assert judge_run(run, work / "out").comparisons[0].diagnosis == ()


def test_a_run_keeps_what_was_copied_and_not_the_data(work: Path, stored: Run) -> None:
    secret = "a sentence of the training data that nobody may read"
    training = TrainingData("0" * 64, (("something else", GOOD["text"]), ("", secret)))
    old = stored.comparisons[0]
    # Turned round, so that the tuned one says what the data says, at the wrong place.
    suites = tuple(s.model_copy(update={"before": s.after, "after": s.before}) for s in old.suites)
    overlap = measure_overlap(suites, work / "out" / FOLDER, training)
    assert overlap is not None
    assert set(overlap.copied) == {"greetings", "medical_facts"}
    assert set(overlap.copied["medical_facts"].values()) == {(0.0, 1.0)}
    run = stored.model_copy(
        update={
            "run": "with-data",
            "comparisons": (old.model_copy(update={"training": overlap, "suites": suites}),),
        }
    )
    path = save_run(run, work / "out")
    assert secret not in path.read_text()
    # A right greeting is no bleed, whoever taught it.
    assert (
        judge_run(load_run("with-data", work / "out"), work / "out").comparisons[0].diagnosis == ()
    )
