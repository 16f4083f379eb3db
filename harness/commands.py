"""What each command does, free of argument parsing and printing."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.campaign import Campaign, Settings
from harness.checkpoints.adapters import check_adapter
from harness.errors import OperationalError, UsageError
from harness.machine import cache_root
from harness.policy import load_policy
from harness.probes import bundled_probes_dir, load_suites
from harness.progress import Steps
from harness.records import Report
from harness.registry import Candidate, LocalSource, Registry, load_registry
from harness.runs import judge_run, load_run
from harness.sources import NotHere, Ready
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


def run_vet(common: Common, names: Sequence[str], typed: Sequence[str]) -> Report:
    """Vet the named candidates, or all."""
    registry, settings = _prepare(common)
    candidates = [_candidate(registry, n) for n in names] or list(registry.candidates)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        for name, candidate in zip(names, candidates, strict=False):
            if _is_folder(name):
                # A folder named by hand that is broken is an error, not a finding.
                campaign.subject(candidate.name, Path(name), None, None)
        for candidate in candidates:
            campaign.vet(candidate, alone=len(candidates) == 1)
        return campaign.finish(_command(typed), "vet")[1]


def run_compare(
    common: Common, base: str, adapters: Sequence[Path], gguf: bool, typed: Sequence[str]
) -> Report:
    """Compare each adapter with its base."""
    registry, settings = _prepare(common)
    candidate = _candidate(registry, base)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        model_dir = _here(campaign, candidate).model_dir
        for adapter in adapters:  # all of them before the first is asked for hours
            check_adapter(adapter, model_dir)
        for adapter in adapters:
            _compare(campaign, candidate, adapter, gguf)
        return campaign.finish(_command(typed), "compare")[1]


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
        suites=suites,
        policy=load_policy(common.policy),
        seed=common.seed,
        download=common.download,
    )
    return registry, settings


def _candidate(registry: Registry, name: str) -> Candidate:
    """A registry name, or a folder as a candidate with the registry's defaults."""
    if not _is_folder(name):
        return registry.find(name)
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise UsageError(f"There is no folder '{name}'; give a registry name or a model folder.")
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
