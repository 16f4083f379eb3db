"""Headers, configs and indexes that want to hurt: refused in under a second, in one sentence."""

from __future__ import annotations

import json
import re
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.checkpoints.folder import check_model_folder
from harness.checkpoints.safetensors import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    header_length,
    parse_header,
    read_header,
)
from harness.errors import ModelError

MB = 1 << 20
CONFIG = {"model_type": "llama", "num_hidden_layers": 1}


def file_of(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def entry(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


def many(count: int) -> bytes:
    return json.dumps({f"l.{i}.w": entry(i, i + 1) for i in range(count)}).encode()


def refused(path: Path, look: Callable[[Path], object]) -> str:
    """The one sentence a ModelError says, within a second."""
    started = time.process_time()  # wall time would measure the neighbours too
    with pytest.raises(ModelError) as caught:
        look(path)
    took = time.process_time() - started
    message = str(caught.value)
    assert took < 1, f"{took:.2f} s"
    assert message.isprintable() and len(message) < 500 + len(str(path))
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        pytest.param(b'{"a":"' + b"x" * 100 * MB + b'"}', b"", "header of 105 MB", id="100 MB"),
        pytest.param(many(MAX_TENSORS + 1), b"", "absurd|claims", id="too many tensors"),
        pytest.param(b'{"a":[' + b"[]," * 4_000_000 + b"0]}", b"", "absurd", id="many lists"),
        pytest.param(b'{"a":[' + b"0," * 7_000_000 + b"0]}", b"", "absurd", id="many numbers"),
        pytest.param(b'{"a":' + b"[" * 8 * MB, b"", "absurd", id="deep lists"),
        pytest.param(b'{"a":' * 140_000, b"", "damaged", id="deep objects"),
        pytest.param(b'{"a":' + b"9" * 8 * MB + b"}", b"", "damaged", id="one huge number"),
        pytest.param(
            b'{"a":[' + (b"9" * 4299 + b",") * 3000 + b"0]}", b"", "exactly dtype", id="huge ints"
        ),
        pytest.param(b'{"a":1e99999999}', b"", "exactly dtype", id="infinity"),
        pytest.param(b'{"a":1,"a":2}', b"", "occurs twice", id="same name twice"),
        pytest.param(
            json.dumps({"a": entry(0, 4), "b": entry(2, 6)}).encode(),
            b"\0" * 6,
            "b overlaps",
            id="overlap",
        ),
        pytest.param(
            json.dumps({"a": entry(0, 4), "b": entry(0, 4)}).encode(),
            b"\0" * 4,
            "overlaps",
            id="two names for the same bytes",
        ),
        pytest.param(
            json.dumps({"a": {"dtype": "U8", "shape": [1 << 63], "data_offsets": [0, 1]}}).encode(),
            b"\0",
            "absurd shape",
            id="huge shape",
        ),
        pytest.param(
            json.dumps(
                {"a": {"dtype": "U8", "shape": [1 << 47] * 8, "data_offsets": [0, 1]}}
            ).encode(),
            b"\0",
            "gives it 1",
            id="shape that overflows",
        ),
        pytest.param(
            json.dumps({"a": entry(0, (1 << 63) - 1)}).encode(),
            b"",
            "absurd|truncated",
            id="exabytes",
        ),
    ],
)
def test_hostile_headers(tmp_path: Path, header: bytes, data: bytes, says: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(header, data))
    assert re.search(says, refused(path, read_header))


@pytest.mark.parametrize("length", [0, 1, 1 << 32, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_absurd_lengths(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a":1}')
    refused(path, read_header)


def test_a_header_of_a_billion_tensors_is_not_read(tmp_path: Path) -> None:
    """60 GB of (sparse) header: the length alone is enough to refuse it."""
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 60 * 10**9) + b'{"l.0.w":')
        file.truncate(61 * 10**9)
    assert "claims a header of 60000 MB" in refused(path, read_header)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "~/x", "a\\..\\b", "a/../b", "a\0b", "a\nb", "\x1b[2Jx",
     "\ud800", "a\u202eb", "", "n" * 600],
)  # fmt: skip
def test_names_that_are_paths_or_control_the_terminal(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(json.dumps({name: entry(0, 1)}).encode(), b"\0"))
    assert "a name that no model gives" in refused(path, read_header)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.w", "blocks/0/w", "é.weight", "a b", "h.0:0"])
def test_names_that_are_only_unusual_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(json.dumps({name: entry(0, 1)}).encode(), b"\0"))
    assert list(read_header(path).tensors) == [name]


def test_the_largest_header_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(many(MAX_TENSORS), b"\0" * MAX_TENSORS))
    assert len(read_header(path).tensors) == MAX_TENSORS


def test_the_worst_header_costs_little_memory(tmp_path: Path) -> None:
    """As many lists as pass the count, none of them a tensor."""
    path = tmp_path / "model.safetensors"
    lists = b"[]," * (3 * MAX_TENSORS - 5)
    path.write_bytes(file_of(b'{"a":[' + lists + b'0],"b":"' + b"x" * (12 * MB) + b'"}'))
    tracemalloc.start()
    refused(path, read_header)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def folder_with(tmp_path: Path, config: bytes | dict[str, Any] = CONFIG) -> Path:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    (tmp_path / "config.json").write_bytes(text)
    (tmp_path / "model.safetensors").write_bytes(
        file_of(json.dumps({"a": entry(0, 1)}).encode(), b"\0")
    )
    return tmp_path


def look(folder: Path) -> object:
    return check_model_folder(folder, tokenizer=False)


@pytest.mark.parametrize(
    "config",
    [
        b'{"model_type":"' + b"x" * 100 * MB + b'"}',
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 10 * MB,
        b'{"a":[' + b"{}," * 3_000_000 + b"0]}",
        b'{"a":[' + b"1," * 7_000_000 + b"0]}",
        b'{"model_type":"llama","n":' + b"9" * 10 * MB + b"}",
        b"[]",
        b"\xff\xfe",
        b'{"model_type": ["llama"]}',
    ],
    ids=["100 MB", "deep objects", "deep lists", "many objects", "many numbers", "huge number",
         "a list", "not UTF-8", "no name"],
)  # fmt: skip
def test_hostile_configs(tmp_path: Path, config: bytes) -> None:
    refused(folder_with(tmp_path, config), look)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/dev/zero", "sub/model.safetensors", "..\\model.safetensors", 3,
     None, ["model.safetensors"], ""],
)  # fmt: skip
def test_an_index_that_points_outside(tmp_path: Path, shard: object) -> None:
    folder = folder_with(tmp_path)
    index = {"weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, look)


def test_an_index_of_100_mb(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    with (folder / "model.safetensors.index.json").open("wb") as file:
        file.write(b'{"weight_map":{' + b'"a":"b",' * (12 * MB) + b'"z":"b"}}')
    refused(folder, look)


HEADER = json.dumps({"__metadata__": {"format": "pt"}, "a.w": entry(0, 3), "b": entry(3, 5)})
quick = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def parse_or_refuse(start: bytes, raw: bytes, size: int) -> None:
    try:
        length = header_length("x", start, size)
        header = parse_header("x", raw[:length], length, size)
    except ModelError as error:
        assert str(error).isprintable()
    else:
        assert sum(info.end - info.begin for info in header.tensors.values()) <= size


@quick
@given(
    length=st.integers(0, (1 << 64) - 1) | st.integers(0, 200),
    raw=st.binary(max_size=120),
    size=st.integers(0, 1 << 40),
)
def test_fuzzed_bytes(length: int, raw: bytes, size: int) -> None:
    parse_or_refuse(struct.pack("<Q", length) + raw[:56], raw, size)


@quick
@given(
    position=st.integers(0, len(HEADER)),
    cut=st.integers(0, 8),
    insert=st.sampled_from(
        [*'{}[]",:\\0919e-.', "null", "true", "NaN", "\ud800", "a.w", "__metadata__"]
    ),
)
def test_fuzzed_header(position: int, cut: int, insert: str) -> None:
    text = HEADER[:position] + insert + HEADER[position + cut :]
    raw = text.encode("utf-8", "surrogatepass")
    parse_or_refuse(struct.pack("<Q", len(raw)) + raw[:56], raw, 8 + len(raw) + 5)


def test_limits_leave_room_for_real_models() -> None:
    """Ten times the tensors of the largest list in the registry, with names of ordinary length."""
    assert MAX_TENSORS >= 10 * 883
    assert MAX_HEADER_BYTES >= MAX_TENSORS * 150
