"""A comparison with scripted models: all of a run but the model, at the speed of a script.

    python scripted_run.py WORKDIR OUTPUT_DIR

WORKDIR holds base.json, adapter/scripted.json and probes/. Everything that stores, resumes and
reports is the harness's own, worker process included.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.campaign import Campaign, Settings
from harness.policy import load_policy
from harness.probes import load_suites
from harness.progress import Steps
from harness.records import Report, Subject
from harness.report import write_report
from harness.runs import StoredComparison


def subjects(work: Path) -> tuple[Subject, Subject]:
    """The base and the tuned one."""
    model, adapter = work / "base.json", work / "adapter"
    base = Subject(label="base", engine="scripted", model=model, fingerprint={"weights": "b"})
    tuned = Subject(
        label="base + adapter",
        engine="scripted",
        model=model,
        adapter=adapter,
        fingerprint={"weights": "b", "adapter": "a"},
    )
    return base, tuned


def compare(work: Path, output_dir: Path) -> Report:
    """Both subjects on all probes, stored, judged and reported."""
    settings = Settings(
        output_dir=output_dir,
        cache_dir=work / "cache",
        lock_path=work / "registry.lock",
        snapshots_dir=work / "snapshots",
        suites=load_suites(work / "probes"),
        policy=load_policy(),
    )
    base, tuned = subjects(work)
    with Steps() as steps, Campaign(settings, steps) as campaign:
        suites = campaign._transcribe(base, tuned)
        campaign._comparisons.append(
            StoredComparison(base=base.label, subject=tuned.label, suites=suites)
        )
        report = campaign.finish("harness compare base", "compare")[1]
    write_report(report, output_dir)
    return report


if __name__ == "__main__":
    compare(Path(sys.argv[1]), Path(sys.argv[2]))
