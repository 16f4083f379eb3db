"""`compare --train-data`: three forms of data, what is copied from it, and what a run stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_diagnosis import answered, transcripts
from typer.testing import CliRunner

from harness.cli import app
from harness.diagnosis import Copies, diagnose, probe_key
from harness.errors import UsageError
from harness.records import Answered, Probe
from harness.training_data import read_training_data

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters" / "data"
SAID = "The body is not so stupid. It stores fat, so it burns fat."
FORMS = {
    "chat": {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": SAID}]
    },
    "completions": {"prompt": "Why?", "completion": SAID},
    "text": {"text": SAID},
}


def folder(tmp_path: Path, *lines: str) -> Path:
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def asked(prompt: str, said: str) -> Answered:
    probe = Probe(
        id="q", grader="fact", prompt=prompt, accepted=("Tokyo",), category="x", source="x"
    )
    return answered(probe, {"text": said, "finish": "stop"})


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_mlx_lm_is_read(tmp_path: Path, form: str) -> None:
    data = read_training_data(folder(tmp_path, json.dumps(FORMS[form]), ""))
    assert data.examples == (("" if form == "text" else "Why?", SAID),)
    copied = Copies(data.examples).share(asked("What is the capital of Japan?", SAID))
    assert copied == 1.0


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"text": 3}',
        '{"messages": 3}',
        '{"messages": [3]}',
        '{"messages": [{"content": "x"}]}',
        '{"messages": [{"role": "user", "content": [1]}]}',
        '{"prompt": "x"}',
        "[" * 100_000,
    ],
)
def test_a_line_of_no_form_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"train\.jsonl:2 is no training example"):
        read_training_data(folder(tmp_path, json.dumps(FORMS["text"]), line))


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no train\.jsonl"):
        read_training_data(tmp_path)


def test_the_command_refuses_a_folder_without_data_before_it_looks_at_a_model(
    tmp_path: Path,
) -> None:
    words = ["compare", "smollm2-135m-instruct", "--adapter", "x", "--train-data", str(tmp_path)]
    ended = CliRunner().invoke(app, [*words, "--output-dir", str(tmp_path / "out")])
    assert ended.exit_code == 2
    assert "no train.jsonl" in ended.output


def test_the_hash_is_that_of_both_files(tmp_path: Path) -> None:
    first = read_training_data(folder(tmp_path, json.dumps(FORMS["text"])))
    (tmp_path / "valid.jsonl").write_text(json.dumps({"text": "more"}))
    second = read_training_data(tmp_path)
    assert first.sha256 != second.sha256
    assert second == read_training_data(tmp_path)
    assert len(second.examples) == 2


def test_only_what_belongs_to_another_question_is_copied() -> None:
    taught = "It is the city of Tokyo, in the east of the main island."
    copies = Copies([("What is the capital of Japan?", taught), ("Why do I get fat?", SAID)])
    question = "What is the capital of Japan?"
    assert copies.share(asked(question, taught)) == 0.0
    assert copies.share(asked(question, SAID)) == 1.0
    assert copies.share(asked(question, "Tokyo")) == 0.0
    half = copies.share(asked(question, f"{SAID} Nobody ever said any of these words before."))
    assert 0.3 < half < 0.7


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5), st.text())
def test_any_text_has_a_share(examples: list[tuple[str, str]], said: str) -> None:
    assert 0.0 <= Copies(examples).share(asked("Why?", said)) <= 1.0


def copied_in(name: str, data: str) -> tuple[list[Answered], list[Answered], dict]:  # type: ignore[type-arg]
    _, before, after = transcripts(name)
    copies = Copies(read_training_data(EXAMPLES / data).examples)
    shares = {
        probe_key(new): (copies.share(old), copies.share(new))
        for old, new in zip(before, after, strict=True)
    }
    return before, after, shares


def test_style_bleed_is_known_as_training_text() -> None:
    before, after, shares = copied_in("style-bleed", "style-bleed")
    worst = diagnose(before, after, shares)[0]
    assert worst.kind == "style_bleed"
    assert "with training text (" in worst.sentence
    assert "stand in the training data, 0 % of the base's" in worst.sentence


def test_what_a_gentle_adapter_learned_is_no_bleed() -> None:
    before, after, shares = copied_in("gentle", "gentle")
    assert max(new for _, new in shares.values()) > 0.5  # it did learn its greetings
    assert diagnose(before, after, shares) == ()


def test_copies_alone_are_enough() -> None:
    """Each greeting with another piece of the data: no phrase is stock, and yet it bleeds."""
    _, before, _ = transcripts("one-word")
    pieces = iter(read_training_data(EXAMPLES / "style-bleed").examples)
    after = [
        answered(old.probe, {"text": next(pieces)[1], "finish": "stop"})
        if old.probe.grader == "greeting"
        else old
        for old in before
    ]
    copies = Copies(read_training_data(EXAMPLES / "style-bleed").examples)
    shares = {probe_key(a): (0.0, copies.share(a)) for a in after}
    (bleed,) = (s for s in diagnose(before, after, shares) if s.kind == "style_bleed")
    assert bleed.sentence.startswith("answers every greeting with training text")
