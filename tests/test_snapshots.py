"""Snapshots: the record, its file, its ghost, and those stored for the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.checkpoints.folder import count_parameters, read_weight_headers
from harness.checkpoints.ghost import TensorShape, tensors_of
from harness.errors import ModelError, OperationalError
from harness.records import Known
from harness.registry import HubSource, WheelSource, load_registry
from harness.snapshots import (
    Snapshot,
    StoredFile,
    TokenizerReference,
    WeightsReference,
    ghost_of,
    load_snapshot,
    save_snapshot,
    snapshot_path,
    take_snapshot,
    weight_format,
)

ROOT = Path(__file__).parents[1]
STORED = ROOT / "snapshots"
READ = Known(standing="read", source="a test")
EMPTY_SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "name": "tiny",
        "origin": "org/tiny",
        "revision": "0" * 40,
        "known": dict.fromkeys(("config", "tensors", "tokenizer", "weights"), READ),
        "config": {"model_type": "llama", "rope_theta": 1e6, "layer_types": ["a", None, True]},
        "generation_config": {"eos_token_id": [1, 2]},
        "weights": WeightsReference(format="safetensors", files=("model.safetensors",), bytes=22),
        "tokenizer": TokenizerReference(
            kind="BPE",
            vocabulary=3,
            files=(StoredFile(name="tokenizer.model", bytes=0, sha256=EMPTY_SHA),),
        ),
        "files": ("config.json", "model.safetensors", "tokenizer.model"),
        "tensors": {"model.layers.{0-1}.w": "BF16 [2, 2]", "b": "F32 []"},
    }
    return Snapshot(**values | changes)


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        path = snapshot_path(tmp_path / "new", "tiny")
        save_snapshot(snapshot(), path)
        assert load_snapshot(path) == snapshot()
        assert [p.name for p in path.parent.iterdir()] == ["tiny.json"]
        lean = snapshot(generation_config=None, files=())
        save_snapshot(lean, path)
        assert load_snapshot(path) == lean
        assert "generation_config" not in path.read_text()

    def test_config_keeps_its_keys_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "tiny.json"
        save_snapshot(snapshot(), path)
        assert list(load_snapshot(path).config) == ["model_type", "rope_theta", "layer_types"]

    @pytest.mark.parametrize(
        ("key", "value", "says"),
        [
            ("schema_version", 2, "schema_version: is 2, newer than this harness reads"),
            ("revision", "main", "revision: String should match"),
            ("extra", 1, "extra: Extra inputs are not permitted"),
            ("known", {"config": READ.model_dump()}, "known: says nothing of tensors, tokenizer"),
            ("config", {}, "config: names no model_type"),
            ("tensors", {"a.{0-99999999}": "F32 [1]"}, "tensors: the pattern .* bad range"),
            ("tensors", {"../a": "F32 [1]"}, "tensors: tensor ../a"),
            ("name", "other", "name: is other, not the file's"),
            ("weights", {"format": "zip"}, "weights.format: Input should be"),
        ],
    )
    def test_errors_name_file_and_key(
        self, tmp_path: Path, key: str, value: object, says: str
    ) -> None:
        path = tmp_path / "tiny.json"
        content = json.loads(snapshot().model_dump_json())
        path.write_text(json.dumps(content | {key: value}))
        with pytest.raises(ModelError, match=f"tiny.json: {says}") as caught:
            load_snapshot(path)
        assert str(caught.value).isprintable()

    def test_missing_and_broken_files(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="is missing"):
            load_snapshot(tmp_path / "tiny.json")
        (tmp_path / "tiny.json").write_text("{")
        with pytest.raises(ModelError, match="not valid JSON"):
            load_snapshot(tmp_path / "tiny.json")

    def test_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OperationalError, match="cannot be written"):
            save_snapshot(snapshot(), tmp_path / "file" / "tiny.json")


class TestGhost:
    def test_ghost_holds_what_the_snapshot_says(self, tmp_path: Path) -> None:
        folder, facts = ghost_of(snapshot(), tmp_path / "tiny")
        assert sorted(p.name for p in folder.iterdir()) == [
            "config.json",
            "generation_config.json",
            "model.safetensors",
        ]
        assert json.loads((folder / "config.json").read_text()) == snapshot().config
        assert tensors_of(folder) == {
            "b": TensorShape("F32", ()),
            "model.layers.0.w": TensorShape("BF16", (2, 2)),
            "model.layers.1.w": TensorShape("BF16", (2, 2)),
        }
        assert facts.origin == "snapshot" and facts.weight_bytes == 22
        assert facts.parts["config"].standing == "read"
        assert facts.parts["tokenizer"].standing == "missing"
        assert "not stored" in facts.parts["tokenizer"].note

    def test_snapshot_of_a_ghost_is_the_snapshot(self, tmp_path: Path) -> None:
        one = snapshot(tokenizer=TokenizerReference())
        folder, facts = ghost_of(one, tmp_path / "tiny")
        again = take_snapshot("tiny", "org/tiny", "0" * 40, folder, facts)
        assert again.tensors == one.tensors and again.config == one.config
        assert again.generation_config == one.generation_config

    def test_unknown_tensors_make_a_ghost_without_weights(self, tmp_path: Path) -> None:
        folder, _ = ghost_of(snapshot(tensors={}), tmp_path / "tiny")
        assert not list(folder.glob("*.safetensors"))


def test_tokenizer_reference_counts_added_tokens_once(tmp_path: Path) -> None:
    folder, facts = ghost_of(snapshot(), tmp_path / "tiny")
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "<s>": 1}},
        "added_tokens": [{"content": "<s>"}, {"content": "<new>"}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    reference = take_snapshot("tiny", "x", None, folder, facts).tokenizer
    assert (reference.kind, reference.vocabulary) == ("BPE", 3)
    assert [f.name for f in reference.files] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin"], "safetensors"),
        (["weights.safetensors"], "safetensors"),
        (["pytorch_model-00001-of-00002.bin", "config.json"], "pickle"),
        (["consolidated.00.pth"], "pickle"),
        (["adapter_model.safetensors", "pytorch_model.bin"], "pickle"),
        (["config.json"], "unknown"),
        ([], "unknown"),
    ],
)
def test_weight_format(files: list[str], expected: str) -> None:
    assert weight_format(files) == expected


REGISTRY = load_registry(ROOT / "model_registry.yaml")


class TestStored:
    """The snapshots that come with the registry."""

    def test_every_candidate_has_one_and_nothing_else_does(self) -> None:
        assert {p.stem for p in STORED.iterdir()} == {c.name for c in REGISTRY.candidates}
        assert sum(p.stat().st_size for p in STORED.iterdir()) < 150_000

    @pytest.mark.parametrize("candidate", REGISTRY.candidates, ids=lambda c: c.name)
    def test_belongs_to_its_candidate_and_claims_no_commit(self, candidate: Any) -> None:
        one = load_snapshot(STORED / f"{candidate.name}.json")
        if isinstance(candidate.source, WheelSource):
            assert (one.origin, one.revision) == (
                candidate.source.requirement,
                candidate.source.sha256,
            )
            return
        assert isinstance(candidate.source, HubSource)
        assert one.origin == candidate.source.repo
        # Numbers copied from elsewhere were not read at any commit.
        assert one.revision is None
        assert all(known.standing != "read" for known in one.known.values())
        for part, known in one.known.items():
            assert known.source, part
            assert known.note or known.standing in ("published", "assembled", "missing"), part

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("llama-3.2-3b-instruct", 3_212_749_824),
            ("llama-3.2-1b-instruct", 1_235_814_400),
            ("biomistral-7b", 7_241_732_096),
            ("medgemma-4b-it", 4_300_079_472),
            ("granite-4.0-h-micro", 3_191_396_096),
            ("smollm2-135m-instruct", 134_515_008),
        ],
    )
    def test_parameters(self, tmp_path: Path, name: str, parameters: int) -> None:
        one = load_snapshot(STORED / f"{name}.json")
        folder, _ = ghost_of(one, tmp_path / name)
        (header,) = read_weight_headers(folder).values()
        assert count_parameters(header.tensors, one.config) == parameters

    def test_all_ghosts_together_take_little_disk(self, tmp_path: Path) -> None:
        for candidate in REGISTRY.candidates:
            ghost_of(load_snapshot(STORED / f"{candidate.name}.json"), tmp_path / candidate.name)
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert sum(p.stat().st_size for p in files) > 80e9
        assert sum(p.stat().st_blocks * 512 for p in files) < 20e6

    def test_standings_are_those_of_their_sources(self) -> None:
        """What was recalled or taken from a base model is not shown as published."""
        standings = {
            c.name: load_snapshot(STORED / f"{c.name}.json").known["config"].standing
            for c in REGISTRY.candidates
        }
        assert standings["llama-3.2-3b-instruct"] == standings["biomedlm"] == "published"
        assert standings["granite-4.0-micro"] == "assembled"
        for name in ("biomistral-7b", "openbiollm-8b", "meditron-7b", "medgemma-4b-it"):
            assert standings[name] == "unverified"
