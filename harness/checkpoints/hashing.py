"""SHA-256 of files, remembered so that gigabytes are hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from harness.errors import ModelError

_REMEMBERED = "file_hashes.json"
_ALWAYS_HASHED_BELOW = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's contents, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path, cache_dir: Path) -> str:
    """SHA-256 of a file's contents, remembered in `cache_dir` from 1 MiB on.

    A remembered hash holds while path, size, mtime and ctime stay as they were; ctime, because
    `cp -p` and `rsync -t` set mtime back. Raises ModelError where the file cannot be read.
    """
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
        if status.st_size < _ALWAYS_HASHED_BELOW:
            return sha256_of(resolved)
        store = cache_dir / _REMEMBERED
        key = str(resolved)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = _load(store).get(key)
        if isinstance(entry, list) and len(entry) == 4 and entry[:3] == stamp:
            return str(entry[3])
        digest = sha256_of(resolved)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check the file") from error
    _remember(store, key, [*stamp, digest])
    return digest


def _load(store: Path) -> dict[str, object]:
    try:
        loaded = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _remember(store: Path, key: str, entry: list[int | str]) -> None:
    """Add one entry; a store that cannot be written only costs time, so it is no error."""
    entries = {name: value for name, value in _load(store).items() if Path(name).exists()}
    entries[key] = entry
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=store.parent, prefix=".hashes.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file)
        Path(temporary).replace(store)
    except OSError:
        return
