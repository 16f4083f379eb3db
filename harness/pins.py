"""model_registry.lock: which commit of each Hub repository was met first.

A revision is written here once, at the first contact, and used from then on; it is never
invented. The file belongs under version control, beside the registry.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import FetchError, RegistryError
from harness.records import Record


class Pin(Record):
    """One line of the lock file."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    first_seen: str
    """UTC date of the first contact, YYYY-MM-DD."""


_LOCK = TypeAdapter(dict[str, Pin])


def read_lock(lock_path: Path) -> dict[str, Pin]:
    """Repository → pinned revision; empty where there is no lock file yet.

    Raises:
        RegistryError: the file is not what `add_pin` writes.
    """
    try:
        return _LOCK.validate_python(json.loads(lock_path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        place = f"{lock_path}:{error.lineno}:{error.colno}: {error.msg}"
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{lock_path}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        place = f"{lock_path}: {error}"
    raise RegistryError(f"{place}; restore the lock file, or delete it to pin afresh.")


def add_pin(lock_path: Path, cache_dir: Path, repo: str, revision: str) -> Pin:
    """Pin `repo` to `revision` unless another process was first; returns the pin that holds.

    Raises:
        FetchError: the lock file cannot be written.
        RegistryError: it is damaged.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / "registry_lock.guard"):
            pins = read_lock(lock_path)
            if repo not in pins:
                today = datetime.now(UTC).date().isoformat()
                pins[repo] = Pin(revision=revision, first_seen=today)
                _write_atomically(lock_path, {key: pins[key].model_dump() for key in sorted(pins)})
            return pins[repo]
    except OSError as error:
        raise FetchError(
            f"the revision of {repo} cannot be pinned in {lock_path} ({error}); make its folder "
            "writable or give the candidate a 'revision'"
        ) from error


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would keep colleagues from reading a shared file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
