"""Reading the header of a safetensors file, and nothing else of it.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length
N, N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, then the tensor data that
the offsets count from. The data must be covered without gaps or overlaps.

A header may come from anyone, so it is bounded before it is parsed: the limits are some ten times
what models in use need, and keep the worst header below a second and 200 MB.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import ModelError

MAX_HEADER_BYTES = 16 << 20
"""The reference implementation allows 100 MB, whose JSON can take seconds and gigabytes."""
MAX_TENSORS = 50_000
"""Tensors in one file; a dense model has some hundreds, with experts some thousands."""
MAX_NAME = 512
"""Characters of a tensor's name."""
MAX_DIMENSIONS = 8
ELSEWHERE = "get the model from another source"
"""The fix for what no honest tool writes."""
MAX_DIMENSION = 1 << 48

_MOST = {
    b"{": 3 * MAX_TENSORS,
    b"[": 3 * MAX_TENSORS,
    b":": 6 * MAX_TENSORS,
    b",": 16 * MAX_TENSORS,
}
# A tensor has one object, two lists, four colons and about eight commas; the rest leaves room for
# text in metadata.
_KEYS = {"dtype", "shape", "data_offsets"}

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {
        "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
        "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
        "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
        "I32": 32, "U32": 32, "F32": 32,
        "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    }
)  # fmt: skip
"""Bits of one element of each dtype of the format."""

_OTHER_FORMATS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run `git lfs pull`"),
    (b"GGUF", "is a GGUF file with the wrong name; name the original safetensors model"),
    (b"PK\x03\x04", "is a PyTorch pickle with the wrong name; get the safetensors version"),
    (b"\x80\x02", "is a Python pickle with the wrong name; get the safetensors version"),
    (b"<!", "is a web page that was saved by mistake; download the file itself again"),
    (b"<html", "is a web page that was saved by mistake; download the file itself again"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it; `begin` and `end` count from the data's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A validated header: tensor name → description, in file order."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    file_bytes: int

    @property
    def elements(self) -> int:
        """Number of stored elements of all tensors (packed ones counted as stored)."""
        return sum(tensor.elements for tensor in self.tensors.values())


def read_header(path: Path) -> Header:
    """Read and validate a safetensors header; the data is never touched.

    Raises ModelError, one sentence, for anything that is not a complete safetensors file.
    """
    try:
        status = path.stat()
        # A FIFO or device would block or never end, so it is not even opened.
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is not a regular file; expected safetensors weights")
        with path.open("rb") as file:
            start = file.read(64)
            length = header_length(str(path), start, status.st_size)
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; download the model again") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check it") from error
    return parse_header(str(path), raw, length, status.st_size)


def parse_header(label: str, raw: bytes, length: int, file_bytes: int) -> Header:
    """Validate a header that was read or fetched.

    Args:
        label: the file's name for messages.
        raw: the JSON, which should be `length` bytes.
        length: what `header_length` said.
        file_bytes: size of the whole file.

    Raises ModelError, one sentence.
    """
    if len(raw) < length:
        raise ModelError(f"{label} became shorter while it was read; wait for its download to end")
    entries = _parse(label, raw)
    metadata = _metadata(label, entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        raise ModelError(f"{label} claims {len(entries)} tensors in one file; {ELSEWHERE}")
    tensors = {name: _tensor(label, name, entry) for name, entry in entries.items()}
    _check_layout(label, tensors, 8 + length, file_bytes)
    return Header(MappingProxyType(tensors), MappingProxyType(metadata), file_bytes)


def header_length(path: str, start: bytes, file_bytes: int) -> int:
    """The header's length in bytes, judged from the file's first 64 bytes.

    Raises ModelError, one sentence, where no header of a sane length begins there.
    """
    if start[8:9] != b"{":  # a short header's length can look like another format's magic
        for magic, what in _OTHER_FORMATS:
            if start.startswith(magic):
                raise ModelError(f"{path} {what}")
    if len(start) < 8:
        raise ModelError(
            f"{path} is truncated: it has {file_bytes} bytes, fewer than the smallest safetensors "
            "file; download it again"
        )
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length < 1 << 40 or start[8:9] not in (b"{", b""):
        raise ModelError(
            f"{path} is not a safetensors file: its first bytes are no header; download it again"
        )
    if 8 + length > file_bytes:
        raise ModelError(
            f"{path} is truncated: its header alone needs {8 + length} bytes, the file has "
            f"{file_bytes}; download it again"
        )
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            f"{path} claims a header of {length / 1e6:.0f} MB, but no model needs more than "
            f"{MAX_HEADER_BYTES / 1e6:.0f}; {ELSEWHERE}"
        )
    return length


def _parse(path: str, raw: bytes) -> dict[str, Any]:
    for character, most in _MOST.items():
        if raw.count(character) > most:
            raise ModelError(f"{path} has a header of absurd complexity; {ELSEWHERE}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = shown(str(error), 80)
        raise ModelError(
            f"{path} has a damaged safetensors header ({reason}); download it again"
        ) from error
    if not isinstance(entries, dict):
        raise ModelError(f"{path} has a safetensors header that is no object; download it again")
    return entries


def _metadata(path: str, value: object) -> dict[str, str]:
    if value is None:  # what mlx writes when there is nothing to say
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ModelError(
            f"{path} has safetensors metadata that is not a map of strings; download it again"
        )
    return value


def _tensor(path: str, name: str, entry: object) -> TensorInfo:
    def refused(what: str, do: str = "download the file again") -> ModelError:
        return ModelError(f"{path}: tensor {shown(name)} {what}; {do}")

    if not is_plain_name(name):
        raise refused("has a name that no model gives", ELSEWHERE)
    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        raise refused("needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        what = f"has the unknown dtype {shown(str(dtype))}"
        raise refused(what, "the file is damaged or newer than this harness")
    if not _are_sizes(shape, MAX_DIMENSION) or len(shape) > MAX_DIMENSIONS:
        raise refused("has an absurd shape")
    if not _are_sizes(offsets, 1 << 63) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refused("has impossible data offsets")
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    bits = info.elements * DTYPE_BITS[dtype]
    if bits != 8 * (info.end - info.begin):
        raise refused(
            f"of dtype {dtype} and shape {list(info.shape)} needs {-(-bits // 8)} bytes, "
            f"but the header gives it {info.end - info.begin}"
        )
    return info


def is_plain_name(name: str) -> bool:
    """Whether a tensor's name is text that is no path: converters may make file names of it."""
    return (
        0 < len(name) <= MAX_NAME
        and name.isprintable()
        and ".." not in name
        and "\\" not in name
        and not name.startswith(("/", "~"))
    )


def _are_sizes(value: object, limit: int) -> bool:
    # bool is an int to Python, but `true` is no size.
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number <= limit for number in value
    )


def _check_layout(
    path: str, tensors: Mapping[str, TensorInfo], data_start: int, file_bytes: int
) -> None:
    """The data must lie within the file, without gaps or overlaps."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != position:
            what = "overlaps the tensor before it" if info.begin < position else "follows a gap"
            raise ModelError(f"{path}: tensor {shown(name)} {what}; download the file again")
        position = info.end
    promised = data_start + position
    if promised > file_bytes:
        raise ModelError(
            f"{path} is truncated: the header promises {promised} bytes, the file has "
            f"{file_bytes}; download it again"
        )
    if promised < file_bytes:
        raise ModelError(
            f"{path} is {file_bytes - promised} bytes longer than its header promises; "
            "download it again"
        )


def shown(text: str, limit: int = 120) -> str:
    """Untrusted text made printable on one line: control characters escaped, shortened."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
