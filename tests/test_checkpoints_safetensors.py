from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import raw_safetensors, zeros
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from harness.checkpoints.safetensors import DTYPE_BITS, read_header, shown
from harness.errors import ModelError


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_reference_library_wrote(tmp_path: Path) -> None:
    arrays = {
        "b.weight": np.ones((3, 4), np.float16),
        "a.weight": np.zeros((2, 2, 5), np.int8),
        "scalar": np.array(1.0, np.float64),
        "none": np.zeros((0, 7), np.float32),
    }
    save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "m.safetensors")
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert header.tensors["b.weight"].dtype == "F16"
    assert header.tensors["b.weight"].end - header.tensors["b.weight"].begin == 24
    assert header.metadata == {"format": "pt"}
    assert header.elements == 12 + 20 + 1


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    # 0x0280 = 640 bytes of header start the file with the magic of a pickle.
    text = b'{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(640)
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw_safetensors(text, b"x"))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert list(read_header(path).tensors) == ["t"]


def test_a_header_with_null_metadata_as_mlx_writes_it_is_read(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw_safetensors({"__metadata__": None, "t": entry}, b"x"))
    assert read_header(path).metadata == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated"),
        (b"\x10\0\0", "truncated"),
        (struct.pack("<Q", 5000) + b"{", "header alone needs 5008 bytes, the file has 9"),
        (struct.pack("<Q", 1 << 60) + b"{}", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"GGUF\x03\0\0\0 and so on", "GGUF"),
        (b"PK\x03\x04" + b"\0" * 20, "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (raw_safetensors(b"{ oops"), "damaged safetensors header"),
        (raw_safetensors(b'{"a\xff": 1}'), "damaged safetensors header"),
        (raw_safetensors(b'{"a":' + b"[" * 100_000), "damaged safetensors header"),
        (raw_safetensors({"a": 3}), "dtype, shape and data_offsets"),
        (raw_safetensors({"a": tensor("F12")}, b"\0" * 8), "unknown dtype F12"),
        (raw_safetensors({"a": tensor(shape=(-2,))}, b"\0" * 8), "absurd shape"),
        (raw_safetensors({"a": tensor(shape=(True, 2))}, b"\0" * 8), "absurd shape"),
        (raw_safetensors({"a": tensor(shape=[1] * 9)}, b"\0" * 8), "absurd shape"),
        (raw_safetensors({"a": tensor(shape=(1 << 60,))}, b"\0" * 8), "absurd shape"),
        (raw_safetensors({"a": tensor(offsets=(8, 0))}, b"\0" * 8), "impossible data offsets"),
        (raw_safetensors({"a": tensor(offsets=(0, 1, 2))}, b"\0" * 8), "impossible data offsets"),
        (raw_safetensors({"a": tensor(shape=(3,))}, b"\0" * 8), "needs 12 bytes"),
        (
            raw_safetensors({"a": tensor(), "b": tensor(offsets=(4, 12))}, b"\0" * 12),
            "tensor b overlaps",
        ),
        (raw_safetensors({"a": tensor(offsets=(4, 12))}, b"\0" * 12), "follows a gap"),
        (raw_safetensors({"__metadata__": {"a": 1}}), "map of strings"),
        (raw_safetensors({"a": tensor()}, b"\0" * 9), "1 bytes longer"),
        (raw_safetensors(b'{"a":{},"a":{}}'), "occurs twice"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncation_gives_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = save(zeros({"a": (10, 10)}))
    path.write_bytes(whole[:-100])
    with pytest.raises(
        ModelError, match=rf"promises {len(whole)} bytes, .* has {len(whole) - 100}"
    ):
        read_header(path)


def test_missing_folder_and_fifo(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_header(tmp_path / "no")
    with pytest.raises(ModelError, match="not a regular file"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ModelError, match="not a regular file"):
        read_header(tmp_path / "fifo")


def test_a_huge_sparse_file_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ghost.safetensors"
    size = 6 << 30
    path.write_bytes(raw_safetensors({"a": tensor("U8", (size,), (0, size))}))
    os.truncate(path, path.stat().st_size + size)
    started = time.monotonic()
    assert read_header(path).elements == size
    assert time.monotonic() - started < 1


VALID = save(
    {"a.weight": np.ones((3, 4), np.float32), "b": np.ones(7, np.int8)}, metadata={"format": "pt"}
)


def read_or_model_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    started = time.monotonic()
    try:
        header = read_header(path)
    except ModelError as error:
        assert str(error)
    else:
        covered = sum(info.end - info.begin for info in header.tensors.values())
        assert covered < len(content)
    assert time.monotonic() - started < 1


quick = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(content=st.binary(max_size=200))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    read_or_model_error(tmp_path / "m.safetensors", content)


@quick
@given(
    position=st.integers(0, len(VALID) - 1),
    replacement=st.binary(min_size=1, max_size=6),
    cut=st.integers(0, len(VALID)),
)
def test_mutated_files(tmp_path: Path, position: int, replacement: bytes, cut: int) -> None:
    mutated = VALID[:position] + replacement + VALID[position + len(replacement) :]
    read_or_model_error(tmp_path / "m.safetensors", mutated)
    read_or_model_error(tmp_path / "m.safetensors", VALID[:cut])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(list(DTYPE_BITS)) | json_values,
        "shape": st.lists(st.integers(0, 1 << 62), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(0, 50), min_size=2, max_size=2) | json_values,
    }
)


@quick
@given(header=st.dictionaries(st.text(max_size=8), entries | json_values, max_size=4))
def test_structured_headers(tmp_path: Path, header: dict[str, Any]) -> None:
    read_or_model_error(tmp_path / "m.safetensors", raw_safetensors(header, b"\0" * 50))


def test_untrusted_text_is_made_printable() -> None:
    assert shown("a\x1b[31m\n\ud800") == r"a\x1b[31m\n\ud800"
    assert shown("x" * 500, 10) == "x" * 9 + "…"
