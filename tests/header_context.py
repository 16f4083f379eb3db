"""What the gates on headers are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.gates.context import GateContext, Tools
from harness.machine import cache_root
from harness.records import HeaderFacts, Known, Standing, Subject
from harness.registry import TrainingSettings


def no_tools() -> Tools:
    def fail(*_: object) -> Any:
        raise AssertionError("the gate needs no engine and no answers")

    return Tools(engine=fail, transcript=fail)


def facts(tokenizer: Standing = "missing", **changes: Any) -> HeaderFacts:
    """What is known of a folder: everything but the tokenizer, unless said otherwise."""
    read = Known(standing="read", source="a test")
    parts = dict.fromkeys(("config", "tensors", "weights"), read)
    parts["tokenizer"] = Known(standing=tokenizer, source="a test", note=changes.pop("note", ""))
    return HeaderFacts(
        **{"origin": "folder", "parts": parts, "weight_format": "safetensors", **changes}
    )


def context(folder: Path, work: Path, known: HeaderFacts | None) -> GateContext:
    return GateContext(
        subject=Subject(label="tiny", engine="mlx", model=folder, fingerprint={}),
        budget_gb=12.7,
        budget_low_gb=11.5,
        facts=known,
        context_tokens=128,
        training=TrainingSettings(),
        suites=(),
        evidence_dir=work,
        work_dir=work / "work",
        cache_dir=cache_root(),
        seed=0,
    )
