"""The tokenizer gate: vocabulary-only GGUF files, opened by llama.cpp, against the originals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_json
from header_context import context, facts, no_tools

from harness.checkpoints.converter import (
    ConversionInfo,
    ConversionJob,
    convert_all,
)
from harness.checkpoints.original_tokenizer import end_tokens, open_original
from harness.checkpoints.tokenizer_texts import TEXTS, all_texts, texts_around
from harness.errors import ConversionError, ModelError
from harness.gates import tokenizer
from harness.judges import judge_gate
from harness.judges.tokenizer import judge
from harness.machine import cache_root
from harness.policy import load_policy
from harness.records import Observation, Scalar, Status

POLICY = load_policy(None)
NUMBERS: dict[str, Scalar] = {
    "texts": 300,
    "equal": 300,
    "first_difference": None,
    "gguf_tokens": 49152,
    "pre_tokenizer": "smollm",
    "bos_equal": True,
    "eos_equal": True,
    "end_tokens_unknown": 0,
    "template_equal": True,
}
SPECIAL = {"</s>": 0, "<|im_start|>": 1}
Damage = Callable[[dict[str, Any]], None]


# -- texts ----------------------------------------------------------------------------------------


def test_there_are_enough_texts_and_they_are_varied() -> None:
    texts = all_texts()
    assert len(texts) == len(set(texts)) >= POLICY.gates.tokenizer.min_texts
    assert all(len(kind) >= 10 for kind in TEXTS.values())
    letters = "".join(texts)
    for wanted in "\t\r\x0b\x1b\u00a0\u200b\u200d\u0301\u3000µ²½٣心혈ไ🩸\U0001f3fd":
        assert wanted in letters, f"{wanted!r} is missing"
    assert "insulin" in letters.lower()
    assert "<|im_start|>user" in letters
    assert texts_around("<x>")[0] == "<x>"


def test_the_first_difference_is_found() -> None:
    same = tokenizer.compare(["a", "b"], lambda t: [ord(t)], lambda t: [ord(t)])
    assert same == (2, 2, None, "")
    other = tokenizer.compare(
        ["a", "b"], lambda _: [1, 2], lambda t: [1, 3] if t == "b" else [1, 2]
    )
    assert other == (2, 1, "b", "[2] against [3]")
    longer = tokenizer.compare(["a"], lambda _: [1, 2], lambda _: [1])
    assert longer == (1, 0, "a", "[2] against []")


# -- where there is no tokenizer ------------------------------------------------------------------


def look(folder: Path, tmp_path: Path, known: Any = None) -> Observation:
    seen = tokenizer.observe(context(folder, tmp_path, known), no_tools())
    assert (seen.gate, seen.depth) == ("tokenizer", "header")
    return seen


def test_without_its_files_it_is_not_run(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", CONFIG)
    for known in (None, facts("missing", note="the repository is gated"), facts("read")):
        seen = look(tmp_path, tmp_path, known)
        assert seen.not_run is not None
        assert "harness vet --model-dir DIR" in seen.not_run
        assert judge_gate(seen, POLICY).status is Status.NOT_RUN
    assert "gated" in str(look(tmp_path, tmp_path, facts(note="the repository is gated")).not_run)


def test_a_tokenizer_of_its_own_code_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", CONFIG)
    write_json(
        tmp_path / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}
    )
    (tmp_path / "tokenizer.model").write_bytes(b"")
    seen = look(tmp_path, tmp_path)
    assert judge_gate(seen, POLICY).status is Status.FAIL
    assert "own code" in seen.findings[0].message


def test_settings_name_the_tokens_that_end_a_reply(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", CONFIG | {"eos_token_id": 2})
    assert end_tokens(tmp_path) == {2}
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [2, 7, -1, True, "x"]})
    assert end_tokens(tmp_path) == {2, 7}


# -- real ones ------------------------------------------------------------------------------------


def without_a_merge(tokenizer_json: dict[str, Any]) -> None:
    """Forget a word that the converter's own check text does not hold."""
    vocabulary, merges = tokenizer_json["model"]["vocab"], tokenizer_json["model"]["merges"]
    whole = "Ġheart"
    assert whole in vocabulary
    kept = [
        m for m in merges if (m.replace(" ", "") if isinstance(m, str) else "".join(m)) != whole
    ]
    assert len(kept) == len(merges) - 1
    tokenizer_json["model"]["merges"] = kept


def with_a_token_too_many(tokenizer_json: dict[str, Any]) -> None:
    extra = {**tokenizer_json["added_tokens"][0], "id": 49152, "content": "<extra>"}
    tokenizer_json["added_tokens"].append(extra)


def with_another_pre_tokenizer(tokenizer_json: dict[str, Any]) -> None:
    tokenizer_json["pre_tokenizer"]["pretokenizers"][-1]["use_regex"] = False


def from_scratch(folder: Path) -> Path:
    """A byte-level BPE trained here: a pre-tokenizer that nobody has registered."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["</s>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(all_texts(), trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "config.json", CONFIG | {"vocab_size": made.get_vocab_size()})
    return folder


DAMAGES: dict[str, Damage] = {
    "merge": without_a_merge,
    "added": with_a_token_too_many,
    "pre": with_another_pre_tokenizer,
}


@pytest.fixture(scope="module")
def converted(
    embedded: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ConversionInfo | ConversionError]:
    """Vocabulary-only files of the embedded tokenizer, of damaged copies and of a new one."""
    root = tmp_path_factory.mktemp("vocabularies")
    folders = {"sound": embedded, "scratch": from_scratch(root / "scratch")}
    for name, damage in DAMAGES.items():
        folders[name] = root / name
        folders[name].mkdir()
        for file in ("config.json", "tokenizer_config.json"):
            shutil.copy(embedded / file, folders[name] / file)
        content = json.loads((embedded / "tokenizer.json").read_text())
        damage(content)
        write_json(folders[name] / "tokenizer.json", content)
    jobs = [
        ConversionJob(model_dir=folder, out_file=root / f"{name}.gguf", mode="vocabulary_only")
        for name, folder in folders.items()
    ]
    return dict(zip(folders, convert_all(jobs, cache_dir=cache_root()), strict=True))


def file_of(outcome: ConversionInfo | ConversionError) -> Path:
    assert isinstance(outcome, ConversionInfo)
    return outcome.out_file


@pytest.mark.real
def test_the_embedded_tokenizer_is_the_same_in_gguf(
    converted: dict[str, Any], embedded: Path
) -> None:
    seen = tokenizer._compare_with(file_of(converted["sound"]), open_original(embedded), embedded)
    result = judge_gate(seen, POLICY)
    assert result.status is Status.PASS, result.reason
    numbers = seen.numbers
    assert numbers["texts"] == numbers["equal"]
    assert isinstance(numbers["texts"], int)
    assert numbers["texts"] > len(all_texts()), "its own special tokens and template are tried too"
    assert numbers["gguf_tokens"] == numbers["original_tokens"] == numbers["embedding_rows"]
    assert (numbers["pre_tokenizer"], numbers["end_tokens"]) == ("smollm", 1)


@pytest.mark.real
def test_a_changed_merge_is_caught(converted: dict[str, Any], embedded: Path) -> None:
    seen = tokenizer._compare_with(file_of(converted["merge"]), open_original(embedded), embedded)
    result = judge_gate(seen, POLICY)
    assert result.status is Status.WARN
    assert "cut differently" in result.reason
    assert "heart" in str(seen.numbers["first_difference"])


@pytest.mark.real
def test_a_file_with_another_pre_tokenizer_is_caught(
    converted: dict[str, Any], embedded: Path, tmp_path: Path
) -> None:
    raw = file_of(converted["sound"]).read_bytes()
    key = raw.index(b"tokenizer.ggml.pre")
    at = raw.index(b"smollm", key)
    file = tmp_path / "wrong.gguf"
    file.write_bytes(raw[:at] + b"falcon" + raw[at + 6 :])
    seen = tokenizer._compare_with(file, open_original(embedded), embedded)
    assert seen.numbers["pre_tokenizer"] == "falcon"
    assert judge_gate(seen, POLICY).status in (Status.WARN, Status.FAIL)
    assert seen.numbers["equal"] < seen.numbers["texts"]  # type: ignore[operator]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "culprit"),
    [("added", "vocab_size"), ("pre", "tokenizer.json"), ("scratch", "tokenizer.json")],
)
def test_what_the_converter_refuses_is_named(
    converted: dict[str, Any], name: str, culprit: str
) -> None:
    error = converted[name]
    assert isinstance(error, ConversionError)
    assert error.tensor == culprit
    if culprit == "tokenizer.json":
        assert "pre-tokenizer was not recognised (hash " in str(error)


@pytest.mark.real
def test_rows_that_do_not_match_and_a_broken_file(
    converted: dict[str, Any], embedded: Path, tmp_path: Path
) -> None:
    from harness.engines.llamacpp import open_vocabulary

    folder = tmp_path / "m"
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded / file, folder / file)
    config = json.loads((embedded / "config.json").read_text())
    write_json(folder / "config.json", config | {"vocab_size": 49160, "eos_token_id": [2, 500]})
    seen = tokenizer._compare_with(file_of(converted["sound"]), open_original(folder), folder)
    result = judge_gate(seen, POLICY)
    assert result.status is Status.FAIL
    assert "49152 tokens and the embedding 49160 rows" in result.reason
    assert seen.numbers["end_tokens_unknown"] == 1, "500 is a word, at which nothing ends"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file_of(converted["sound"]).read_bytes()[:5000])
    with pytest.raises(ModelError, match="refuses the vocabulary"):
        open_vocabulary(broken)


# -- the judge ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"equal": 299, "first_difference": "x"}, [Status.WARN]),
        ({"equal": 255, "first_difference": "x"}, [Status.WARN]),
        ({"equal": 254, "first_difference": "x"}, [Status.FAIL]),
        ({"texts": 199, "equal": 199}, [Status.INCONCLUSIVE]),
        ({"bos_equal": False}, [Status.WARN]),
        ({"eos_equal": False}, [Status.WARN]),
        ({"end_tokens_unknown": 1}, [Status.WARN]),
        ({"template_equal": False}, [Status.WARN]),
    ],
)
def test_judging(changes: dict[str, Scalar], expected: list[Status]) -> None:
    found = judge(NUMBERS | changes, POLICY.gates)
    assert [problem.status for problem in found.problems] == expected
    assert all(
        problem.fix for problem in found.problems if problem.status is not Status.INCONCLUSIVE
    )


@pytest.mark.parametrize("gap", sorted(NUMBERS))
def test_a_missing_number_is_an_error(gap: str) -> None:
    numbers = {key: value for key, value in NUMBERS.items() if key != gap}
    with pytest.raises(ValueError, match=gap):
        judge(numbers, POLICY.gates)
