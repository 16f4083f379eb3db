"""Ghost folders: a model's real config and tensor headers, with no weights behind them.

A ghost's weight file is sparse: the true header, then a hole of the promised size. Whatever reads
only names, dtypes and shapes (mlx-lm's lazy load, the converter's dry run) takes it for the model.
Reading a weight gives zeros.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from harness.checkpoints.folder import read_config, read_weight_headers
from harness.checkpoints.hashing import sha256_of
from harness.checkpoints.safetensors import (
    DTYPE_BITS,
    MAX_DIMENSION,
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    TensorInfo,
    is_plain_name,
    shown,
)
from harness.errors import ModelError, OperationalError

WEIGHTS = "model.safetensors"
"""The one weight file of a ghost, whatever the original's are called."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tekken.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""All that decides how a conversation becomes tokens."""
_PROBE_BYTES = 64 << 20
_MOST_STORED = 1 << 20


class TensorShape(NamedTuple):
    """What a header says of one tensor, without its place in the file."""

    dtype: str
    """A key of DTYPE_BITS, e.g. "BF16"."""
    shape: tuple[int, ...]


Tensors: TypeAlias = Mapping[str, TensorShape]


def write_ghost(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    extra_files: Mapping[str, bytes | Path] | None = None,
) -> Path:
    """Write a ghost: config.json, a sparse model.safetensors, and small real files beside them.

    Args:
        folder: where; one that is there already is replaced once the new one is complete.
        tensors: name → dtype and shape; with none, only config.json is written.
        extra_files: plain file name → its content, or a file to copy (tokenizer, chat template,
            generation_config.json).

    Returns:
        `folder`.

    Raises:
        ModelError: a tensor or file name that no model has.
        OperationalError: the disk is full, not writable, or cannot hold sparse files.
    """
    extra = dict(extra_files or {})
    header = ghost_header(tensors) if tensors else None
    for name in extra:
        if name != Path(name).name or name in ("", ".", "..", "config.json", WEIGHTS):
            raise ModelError(f"{shown(name)} is no name for a file beside a model's config.json")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(work / "ghost", config, header, extra)
            if folder.exists():
                folder.rename(work / "replaced")
            (work / "ghost").rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise OperationalError(
            f"the ghost of a model could not be written to {folder} ({error.strerror}); free some "
            "space or choose another work folder"
        ) from error
    return folder


def _fill(
    folder: Path,
    config: Mapping[str, Any],
    header: tuple[bytes, int] | None,
    extra: Mapping[str, bytes | Path],
) -> None:
    folder.mkdir()
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name, content in extra.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        (folder / name).write_bytes(data)
    if header is not None:
        _check_sparse(folder / "probe")
        _write_sparse(folder / WEIGHTS, *header)


def ghost_header(tensors: Tensors) -> tuple[bytes, int]:
    """(header bytes with their length in front, bytes of data that they promise).

    Raises ModelError for what no safetensors file of a model holds.
    """
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{len(tensors)} tensors are more than one file of a model has")
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in tensors.items():
        bits = _bits(name, dtype, shape)
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + bits // 8],
        }
        position += bits // 8
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the reference implementation aligns the data this way
    if len(text) > MAX_HEADER_BYTES:
        raise ModelError("the tensors' names are longer than one file of a model has room for")
    return len(text).to_bytes(8, "little") + text, position


def _bits(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    sane = len(shape) <= MAX_DIMENSIONS and all(0 <= size <= MAX_DIMENSION for size in shape)
    if dtype not in DTYPE_BITS or not sane or not is_plain_name(name) or name == "__metadata__":
        raise ModelError(
            f"tensor {shown(name)} of dtype {shown(dtype)} and {len(shape)} dimensions is not one "
            "that a safetensors file can hold; correct the tensor list"
        )
    bits = TensorInfo(dtype, shape, 0, 0).elements * DTYPE_BITS[dtype]
    if bits % 8 or bits >= 1 << 63:
        raise ModelError(f"tensor {shown(name)} has an absurd size; correct the tensor list")
    return bits


def _check_sparse(probe: Path) -> None:
    """Refuse a file system that stores holes, before a hole of gigabytes fills the disk."""
    with probe.open("wb") as file:
        file.truncate(_PROBE_BYTES)
        file.flush()
        os.fsync(file.fileno())
    stored = probe.stat().st_blocks * 512
    probe.unlink()
    if stored > _MOST_STORED:
        raise OperationalError(
            f"the file system of {probe.parent.parent} cannot hold sparse files, so a model's "
            "ghost would take as much space as its weights; set HARNESS_CACHE or TMPDIR to a "
            "folder on APFS, ext4 or the like"
        )


def _write_sparse(path: Path, header: bytes, data_bytes: int) -> None:
    try:
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + data_bytes)
    except OSError as error:
        if error.errno not in (errno.EFBIG, errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW):
            raise
        raise OperationalError(
            f"the file system of {path.parent.parent} cannot hold a sparse file of "
            f"{data_bytes / 1e9:.0f} GB; set HARNESS_CACHE or TMPDIR to a folder on APFS, ext4 or "
            "the like"
        ) from error


def tensors_of(folder: Path) -> dict[str, TensorShape]:
    """Name → dtype and shape of all tensors of a model folder, sorted by name.

    Raises ModelError where a header is damaged or there is none.
    """
    found = {
        name: TensorShape(info.dtype, info.shape)
        for header in read_weight_headers(folder).values()
        for name, info in header.tensors.items()
    }
    return {name: found[name] for name in sorted(found)}


def header_fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of what header depth looks at: {headers, config, tokenizer}.

    `headers` hashes names, dtypes and shapes of the tensors, however they are spread over files,
    and never the data; "none" where there are no readable ones. `config` covers
    generation_config.json, `tokenizer` the chat template; both hash the files' bytes. Raises
    ModelError where config.json is bad.
    """
    read_config(folder)
    try:
        rows = [[name, *info] for name, info in tensors_of(folder).items()]
        headers = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    except ModelError as error:
        # Damaged headers are evidence too; another damage is another observation.
        text = str(error).replace(str(folder), "")
        headers = "none " + hashlib.sha256(text.encode()).hexdigest()
    files = {
        "config": ("config.json", "generation_config.json"),
        "tokenizer": TOKENIZER_FILES,
    }
    hashes = {"headers": headers}
    for part, names in files.items():
        digest = hashlib.sha256()
        for name in names:
            if (folder / name).is_file():
                digest.update(f"{name} {sha256_of(folder / name)}\n".encode())
        hashes[part] = digest.hexdigest()
    return hashes
