"""Append-only JSONL evidence, addressed by what it is evidence of.

One file holds one thing: a transcript (one subject, one probe set) or one gate's observation.
Its name carries a hash of its `spec`, everything that could change the answers, so the same
question is never asked twice and a change of weights, adapter, probes or engine never finds a
stale answer.

    header   {"kind": "header", "schema": 1, "key": …, "spec": {…}, "provenance": {…}}
    entries  {"kind": "response", "batch": 0, "of": 16, …} or {"kind": "observation", …}
    end      {"kind": "end", "entries": n}                    written last: without it, resume

Entries of a batch are written in one go. After a kill, a torn line and an incomplete batch are
cut off, and the batch is asked again as a whole: the same batch gives the same floats.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import EvidenceError
from harness.records import SCHEMA

Entry = dict[str, Any]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_key(spec: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the canonical spec."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


class EvidenceFile:
    """One evidence file, opened for reading and, where unfinished, appending."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        spec: dict[str, Any],
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """Open or create `<folder>/<stem>--<key>.jsonl`.

        Raises:
            EvidenceError: the file is damaged before its end, from a newer harness, or the
                folder cannot be written.
        """
        self.key = content_key(spec)
        self.path = folder / f"{stem}--{self.key}.jsonl"
        self._header = {
            "kind": "header",
            "schema": SCHEMA,
            "key": self.key,
            "spec": spec,
            "provenance": provenance or {},
        }
        self.entries: list[Entry] = []
        self.complete = False
        if self.path.exists():
            self._read()

    def append(self, entries: Iterable[Entry]) -> None:
        """Write a batch of entries durably, in one write.

        Raises:
            EvidenceError: the disk is full or the folder is read-only.
        """
        batch = list(entries)
        self._write(batch)
        self.entries.extend(batch)

    def finish(self) -> None:
        """Mark the file complete; later runs reuse it without asking."""
        if not self.complete:
            self._write([{"kind": "end", "entries": len(self.entries)}])
            self.complete = True

    def _write(self, lines: list[Entry]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(handle).st_size
                head = [] if size else [self._header]
                data = "".join(canonical(line) + "\n" for line in [*head, *lines]).encode()
                written = os.write(handle, data)
                if written < len(data):  # a full disk may take a part: take it back
                    os.ftruncate(handle, size)
                    raise OSError("the disk is full")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise EvidenceError(
                f"Evidence cannot be written to '{self.path.parent}' ({error.strerror or error}); "
                "free some space or choose another folder with --output-dir."
            ) from error

    def _read(self) -> None:
        lines, good = parse_lines(self.path)
        if not lines:
            _cut(self.path, b"")
            return
        header = lines[0]
        if header.get("kind") != "header" or header.get("key") != self.key:
            raise EvidenceError(
                f"'{self.path}' does not hold the evidence its name promises; delete the file "
                "and run the command again."
            )
        body = lines[1:]
        if body and body[-1].get("kind") == "end":
            self.entries = _finished(self.path, body)
            self.complete = True
            return
        whole = _whole_batches(self.path, body)
        if len(whole) < len(body) or good < self.path.stat().st_size:
            _cut(self.path, "".join(canonical(line) + "\n" for line in [header, *whole]).encode())
        self.entries = whole


def read_finished(path: Path) -> list[Entry]:
    """The entries of a finished evidence file, for reading only.

    Raises:
        EvidenceError: the file is missing, damaged, unfinished or from a newer harness.
    """
    lines, good = parse_lines(path)
    if len(lines) < 2 or lines[-1].get("kind") != "end" or good < path.stat().st_size:
        raise EvidenceError(f"Evidence '{path}' is not finished; run the original command again.")
    return _finished(path, lines[1:])


def _finished(path: Path, body: list[Entry]) -> list[Entry]:
    """The entries before the end line, which counts them."""
    *entries, end = body
    if end.get("entries") != len(entries) or len(_whole_batches(path, entries)) < len(entries):
        raise _edited(path)
    return entries


def _edited(path: Path) -> EvidenceError:
    return EvidenceError(f"'{path}' was edited by hand; delete the file and run the command again.")


def _cut(path: Path, kept: bytes) -> None:
    """Cut the file to its good head; what is kept is not rewritten, so nothing can be lost."""
    try:
        with path.open("rb+") as stream:
            if stream.read(len(kept)) != kept:
                raise _edited(path)
            stream.truncate(len(kept))
    except OSError as error:
        raise EvidenceError(
            f"Evidence '{path}' cannot be written ({error.strerror}); choose another folder with "
            "--output-dir."
        ) from error


def parse_lines(path: Path) -> tuple[list[Entry], int]:
    """All whole JSON lines and the number of bytes they take; a torn last line is left out.

    Raises:
        EvidenceError: a line before the last is not JSON, or the schema is newer than ours.
    """
    lines: list[Entry] = []
    good = 0
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"Evidence '{path}' cannot be read ({error.strerror}).") from error
    for number, raw in enumerate(data.splitlines(keepends=True), start=1):
        torn = not raw.endswith(b"\n")
        try:
            entry = json.loads(raw)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if torn:
                break
            raise EvidenceError(
                f"{path}:{number} is not valid JSON ({error}); delete the file and run the "
                "command again."
            ) from error
        if torn:
            break
        if number == 1 and not isinstance(entry.get("schema"), int):
            raise EvidenceError(
                f"'{path}' has no schema number; delete the file and run the command again."
            )
        if number == 1 and entry["schema"] > SCHEMA:
            raise EvidenceError(
                f"'{path}' was written by a newer harness (schema {entry['schema']}, this one "
                f"reads up to {SCHEMA}); upgrade the harness."
            )
        lines.append(entry)
        good += len(raw)
    return lines, good


def _whole_batches(path: Path, body: list[Entry]) -> list[Entry]:
    """Drop the last batch if some of its entries are missing; no other can be incomplete.

    Raises:
        EvidenceError: an earlier batch is incomplete, or the file goes on after its end.
    """
    sizes = Counter(entry.get("batch") for entry in body)
    short = {e.get("batch") for e in body if sizes[e.get("batch")] != e.get("of", 1)}
    last = {e.get("batch") for e in body[-1:]}
    if short - last or any(e.get("kind") == "end" for e in body):
        raise _edited(path)
    return [entry for entry in body if entry.get("batch") not in short]


def lock(folder: Path) -> FileLock:
    """The lock that makes one run the only writer of an output folder.

    Raises:
        EvidenceError: another run holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / ".lock")
        held.acquire(timeout=0)
    except Timeout:
        raise EvidenceError(
            f"Another harness run is writing to '{folder}'; wait for it, or choose another "
            "folder with --output-dir."
        ) from None
    except OSError as error:
        raise EvidenceError(
            f"The output folder '{folder}' cannot be written ({error.strerror or error}); choose "
            "another with --output-dir."
        ) from error
    return held
