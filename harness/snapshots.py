"""Snapshots: what is known of a candidate without its weights, stored beside the registry.

`snapshots/NAME.json` holds config, tensor table, file names and sizes, and for each part how well
it is known and from where. A snapshot becomes a ghost folder, so that a candidate can be vetted
without a network. Tokenizer files are too large to store: only their hashes are.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError, field_validator

from harness.checkpoints.folder import read_config
from harness.checkpoints.ghost import (
    TOKENIZER_FILES,
    TensorShape,
    ghost_header,
    tensors_of,
    write_ghost,
)
from harness.checkpoints.hashing import sha256_of
from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import shown
from harness.checkpoints.tensor_table import pack, unpack
from harness.errors import ModelError, OperationalError
from harness.records import HeaderFacts, Known, Record

SNAPSHOT_SCHEMA = 1

Part: TypeAlias = Literal["config", "tensors", "tokenizer", "weights"]
PARTS: tuple[Part, ...] = ("config", "tensors", "tokenizer", "weights")


class StoredFile(Record):
    """One file of the original that a snapshot names but does not hold."""

    name: str = Field(max_length=200)
    bytes: int = Field(ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class TokenizerReference(Record):
    """What is known of the tokenizer, whose files are not stored."""

    kind: str | None = None
    """E.g. "byte-level BPE"; None where unknown."""
    vocabulary: int | None = Field(default=None, ge=0)
    """Number of tokens; None where unknown."""
    files: tuple[StoredFile, ...] = ()


class WeightsReference(Record):
    """What is known of the weight files."""

    format: Literal["safetensors", "pickle", "unknown"]
    files: tuple[str, ...] = ()
    bytes: int | None = Field(default=None, ge=0)
    """Their total size; None where unknown."""


class Snapshot(Record):
    """The header-level facts of one candidate."""

    schema_version: int = SNAPSHOT_SCHEMA
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")
    """The candidate's name in the registry."""
    origin: str = Field(min_length=1, max_length=300)
    """Repository, wheel or folder, e.g. "meta-llama/Llama-3.2-3B-Instruct"."""
    revision: str | None = Field(default=None, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    """The commit (40 digits) or wheel hash (64) it was taken from; None where it was not."""
    known: dict[Part, Known]
    """Each part → how well it is known."""
    config: dict[str, Any]
    """config.json, key for key."""
    generation_config: dict[str, Any] | None = None
    """generation_config.json; None where there is none or it is not known."""
    weights: WeightsReference
    tokenizer: TokenizerReference = TokenizerReference()
    files: tuple[str, ...] = ()
    """Names of the repository's files; empty where they are not known."""
    tensors: dict[str, str]
    """The packed tensor table (see `tensor_table`); empty where the tensors are not known."""

    @field_validator("schema_version")
    @classmethod
    def _readable(cls, value: int) -> int:
        if value > SNAPSHOT_SCHEMA:
            raise ValueError(f"is {value}, newer than this harness reads ({SNAPSHOT_SCHEMA})")
        return value

    @field_validator("known")
    @classmethod
    def _all_parts(cls, value: dict[Part, Known]) -> dict[Part, Known]:
        if missing := [part for part in PARTS if part not in value]:
            raise ValueError(f"says nothing of {', '.join(missing)}")
        return value

    @field_validator("config")
    @classmethod
    def _names_its_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("model_type"), str) or not value["model_type"]:
            raise ValueError("names no model_type")
        return value

    @field_validator("tensors")
    @classmethod
    def _unpacks(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            ghost_header(unpack(value))
        except ModelError as error:
            raise ValueError(str(error)) from error
        return value

    def tensor_list(self) -> dict[str, TensorShape]:
        """Name → dtype and shape of every tensor."""
        return unpack(self.tensors)


def snapshot_path(folder: Path, name: str) -> Path:
    """Where the snapshot of a candidate is kept."""
    return folder / f"{name}.json"


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot. Raises ModelError, with file and key, where it is not a whole one."""
    fix = "write it again with `harness snapshot`, or restore it from version control"
    content = read_json_object(path, ModelError, fix)
    try:
        snapshot = Snapshot.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = shown(".".join(map(str, first["loc"])))
        reason = shown(first["msg"].removeprefix("Value error, "), 300)
        raise ModelError(f"{path}: {key}: {reason}; {fix}") from error
    if snapshot.name != path.stem:
        raise ModelError(f"{path}: name: is {shown(snapshot.name)}, not the file's; {fix}")
    return snapshot


def save_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot, whole or not at all. Raises OperationalError where that fails."""
    content = snapshot.model_dump(mode="json")
    optional = ("generation_config", "files")
    lean = {key: value for key, value in content.items() if key not in optional or value}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(lean, indent=1, ensure_ascii=False) + "\n")
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OperationalError(
            f"the snapshot {path} cannot be written ({error.strerror}); make its folder writable"
        ) from error


def take_snapshot(
    name: str, origin: str, revision: str | None, folder: Path, facts: HeaderFacts
) -> Snapshot:
    """The snapshot of a model folder, ghost or real, with what is known of it.

    Raises ModelError where its config or headers are unusable.
    """
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    generation = folder / "generation_config.json"
    weights = WeightsReference(
        format=facts.weight_format,
        files=tuple(f for f in facts.files if f.endswith((".safetensors", ".bin", ".pt", ".pth"))),
        bytes=facts.weight_bytes,
    )
    return Snapshot(
        name=name,
        origin=origin,
        revision=revision,
        known={part: facts.parts[part] for part in PARTS},
        config=read_config(folder),
        generation_config=(
            read_json_object(generation, ModelError, "correct or remove it")
            if generation.is_file()
            else None
        ),
        weights=weights,
        tokenizer=_tokenizer_reference(folder, tokenizer),
        files=facts.files,
        tensors=pack(tensors_of(folder)) if any(folder.glob("model*.safetensors")) else {},
    )


def _tokenizer_reference(folder: Path, files: list[Path]) -> TokenizerReference:
    kind, vocabulary = None, None
    if (folder / "tokenizer.json").is_file():
        content = read_json_object(folder / "tokenizer.json", ModelError, "fetch it again")
        model = content.get("model")
        if isinstance(model, dict):
            kind = shown(str(model.get("type", "BPE")), 40)
            words, added = model.get("vocab"), content.get("added_tokens")
            known = set(words) if isinstance(words, dict) else set()
            extra = {
                token["content"]
                for token in (added if isinstance(added, list) else ())
                if isinstance(token, dict) and isinstance(token.get("content"), str)
            }
            # Unigram keeps its vocabulary as a list of (text, score).
            vocabulary = len(words) if isinstance(words, list) else len(known | extra)
    elif (folder / "tokenizer.model").is_file():
        kind = "SentencePiece"
    return TokenizerReference(
        kind=kind,
        vocabulary=vocabulary or None,
        files=tuple(
            StoredFile(name=file.name, bytes=file.stat().st_size, sha256=sha256_of(file))
            for file in files
        ),
    )


def ghost_of(snapshot: Snapshot, folder: Path) -> tuple[Path, HeaderFacts]:
    """The ghost folder of a snapshot, and what is known of the candidate beside it.

    Raises OperationalError where the disk cannot hold a ghost.
    """
    extra: dict[str, bytes | Path] = {}
    if snapshot.generation_config is not None:
        extra["generation_config.json"] = json.dumps(snapshot.generation_config).encode()
    write_ghost(folder, snapshot.config, snapshot.tensor_list(), extra_files=extra)
    return folder, snapshot_facts(snapshot)


def snapshot_facts(snapshot: Snapshot) -> HeaderFacts:
    """What a snapshot says, as the gates see it: it never holds the tokenizer itself."""
    parts: dict[str, Known] = {part: snapshot.known[part] for part in PARTS}
    if parts["tokenizer"].standing != "missing":
        # The reference is known, but there is nothing to run.
        note = f"its files are not stored; {parts['tokenizer'].note}".removesuffix("; ")
        parts["tokenizer"] = Known(standing="missing", source=parts["tokenizer"].source, note=note)
    return HeaderFacts(
        origin="snapshot",
        parts=parts,
        weight_format=snapshot.weights.format,
        weight_bytes=snapshot.weights.bytes,
        files=snapshot.files or snapshot.weights.files,
    )


def weight_format(files: Iterable[str]) -> Literal["safetensors", "pickle", "unknown"]:
    """What a repository's weights are, from the names of its files."""
    names = list(files)
    if any(n.endswith(".safetensors") and not n.startswith("adapter") for n in names):
        return "safetensors"
    pickles = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
    return "pickle" if any(n.endswith(pickles) for n in names) else "unknown"
