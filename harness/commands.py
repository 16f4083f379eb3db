"""What each command does, free of argument parsing and printing."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.campaign import Campaign, Settings
from harness.checkpoints.adapters import check_adapter
from harness.checkpoints.folder import read_config
from harness.checkpoints.stored_dtype import with_stored_dtype
from harness.errors import OperationalError, UsageError
from harness.header_sources import find_headers, snapshot_of
from harness.machine import cache_root
from harness.memory_command import make_settings, memory_report
from harness.policy import load_policy
from harness.probes import bundled_probes_dir, load_suites
from harness.progress import Steps
from harness.records import Depth, Report
from harness.registry import Candidate, HubSource, LocalSource, Registry, load_registry
from harness.runs import judge_run, load_run
from harness.snapshots import save_snapshot, snapshot_path
from harness.sources import NotHere, Ready
from harness.training_data import read_training_data
from harness.transcripts import file_stem

DEMO_MODEL = "smollm2-135m-instruct"
DEMO_ADAPTERS = Path(__file__).parents[1] / "examples" / "adapters"
DEMO_PAIR = ("gentle", "style-bleed")

MARKS = {True: "ok     ", False: "MISSING", None: "-      "}
"""How `doctor` shows a check: fine, to be mended, not applicable here."""


class Common(NamedTuple):
    """The options that most commands share."""

    output_dir: Path
    limit: int | None
    seed: int
    registry: Path | None = None
    policy: Path | None = None
    probes: Path | None = None
    download: bool = False


def run_demo(common: Common, typed: Sequence[str]) -> Report:
    """Vet the embedded model and compare the two example adapters."""
    registry, settings = _prepare(common)
    candidate = registry.find(DEMO_MODEL)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        campaign.vet(candidate)
        for name in DEMO_PAIR:
            _compare(campaign, candidate, DEMO_ADAPTERS / name, gguf=False)
        return campaign.finish(_command(typed), "demo")[1]


def run_vet(
    common: Common,
    names: Sequence[str],
    model_dirs: Sequence[Path],
    depth: Depth,
    typed: Sequence[str],
) -> Report:
    """Vet the named candidates and folders, or the whole registry where none is named."""
    registry, settings = _prepare(common)
    candidates = [_candidate(registry, n) for n in names]
    candidates += [_folder_candidate(folder) for folder in model_dirs]
    # What is named twice is looked at once.
    candidates = list(dict.fromkeys(candidates)) or list(registry.candidates)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        if depth != "full":
            for candidate in candidates:
                campaign.vet_headers(candidate, depth)
            return campaign.finish(_command(typed), "vet")[1]
        for candidate in candidates:
            if isinstance(candidate.source, LocalSource) and candidate not in registry.candidates:
                # A folder named by hand that is broken is an error, not a finding.
                campaign.subject(candidate.name, candidate.source.path, None, None)
        for candidate in candidates:
            campaign.vet(candidate, alone=len(candidates) == 1)
        return campaign.finish(_command(typed), "vet")[1]


def run_compare(
    common: Common,
    base: str,
    adapters: Sequence[Path],
    gguf: bool,
    train_data: Path | None,
    typed: Sequence[str],
) -> Report:
    """Compare each adapter with its base."""
    registry, settings = _prepare(common)
    if train_data is not None:
        training = read_training_data(train_data)
        settings = settings.model_copy(update={"training": training})
    candidate = _candidate(registry, base)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        model_dir = _here(campaign, candidate).model_dir
        for adapter in adapters:  # all of them before the first is asked for hours
            check_adapter(adapter, model_dir)
        for adapter in adapters:
            _compare(campaign, candidate, adapter, gguf)
        return campaign.finish(_command(typed), "compare")[1]


def predict_memory(
    name: str, registry: Path | None, device: Literal["auto", "metal", "cpu"], **settings: Any
) -> dict[str, Any]:
    """What a candidate, or a folder with a config.json, takes under the given settings.

    Raises:
        UsageError: no such candidate or folder, a setting that cannot be.
        ModelError: its config is nonsense or of an architecture that is not modelled.
    """
    registered = load_registry(registry)
    candidate = _candidate(registered, name)
    source = candidate.source
    if isinstance(source, LocalSource):
        config = with_stored_dtype(read_config(source.path), source.path)
        model = name
    else:
        config = _known_config(registered, candidate)
        model = source.repo if isinstance(source, HubSource) else candidate.name
    return memory_report(
        config, make_settings(device, **settings), name=candidate.name, model=model
    )


def store_snapshot(name: str, registry: Path | None) -> Path:
    """Store the header-level facts of a candidate beside the registry; returns the file.

    Raises:
        OperationalError: neither this machine nor the Hub has them.
    """
    registered = load_registry(registry)
    candidate = registered.find(name)
    with Steps() as steps, tempfile.TemporaryDirectory() as work:
        steps.step(f"{name}: reading its headers")
        taken = snapshot_of(
            candidate,
            cache_dir=cache_root(),
            lock_path=registered.lock_path,
            work_dir=Path(work),
            progress=steps.say,
        )
    if isinstance(taken, NotHere):
        raise OperationalError(f"{name} cannot be stored: {taken.reason}; {taken.fix}.")
    path = snapshot_path(registered.snapshots_dir, name)
    save_snapshot(taken, path)
    return path


def _known_config(registry: Registry, candidate: Candidate) -> dict[str, Any]:
    """config.json of a candidate, from this machine or its snapshot; the Hub is not asked."""
    with tempfile.TemporaryDirectory() as work:
        found = find_headers(
            candidate,
            cache_dir=cache_root(),
            lock_path=registry.lock_path,
            snapshots_dir=registry.snapshots_dir,
            work_dir=Path(work),
            online=False,
        )
        if isinstance(found, NotHere):
            raise OperationalError(
                f"the config of {candidate.name} is not known here: {found.reason}; {found.fix}."
            )
        return with_stored_dtype(read_config(found.folder), found.folder)


def rebuild_report(name: str, output_dir: Path, policy: Path | None) -> Report:
    """Judge a stored run again; a report's path says where its evidence is."""
    folder = Path(name).parent if Path(name).is_file() else output_dir
    run = load_run(name, folder)
    return judge_run(run, folder, load_policy(policy) if policy else None)


def print_doctor(as_json: bool, output_dir: Path) -> int:
    """Examine this machine; 4 where something that every command needs is broken."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from harness.doctor import examine

    with Console(stderr=True).status("Looking at this machine"):
        checks = examine(reports_dir=output_dir)
    if as_json:
        sys.stdout.write(json.dumps([c.model_dump(mode="json") for c in checks], indent=2) + "\n")
    else:
        out = Console(highlight=False)
        for check in checks:
            out.print(Text.assemble(MARKS[check.ok], " ", (check.name, "bold"), ": ", check.found))
            for word, text in (("costs", check.cost), ("fix", check.fix)):
                if text:
                    out.print(Padding(Text(f"{word}: {text}"), (0, 0, 0, 9)))
    return 4 if any(c.ok is False for c in checks) else 0


def _compare(campaign: Campaign, candidate: Candidate, adapter: Path, gguf: bool) -> None:
    found = _here(campaign, candidate)
    campaign.compare(candidate, found.model_dir, found.revision, adapter, gguf)


def _here(campaign: Campaign, candidate: Candidate) -> Ready:
    found = campaign.resolve(candidate)
    if isinstance(found, NotHere):
        raise OperationalError(f"{candidate.name} cannot be compared: {found.reason}; {found.fix}.")
    return found


def _prepare(common: Common) -> tuple[Registry, Settings]:
    registry = load_registry(common.registry)
    suites = load_suites(common.probes or bundled_probes_dir(), common.limit, common.seed)
    settings = Settings(
        output_dir=common.output_dir,
        cache_dir=cache_root(),
        lock_path=registry.lock_path,
        snapshots_dir=registry.snapshots_dir,
        suites=suites,
        policy=load_policy(common.policy),
        seed=common.seed,
        download=common.download,
    )
    return registry, settings


def _candidate(registry: Registry, name: str) -> Candidate:
    """A registry name, or a folder as a candidate with the registry's defaults."""
    return _folder_candidate(Path(name)) if _is_folder(name) else registry.find(name)


def _folder_candidate(path: Path) -> Candidate:
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"There is no folder '{path}'; give a registry name or a model folder.")
    slug = file_stem(folder.name).lower().strip("-._")
    return Candidate(
        name=slug or "model",
        source=LocalSource(path=folder),
        licence="see the model card",
        why="a local folder",
    )


def _is_folder(name: str) -> bool:
    return "/" in name or name.startswith(".") or Path(name).is_dir()


WHERE_AND_HOW = ("--output-dir", "-o", "--format", "-f")
"""Options that change where a report goes and not what it says: left out of it."""


def _command(typed: Sequence[str]) -> str:
    """The command line that gives this report, with absolute paths cut to their last part."""
    words, skip = ["harness"], False
    for word in typed:
        if skip or word.partition("=")[0] in WHERE_AND_HOW:
            skip = not skip and "=" not in word
            continue
        words.append(_without_folders(word))
    return shlex.join(words)


def _without_folders(word: str) -> str:
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{Path(value).name}" if value.startswith(("/", "~")) else word
