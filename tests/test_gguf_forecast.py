"""Every failure that headers tell is told, with its culprit and its fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_json
from gguf_classes import CLASSES, Class

from harness.checkpoints.folder import read_weight_headers
from harness.checkpoints.gguf_forecast import Headers, find_obstacles
from harness.checkpoints.gguf_remarks import remarks
from harness.checkpoints.gguf_vocabulary import (
    NEEDS_SENTENCEPIECE,
    TokenizerFiles,
    read_tokenizer,
    vocabulary_obstacles,
    vocabulary_remarks,
)
from harness.checkpoints.ghost import TensorShape, write_ghost
from harness.errors import ModelError

KNOWN = frozenset({"LlamaForCausalLM", "Gemma2ForCausalLM", "Gemma4ForConditionalGeneration"})
TOKENIZER = TokenizerFiles(
    kind="BPE",
    pieces=30,
    merges=10,
    added={"<s>": 30, "</s>": 31},
    highest_id=31,
    tokenizer_class="PreTrainedTokenizerFast",
    has_template=True,
    has_config=True,
    has_model=False,
)


def headers(folder: Path) -> Headers:
    return {n: t for h in read_weight_headers(folder).values() for n, t in h.tensors.items()}


def ghost(tmp_path: Path, changes: dict[str, TensorShape] | None = None, **config: Any) -> Headers:
    plain = CLASSES[0]._replace(added=changes or {}).tensors()
    return headers(write_ghost(tmp_path / "ghost", CONFIG | config, plain))


@pytest.mark.parametrize("case", CLASSES, ids=lambda case: case.name)
def test_each_class_is_told_with_its_culprit_and_fix(case: Class, tmp_path: Path) -> None:
    found = find_obstacles(case.settings(), headers(case.ghost(tmp_path / "m")), KNOWN)
    assert [obstacle.culprit for obstacle in found][:1] == [case.culprit], case.source
    finding = found[0].finding
    assert finding.severity == "fail"
    assert case.says in finding.message
    assert finding.fix is not None
    assert case.fix in finding.fix


def test_a_sound_model_has_no_obstacles(tmp_path: Path) -> None:
    tensors = ghost(tmp_path)
    assert find_obstacles(CONFIG, tensors, KNOWN) == []
    assert find_obstacles(CONFIG | {"tie_word_embeddings": None}, tensors, KNOWN) == []


def test_a_family_is_known_by_its_stem() -> None:
    config = CONFIG | {"architectures": ["Gemma4ForCausalLM"]}
    (obstacle,) = find_obstacles(config, {}, KNOWN)
    assert 'edit config.json: "architectures": ["Gemma4ForConditionalGeneration"]' in str(
        obstacle.finding.fix
    )
    config = {"text_config": {"architectures": ["LlamaForCausalLM"]}, "architectures": ["Odd"]}
    assert find_obstacles(config, {}, KNOWN) == []


def test_state_space_models_round_their_vocabulary_up(tmp_path: Path) -> None:
    tensors = ghost(tmp_path)
    small = CONFIG | {"vocab_size": 30}
    assert find_obstacles(small, tensors, KNOWN) != []
    assert find_obstacles(small | {"model_type": "mamba2"}, tensors, KNOWN) == []


def said(found: list[Any]) -> dict[str, str]:
    return {finding.message: finding.severity for finding in found}


def test_a_plain_model_is_told_of_bf16_and_the_export_of_mlx_lm(tmp_path: Path) -> None:
    messages = said(remarks(CONFIG, ghost(tmp_path), ()))
    assert len(messages) == 2
    assert all(severity == "note" for severity in messages.values())
    assert any("without merges or chat template" in message for message in messages)
    refused = said(remarks(CONFIG | {"model_type": "gpt_oss"}, {}, ()))
    assert list(refused) == ["`mlx_lm.fuse --export-gguf` refuses model_type gpt_oss"]


@pytest.mark.parametrize(
    ("config", "added", "files", "severity", "says"),
    [
        ({"quantization": {"bits": 4}}, {}, (), "warn", "still has `quantization`"),
        ({}, {}, ("model.safetensors", "model-00001-of-00002.safetensors"), "warn", "shards of it"),
        ({}, {"lm_head.weight": TensorShape("BF16", (32, 8))}, (), "note", "tied to the embedding"),
        (
            {},
            {"vision_tower.layers.0.w.weight": TensorShape("BF16", (8, 8))},
            (),
            "note",
            "1 tensors of vision or audio",
        ),
        ({"model_type": "gemma3_text"}, {}, (), "note", "gemma3_text is reported to overflow"),
        ({"model_type": "granitemoehybrid"}, {}, (), "note", "#18145"),
        (
            {},
            {
                "embed_tokens.weight": TensorShape("BF16", (32, 8)),
                "norm.weight": TensorShape("BF16", (8,)),
            },
            (),
            "note",
            "lack the `model.` prefix",
        ),
    ],
)
def test_what_is_worth_knowing(
    tmp_path: Path,
    config: dict[str, Any],
    added: dict[str, TensorShape],
    files: tuple[str, ...],
    severity: str,
    says: str,
) -> None:
    plain = said(remarks(CONFIG, ghost(tmp_path), ()))
    found = said(remarks(CONFIG | config, ghost(tmp_path, added), files))
    new = {message: level for message, level in found.items() if message not in plain}
    assert any(says in message and level == severity for message, level in new.items()), new


def test_granite_4_with_mamba_layers_is_another_matter() -> None:
    config = CONFIG | {"model_type": "granitemoehybrid", "layer_types": ["mamba", "attention"]}
    assert not any("#18145" in finding.message for finding in remarks(config, {}, ()))


# -- vocabularies ---------------------------------------------------------------------------------


def test_a_sound_tokenizer_has_nothing_to_say() -> None:
    assert vocabulary_obstacles(CONFIG, TOKENIZER, ()) == []
    assert vocabulary_remarks(CONFIG, TOKENIZER) == []


def test_tokens_beyond_the_embedding() -> None:
    tokenizer = TOKENIZER._replace(added={"<s>": 30, "<pad>": 32}, highest_id=32)
    (obstacle,) = vocabulary_obstacles(CONFIG, tokenizer, ())
    assert obstacle.culprit == "vocab_size"
    assert "ids up to 32, first '<pad>', but the model only 32 rows" in obstacle.finding.message
    assert "resize_token_embeddings(33)" in str(obstacle.finding.fix)


@pytest.mark.parametrize("name", sorted(NEEDS_SENTENCEPIECE))
def test_classes_that_need_tokenizer_model(name: str) -> None:
    config = CONFIG | {"architectures": [name]}
    (obstacle,) = vocabulary_obstacles(config, TOKENIZER, ("config.json",))
    assert obstacle.culprit == "tokenizer.model"
    # Without the tokenizer, the repository's list of files tells; without that, nothing does.
    (obstacle,) = vocabulary_obstacles(config, None, ("config.json",))
    assert not obstacle.converter_decides, "its dry run did not look at the vocabulary"
    assert vocabulary_obstacles(config, None, ("config.json", "tokenizer.model")) == []
    assert vocabulary_obstacles(config, None, ()) == []
    assert vocabulary_obstacles(config, TOKENIZER._replace(has_model=True), ()) == []


def test_a_tokenizer_without_merges() -> None:
    (obstacle,) = vocabulary_obstacles(CONFIG, TOKENIZER._replace(merges=0), ())
    assert obstacle.culprit == "merges"
    assert not obstacle.converter_decides


@pytest.mark.parametrize(
    ("change", "config", "severity", "says"),
    [
        ({"has_template": False}, {}, "warn", "no chat template"),
        ({"has_config": False}, {}, "warn", "leaves the chat template out"),
        ({"tokenizer_class": "TokenizersBackend"}, {}, "note", "transformers 4 does not know"),
        ({}, {"vocab_size": 33}, "warn", "1 rows of the embedding have no token: tokens that were"),
        ({}, {"vocab_size": 64}, "note", "32 rows of the embedding have no token, which is pad"),
    ],
)
def test_what_is_worth_knowing_of_a_tokenizer(
    change: dict[str, Any], config: dict[str, Any], severity: str, says: str
) -> None:
    (finding,) = vocabulary_remarks(CONFIG | config, TOKENIZER._replace(**change))
    assert finding.severity == severity
    assert says in finding.message


def test_tokenizer_files_are_read(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}
    write_json(tmp_path / "tokenizer.json", {"model": model, "added_tokens": [
        {"id": 5, "content": "<x>"}]})  # fmt: skip
    write_json(tmp_path / "added_tokens.json", {"<y>": 7})
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    found = read_tokenizer(tmp_path)
    assert found == TokenizerFiles(
        "BPE", 2, 1, {"<y>": 7, "<x>": 5}, 7, "TokenizersBackend", False, True, False
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": [], "added_tokens": 3}))
    assert read_tokenizer(tmp_path).highest_id is None
    (tmp_path / "tokenizer.json").write_text("[")
    with pytest.raises(ModelError):
        read_tokenizer(tmp_path)
