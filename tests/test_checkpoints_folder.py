from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import (
    FFN,
    HIDDEN,
    LAYERS,
    VOCAB,
    llama_shapes,
    write_json,
    write_model,
    zeros,
)
from safetensors.numpy import save_file

from harness.checkpoints.folder import (
    check_model_folder,
    check_tokenizer_folder,
    fingerprint,
    has_tokenizer,
)
from harness.checkpoints.hashing import remembered_sha256, sha256_of
from harness.errors import ModelError

PER_LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN // 2 * HIDDEN + 3 * HIDDEN * FFN + 2 * HIDDEN
PARAMETERS = VOCAB * HIDDEN + HIDDEN + LAYERS * PER_LAYER


def shard(folder: Path) -> dict[str, str]:
    """Replace the single weight file by two shards with an index; returns the weight map."""
    (folder / "model.safetensors").unlink()
    arrays = zeros(llama_shapes())
    names = sorted(arrays)
    weight_map = {}
    for number, part in enumerate((names[:10], names[10:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: arrays[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return weight_map


def test_a_good_folder(tmp_path: Path) -> None:
    model = check_model_folder(write_model(tmp_path / "m"))
    assert model.model_type == "llama"
    assert model.architectures == ("LlamaForCausalLM",)
    assert model.parameters == PARAMETERS
    assert model.tied_embeddings
    assert model.dtypes == {"F32": len(llama_shapes())}
    assert not model.quantised
    assert model.notes == ()
    assert model.weight_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size


def test_a_ghost_needs_no_tokenizer_but_a_broken_one_is_still_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    assert not has_tokenizer(folder)
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_model_folder(folder)
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_tokenizer_folder(folder)
    assert check_model_folder(folder, tokenizer=False).parameters == PARAMETERS
    write_json(folder / "tokenizer.json", {"version": "1.0"})
    assert has_tokenizer(folder)
    with pytest.raises(ModelError, match="holds no tokenizer model"):
        check_model_folder(folder, tokenizer=False)


@pytest.mark.parametrize(
    "config",
    [
        {"vocab_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"n_layer": 1e300},
        {"text_config": {"num_local_experts": 10**7}},
        {"hidden_size": 10**4000},
    ],
)
def test_numbers_that_no_model_has_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "m", **config)
    with pytest.raises(ModelError, match="more than any model has"):
        check_model_folder(folder)


def test_a_tokenizer_folder_needs_no_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    check_tokenizer_folder(folder)
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("")
    check_tokenizer_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        check_tokenizer_folder(folder)
    with pytest.raises(ModelError, match="is not a folder"):
        check_tokenizer_folder(tmp_path / "no")


def test_shards_count_as_one_model(tmp_path: Path) -> None:
    shard(write_model(tmp_path / "m"))
    model = check_model_folder(tmp_path / "m")
    assert model.parameters == PARAMETERS
    assert len(model.weight_files) == 2


def test_an_output_layer_stored_although_tied_counts_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    arrays = zeros(llama_shapes() | {"lm_head.weight": (VOCAB, HIDDEN)})
    save_file(arrays, folder / "model.safetensors")
    assert check_model_folder(folder).parameters == PARAMETERS
    write_model(folder, tie_word_embeddings=False)
    save_file(arrays, folder / "model.safetensors")
    model = check_model_folder(folder)
    assert model.parameters == PARAMETERS + VOCAB * HIDDEN
    assert not model.tied_embeddings


def test_packed_weights_count_unpacked(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", quantization={"bits": 4, "group_size": 32})
    save_file(
        {
            "model.embed_tokens.weight": np.zeros((VOCAB, 64 * 4 // 32), np.uint32),
            "model.embed_tokens.scales": np.zeros((VOCAB, 2), np.float16),
            "model.embed_tokens.biases": np.zeros((VOCAB, 2), np.float16),
            "model.norm.weight": np.zeros(64, np.float16),
        },
        folder / "model.safetensors",
    )
    model = check_model_folder(folder)
    assert model.quantised
    assert model.parameters == VOCAB * 64 + 64
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"quantization": {"group_size": 32}})
    with pytest.raises(ModelError, match=r"model\.embed_tokens\.weight.*quantization\.bits"):
        check_model_folder(folder)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def bad_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'model_type': 'llama'}")


def list_config(folder: Path) -> None:
    write_json(folder / "config.json", [1])


def no_type(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": None})


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def odd_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lost_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def wrong_index(folder: Path) -> None:
    weight_map = shard(folder)
    write_json(
        folder / "model.safetensors.index.json",
        {"weight_map": weight_map | {"model.extra": "model-00001-of-00002.safetensors"}},
    )


def escaping_index(folder: Path) -> None:
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../../secret"}})


def twice(folder: Path) -> None:
    save_file(zeros({"model.norm.weight": (HIDDEN,)}), folder / "model-old.safetensors")


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def runs_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"model_file": "evil.py"})


def unknown_code(folder: Path) -> None:
    config = {"model_type": "never_heard_of", "auto_map": {"AutoConfig": "evil.Config"}}
    write_json(folder / "config.json", config)


def tokenizer_code(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    write_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["e.T", None]}})


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def pointer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_config, "config.json is missing"),
        (bad_json, "not valid JSON"),
        (list_config, "JSON object, not a list"),
        (no_type, "no model_type"),
        (only_pickle, "only pickled weights (pytorch_model.bin)"),
        (odd_name, "consolidated.safetensors but no model*.safetensors"),
        (no_weights, "has no weights"),
        (lost_shard, "lacks 1 of 2 weight files, first model-00002-of-00002.safetensors"),
        (wrong_index, "promises tensor model.extra"),
        (escaping_index, "outside its folder"),
        (twice, "model.norm.weight twice"),
        (truncated, "is truncated: the header promises"),
        (runs_code, "model_file evil.py"),
        (unknown_code, "never_heard_of"),
        (tokenizer_code, "tokenizer's own code"),
        (no_tokenizer, "has no tokenizer"),
        (pointer, "git lfs pull"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Any, says: str) -> None:
    folder = write_model(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError) as caught:
        check_model_folder(folder)
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        check_model_folder(tmp_path / "no")


def test_code_that_nothing_runs_is_only_noted(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", auto_map={"AutoConfig": "conf.Config"})
    write_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}})
    assert len(check_model_folder(folder).notes) == 2


def test_each_part_has_its_own_fingerprint(tmp_path: Path) -> None:
    folder, cache = write_model(tmp_path / "m"), tmp_path / "cache"
    before = fingerprint(folder, cache)
    assert fingerprint(folder, cache) == before

    def changed() -> set[str]:
        after = fingerprint(folder, cache)
        return {key for key in before if after[key] != before[key]}

    write_json(folder / "tokenizer_config.json", {"chat_template": "other"})
    assert changed() == {"chat_template"}
    write_model(folder)
    (folder / "chat_template.jinja").write_text("other")
    assert changed() == {"chat_template"}
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "generation_config.json", {"eos_token_id": 7})
    assert changed() == {"config"}
    (folder / "generation_config.json").unlink()
    write_json(folder / "special_tokens_map.json", {"eos_token": "x"})
    assert changed() == {"tokenizer"}
    (folder / "special_tokens_map.json").unlink()
    arrays = zeros(llama_shapes())
    arrays["model.norm.weight"][0] = 1
    save_file(arrays, folder / "model.safetensors")
    assert changed() == {"weights"}


def test_a_moved_chat_template_is_the_same_template(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    before = fingerprint(folder, tmp_path / "cache")
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(template)
    write_json(folder / "tokenizer_config.json", {})
    assert fingerprint(folder, tmp_path / "cache") == before


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "big", tmp_path / "cache"
    file.write_bytes(b"a" * (2 << 20))
    first = remembered_sha256(file, cache)
    assert first == sha256_of(file)
    store = cache / "file_hashes.json"
    entries = json.loads(store.read_text())
    entries[str(file.resolve())][3] = "from memory"
    store.write_text(json.dumps(entries))
    assert remembered_sha256(file, cache) == "from memory"

    stamp = file.stat().st_mtime_ns
    file.write_bytes(b"b" * (2 << 20))
    os.utime(file, ns=(stamp, stamp))  # same size, same mtime: ctime gives it away
    assert remembered_sha256(file, cache) == sha256_of(file) != first
    store.write_text("garbage")
    assert remembered_sha256(file, cache) == sha256_of(file)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(b"a" * (2 << 20))
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert remembered_sha256(file, tmp_path / "cache") == sha256_of(file)
