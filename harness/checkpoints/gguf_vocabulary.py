"""What is wrong with a tokenizer on its way to GGUF, told from its files without running it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.chat_template import find_template
from harness.checkpoints.folder import AGAIN
from harness.checkpoints.gguf_forecast import Obstacle, class_of, fail, text_config
from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import shown
from harness.errors import ModelError
from harness.records import Finding

NEEDS_SENTENCEPIECE = frozenset(
    {
        "GemmaForCausalLM", "Gemma2ForCausalLM", "BaichuanForCausalLM", "BaiChuanForCausalLM",
        "BitnetForCausalLM", "BitNetForCausalLM", "MiniCPMForCausalLM", "MiniCPM3ForCausalLM",
        "NemotronForCausalLM", "OrionForCausalLM", "PlamoForCausalLM",
    }
)  # fmt: skip
"""Classes whose vocabulary the converter takes from tokenizer.model alone (0.3.36)."""
_FEW = 64
_COPY = "copy {} from the base model's repository into the folder"


class TokenizerFiles(NamedTuple):
    """What the files of a tokenizer say of it."""

    kind: str
    """tokenizer.json's model type, e.g. "BPE"; "SentencePiece" for a lone tokenizer.model."""
    pieces: int | None
    """Tokens of the model itself; None where only tokenizer.model knows."""
    merges: int
    added: Mapping[str, int]
    """Added tokens → id, special ones included."""
    highest_id: int | None
    tokenizer_class: str | None
    has_template: bool
    has_config: bool
    """Whether tokenizer_config.json is there."""
    has_model: bool
    """Whether tokenizer.model is there."""


def read_tokenizer(folder: Path) -> TokenizerFiles:
    """Read the tokenizer files of a folder. Raises ModelError where one is unreadable."""
    tokenizer = _object(folder / "tokenizer.json")
    settings = _object(folder / "tokenizer_config.json")
    model = tokenizer.get("model")
    model = model if isinstance(model, dict) else {}
    vocabulary, merges = model.get("vocab"), model.get("merges")
    added = {str(k): v for k, v in _object(folder / "added_tokens.json").items() if type(v) is int}
    listed = tokenizer.get("added_tokens")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and type(entry.get("id")) is int:
            added[str(entry.get("content"))] = entry["id"]
    ids = list(added.values())
    if isinstance(vocabulary, dict):
        ids += [number for number in vocabulary.values() if type(number) is int]
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    known = isinstance(vocabulary, dict | list)
    return TokenizerFiles(
        kind=str(model.get("type") or ("BPE" if known else "SentencePiece")),
        pieces=len(vocabulary) if isinstance(vocabulary, dict | list) else None,
        merges=len(merges) if isinstance(merges, list) else 0,
        added=added,
        highest_id=max(ids) if known and ids else None,
        tokenizer_class=str(settings["tokenizer_class"]) if "tokenizer_class" in settings else None,
        has_template=find_template(folder) is not None,
        has_config=(folder / "tokenizer_config.json").exists(),
        has_model=(folder / "tokenizer.model").is_file(),
    )


def vocabulary_obstacles(
    config: Mapping[str, Any], tokenizer: TokenizerFiles | None, files: Collection[str]
) -> list[Obstacle]:
    """What stops this tokenizer. Pure.

    Args:
        tokenizer: None where its files could not be had; then the names in `files` tell.
        files: names of the repository's files; empty where they are not known.
    """
    has_model = tokenizer.has_model if tokenizer is not None else "tokenizer.model" in files
    found = []
    name = class_of(config)
    if name in NEEDS_SENTENCEPIECE and not has_model and (tokenizer is not None or files):
        found.append(
            Obstacle(
                "tokenizer.model",
                fail(
                    f"tokenizer.model is missing, and for {name} the converter takes the "
                    "vocabulary from nowhere else",
                    _COPY.format("tokenizer.model"),
                ),
                # Without the tokenizer's files the dry run leaves the vocabulary out.
                converter_decides=tokenizer is not None,
            )
        )
    if tokenizer is not None:
        found += _too_many(config, tokenizer)
        if tokenizer.kind == "BPE" and tokenizer.pieces and not tokenizer.merges:
            found.append(
                Obstacle(
                    "merges",
                    fail(
                        "tokenizer.json has no merges: the file would be written, and llama.cpp "
                        "would refuse its vocabulary",
                        _COPY.format("tokenizer.json"),
                    ),
                    converter_decides=False,
                )
            )
    return found


def _too_many(config: Mapping[str, Any], tokenizer: TokenizerFiles) -> list[Obstacle]:
    size = text_config(config).get("vocab_size")
    if type(size) is not int or tokenizer.highest_id is None or tokenizer.highest_id < size:
        return []
    beyond = sorted(token for token, number in tokenizer.added.items() if number >= size)
    named = f", first {shown(beyond[0], 40)!r}" if beyond else ""
    return [
        Obstacle(
            "vocab_size",
            fail(
                f"the tokenizer has ids up to {tokenizer.highest_id}{named}, but the model only "
                f"{size} rows for them (vocab_size)",
                "put back the tokenizer files of the base, or call "
                f"`model.resize_token_embeddings({tokenizer.highest_id + 1})` and train again",
            ),
        )
    ]


def vocabulary_remarks(config: Mapping[str, Any], tokenizer: TokenizerFiles) -> list[Finding]:
    """What does not stop a tokenizer, but is worth knowing. Pure."""
    found = []
    if not tokenizer.has_template:
        found.append(
            Finding(
                severity="warn",
                message="it has no chat template, so LM Studio has to guess how to talk to it",
                fix="copy chat_template.jinja, or chat_template in tokenizer_config.json, from "
                "the instruct version of the base",
            )
        )
    elif not tokenizer.has_config:
        found.append(
            Finding(
                severity="warn",
                message="tokenizer_config.json is missing, without which the converter leaves the "
                "chat template out",
                fix=_COPY.format("tokenizer_config.json"),
            )
        )
    if tokenizer.tokenizer_class == "TokenizersBackend":
        found.append(
            Finding(
                severity="note",
                message="tokenizer_class in tokenizer_config.json is TokenizersBackend, which a "
                "converter with transformers 4 does not know",
                fix="put back tokenizer_config.json of the base, or edit it: "
                '"tokenizer_class": "PreTrainedTokenizerFast"',
            )
        )
    return found + _unused_rows(config, tokenizer)


def _unused_rows(config: Mapping[str, Any], tokenizer: TokenizerFiles) -> list[Finding]:
    size, highest = text_config(config).get("vocab_size"), tokenizer.highest_id
    if type(size) is not int or highest is None or highest + 1 >= size:
        return []
    left = size - highest - 1
    # Padding rounds up to a multiple; a few rows to an odd number is what added tokens leave.
    lost = left < _FEW and size % 8 != 0
    return [
        Finding(
            severity="warn" if lost else "note",
            message=f"{left} rows of the embedding have no token"
            + (": tokens that were added seem to be lost" if lost else ", which is padding"),
            fix="copy tokenizer.json and added_tokens.json of the model that was trained"
            if lost
            else None,
        )
    ]


def _object(file: Path) -> dict[str, Any]:
    return read_json_object(file, ModelError, AGAIN) if file.exists() else {}
