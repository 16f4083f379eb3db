"""From a candidate to a folder that shows its headers: no weights are fetched.

In this order: files that are on this machine already; headers fetched earlier; the Hub, by range
requests; a stored snapshot. The Hub comes before the snapshot, though it costs a few requests,
because it has what no snapshot stores (the tokenizer) and what it says was read, not copied.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from harness.checkpoints.folder import has_tokenizer
from harness.checkpoints.ghost import header_fingerprint, tensors_of
from harness.errors import ModelError
from harness.hub_headers import fetch_headers
from harness.pins import add_pin, read_lock
from harness.records import HeaderFacts, Known, Record
from harness.registry import Candidate, HubSource, LocalSource, WheelSource
from harness.snapshots import (
    Snapshot,
    ghost_of,
    load_snapshot,
    snapshot_path,
    take_snapshot,
    weight_format,
)
from harness.sources import NotHere, Progress, Ready, ask_hub, on_this_machine

__all__ = ["HeaderReady", "find_headers", "folder_facts", "header_fingerprint", "snapshot_of"]

OWN_FILES = "the folder's own files"


class HeaderReady(Record):
    """A folder with a candidate's config and headers, and what is known beside it."""

    folder: Path
    """A ghost, or a real model folder."""
    facts: HeaderFacts
    origin: str
    """For reports: "Hub org/name@0123456789ab", "stored snapshot of org/name", …"""
    revision: str | None
    """Hub commit or wheel hash that the facts were read at; None where there is none."""


FoundHeaders: TypeAlias = HeaderReady | NotHere


def find_headers(
    candidate: Candidate,
    *,
    cache_dir: Path,
    lock_path: Path,
    snapshots_dir: Path,
    work_dir: Path,
    online: bool = True,
    stored: bool = True,
    progress: Progress | None = None,
) -> FoundHeaders:
    """Find a candidate's headers.

    Args:
        cache_dir: where fetched headers are kept, and the embedded model is looked for.
        lock_path: the file that pins Hub revisions, made at the first contact.
        snapshots_dir: where `NAME.json` may be.
        work_dir: where a snapshot's ghost is written, as a folder named after the candidate.
        online: whether the Hub may be asked.
        stored: whether a stored snapshot will do.

    Raises:
        FetchError: the lock file cannot be written.
        ModelError: a config fetched from the Hub, or the snapshot, is damaged or hostile.
        OperationalError: the disk cannot hold a ghost.
        RegistryError: the lock file is damaged.
    """
    tell = progress or (lambda _: None)
    here = on_this_machine(candidate, cache_dir=cache_dir, lock_path=lock_path)
    if isinstance(here, NotHere):
        return here
    if isinstance(here, Ready):
        return _from_folder(candidate, here)
    missing = _elsewhere(candidate)
    if isinstance(candidate.source, HubSource):
        fetched = _from_hub(candidate.name, candidate.source, cache_dir, lock_path, online, tell)
        if isinstance(fetched, HeaderReady):
            return fetched
        missing = fetched
    if not stored:
        return missing
    return _from_snapshot(
        candidate, snapshots_dir, work_dir, missing, _pinned(candidate, lock_path)
    )


def folder_facts(folder: Path, source: str = OWN_FILES, note: str = "") -> HeaderFacts:
    """What a model folder, ghost or real, says of itself; `note` is about its tensors."""
    files = tuple(sorted(file.name for file in folder.iterdir() if not file.is_dir()))
    weights = [name for name in files if name.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    read = Known(standing="read", source=source)
    missing = Known(standing="missing", source=source)
    tensors = missing
    if any(name.endswith(".safetensors") for name in files):
        try:
            tensors_of(folder)
            tensors = read.model_copy(update={"note": note})
        except ModelError as error:
            told = str(error).replace(str(folder), folder.name)
            tensors = missing.model_copy(update={"note": told})
    return HeaderFacts(
        origin="folder",
        parts={
            "config": read,
            "tensors": tensors,
            "tokenizer": read if has_tokenizer(folder) else missing,
            "weights": read if weights else missing,
        },
        weight_format=weight_format(files),
        weight_bytes=sum((folder / name).stat().st_size for name in weights) or None,
        files=files,
    )


def snapshot_of(
    candidate: Candidate,
    *,
    cache_dir: Path,
    lock_path: Path,
    work_dir: Path,
    progress: Progress | None = None,
) -> Snapshot | NotHere:
    """A fresh snapshot of a candidate, from this machine or the Hub; see `find_headers`."""
    found = find_headers(
        candidate,
        cache_dir=cache_dir,
        lock_path=lock_path,
        snapshots_dir=work_dir,
        work_dir=work_dir,
        stored=False,
        progress=progress,
    )
    if isinstance(found, NotHere):
        return found
    return take_snapshot(
        candidate.name, _origin(candidate), found.revision, found.folder, found.facts
    )


def _origin(candidate: Candidate) -> str:
    """What a snapshot must be of, to be this candidate's."""
    source = candidate.source
    if isinstance(source, HubSource):
        return source.repo
    return source.requirement if isinstance(source, WheelSource) else source.path.name


def _from_folder(candidate: Candidate, here: Ready) -> HeaderReady:
    source, note = here.origin, ""
    if isinstance(candidate.source, LocalSource):
        source = OWN_FILES
    elif isinstance(candidate.source, WheelSource):
        note = f"made from {Path(candidate.source.member).name}, dequantised to float32"
    return HeaderReady(
        folder=here.model_dir,
        facts=folder_facts(here.model_dir, source, note),
        origin=here.origin,
        revision=here.revision,
    )


def _elsewhere(candidate: Candidate) -> NotHere:
    return NotHere(
        reason=f"the model of {candidate.name} has not been prepared on this machine",
        fix=f"harness vet {candidate.name} --depth full",
    )


def _from_hub(
    name: str, source: HubSource, cache_dir: Path, lock_path: Path, online: bool, tell: Progress
) -> FoundHeaders:
    """Headers fetched earlier at the pinned commit, else fetched now; the commit is pinned."""
    repo, commit = source.repo, _pinned_commit(source, lock_path)
    if commit is not None and (kept := _kept(cache_dir, repo, commit, name)) is not None:
        return kept
    if not online:
        return NotHere(
            reason=f"the headers of {repo} are not on this machine",
            fix=f"run `harness snapshot {name}`, or name a folder with its config.json",
        )
    tell(f"{name}: asking the Hub for the headers of {repo}")
    info = ask_hub(repo, commit)
    if isinstance(info, NotHere):
        return info
    if commit is None:
        commit = add_pin(lock_path, cache_dir, repo, str(info.sha)).revision
        if commit != info.sha:  # another process was first
            info = ask_hub(repo, commit)
            if isinstance(info, NotHere):
                return info
    place = _place(cache_dir, repo, commit)
    facts = fetch_headers(repo, commit, info, place / name)
    if isinstance(facts, NotHere):
        return facts
    if not facts.parts["tensors"].note:  # a refused header may have been a proxy's web page
        (place / f"{name}.json").write_text(facts.model_dump_json(indent=1), encoding="utf-8")
    return _ready(place / name, facts, repo, commit)


def _pinned(candidate: Candidate, lock_path: Path) -> str | None:
    source = candidate.source
    return _pinned_commit(source, lock_path) if isinstance(source, HubSource) else None


def _pinned_commit(source: HubSource, lock_path: Path) -> str | None:
    """The commit that the registry or its lock file insists on."""
    pin = read_lock(lock_path).get(source.repo)
    return source.revision or (pin.revision if pin else None)


def _place(cache_dir: Path, repo: str, commit: str) -> Path:
    return cache_dir / "headers" / repo.replace("/", "--") / commit


def _kept(cache_dir: Path, repo: str, commit: str, name: str) -> HeaderReady | None:
    place = _place(cache_dir, repo, commit)
    try:
        facts = HeaderFacts.model_validate_json(
            (place / f"{name}.json").read_text(encoding="utf-8")
        )
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    if not (place / name / "config.json").is_file():
        return None
    return _ready(place / name, facts, repo, commit)


def _ready(folder: Path, facts: HeaderFacts, repo: str, commit: str) -> HeaderReady:
    return HeaderReady(
        folder=folder, facts=facts, origin=f"Hub {repo}@{commit[:12]} (headers)", revision=commit
    )


def _at(revision: str | None) -> str:
    return f"@{revision[:12]}" if revision and len(revision) == 40 else ""  # a commit


def _of_another(known: Known, snapshot: Snapshot) -> Known:
    """What a snapshot of another revision says: it may hold for this one, or not."""
    if known.standing == "missing":
        return known
    note = f"read at{_at(snapshot.revision).replace('@', ' ')}, which is not the pinned revision"
    told = f"{known.note}; {note}" if known.note else note
    return known.model_copy(update={"standing": "unverified", "note": told})


def _from_snapshot(
    candidate: Candidate,
    snapshots_dir: Path,
    work_dir: Path,
    missing: NotHere,
    pinned: str | None,
) -> FoundHeaders:
    path = snapshot_path(snapshots_dir, candidate.name)
    if not path.is_file():
        fix = f"{missing.fix}; or store a snapshot where the Hub is reached: harness snapshot"
        return NotHere(reason=missing.reason, fix=f"{fix} {candidate.name}")
    snapshot = load_snapshot(path)
    if snapshot.origin != _origin(candidate):
        raise ModelError(
            f"{path} is a snapshot of {snapshot.origin}, but {candidate.name} is "
            f"{_origin(candidate)}; write it again with `harness snapshot {candidate.name}`"
        )
    target = work_dir / candidate.name
    shutil.rmtree(target, ignore_errors=True)
    folder, facts = ghost_of(snapshot, target)
    tokenizer = facts.parts["tokenizer"]
    note = "; ".join(filter(None, (tokenizer.note, missing.reason, missing.fix)))
    parts = {**facts.parts, "tokenizer": tokenizer.model_copy(update={"note": note})}
    if pinned is not None and snapshot.revision not in (None, pinned):
        parts |= {name: _of_another(known, snapshot) for name, known in parts.items()}
    return HeaderReady(
        folder=folder,
        facts=facts.model_copy(update={"parts": parts}),
        origin=f"stored snapshot of {snapshot.origin}" + _at(snapshot.revision),
        revision=snapshot.revision,
    )
