"""Does it become a GGUF file that llama.cpp runs as the same model?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.checkpoints.chat_template import find_template
from harness.checkpoints.converter import convert, read_gguf_metadata
from harness.checkpoints.folder import check_model_folder
from harness.checkpoints.gguf_sizes import natural_outtype
from harness.checkpoints.tokenizer_texts import all_texts
from harness.engines import open_engine
from harness.engines.protocol import Engine
from harness.errors import ConversionError, ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.grading import GRADER_VERSION, grade
from harness.parity import Parity, parity
from harness.records import Finding, Observation, Outcome, Question, Scalar
from harness.transcripts import ASKED, question_of

TALK = 10
"""Greetings that the GGUF must answer: a file can have good logits on a prompt and a bad end."""

PARITY_TEXTS = (
    "The heart pumps blood through the arteries, and the veins bring it back.",
    "Insulin is made by the beta cells of the pancreas; glucagon by the alpha cells.",
    "In 1928 a mould in a forgotten dish killed the bacteria around it. It was penicillin.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Water boils at 100 °C (212 °F) at sea level, and at about 93 °C at 2,000 metres.",
    "Dear Sir or Madam,\n\nI write to ask whether my order of 12 May has been sent.\n",
)


def observe(context: GateContext, tools: Tools) -> Observation:
    """Convert, open, and compare the file with the model it came from."""
    subject = context.subject
    source = subject.model
    if subject.adapter is not None:
        from harness.engines.mlx_training import fuse_adapter

        source = fuse_adapter(subject.model, subject.adapter, context.work_dir / "fused")
    outtype = natural_outtype(check_model_folder(subject.model).dtypes)
    file = context.work_dir / "model.gguf"
    try:
        info = convert(source, file, outtype, cache_dir=context.cache_dir)
    except ConversionError as error:
        if error.machine:
            raise
        message = str(error) + (f" [{error.tensor}]" if error.tensor else "")
        return _failed(message, error.fix)
    try:
        converted = open_engine("llamacpp", file)
    except ModelError as error:
        return _failed(str(error), "choose another base, or a newer llama.cpp")
    original = tools.engine(subject)
    numbers: dict[str, Scalar] = {"file_gb": round(info.size_bytes / 1e9, 3), "outtype": outtype}
    numbers |= _same_text(original, converted, source, file)
    compared = compare_logits(original, converted)
    if not np.isfinite(compared.mean_kl_nats):
        return _failed(
            "its logits are not numbers, which is what diverged training leaves",
            "train again with a lower learning rate or scale",
        )
    numbers |= {"texts": len(PARITY_TEXTS), **_rounded(compared)}
    numbers |= _talk(converted, context)
    converted.close()
    notes = tuple(Finding(severity="note", message=w) for w in info.warnings)
    return Observation(gate="gguf", numbers=numbers, findings=notes)


def compare_logits(original: Engine, converted: Engine) -> Parity:
    """KL(original‖converted) per token in nats, and agreement of the likeliest next token."""
    ids = [original.tokenize(text) for text in PARITY_TEXTS]
    return parity([original.logits(i) for i in ids], [converted.logits(i) for i in ids])


def _same_text(original: Engine, converted: Engine, source: Path, file: Path) -> dict[str, Scalar]:
    hello = Question(id="template", messages=(("user", "Hello! Who are you?"),), max_tokens=1)
    texts = (*all_texts(), original.render(hello))
    equal = sum(original.tokenize(t) == converted.tokenize(t) for t in texts)
    stored = read_gguf_metadata(file).get("tokenizer.chat_template")
    template = find_template(source)
    same_template = stored == template and original.render(hello) == converted.render(hello)
    return {
        "tokenizer_texts": len(texts),
        "tokenizer_equal": equal,
        "template_equal": bool(same_template),
    }


def _talk(converted: Engine, context: GateContext) -> dict[str, Scalar]:
    greetings = [p for s in context.suites for p in s.probes if p.grader == "greeting"]
    step = max(1, len(greetings) // TALK)
    chosen = greetings[::step][:TALK]
    replies = converted.ask([question_of(p) for p in chosen])
    right = sum(
        grade(p, r.text).outcome is Outcome.RIGHT for p, r in zip(chosen, replies, strict=True)
    )
    return {"talk_right": right, "talk_n": len(chosen)}


def _failed(message: str, fix: str | None) -> Observation:
    finding = Finding(severity="fail", message=message, fix=fix)
    return Observation(gate="gguf", findings=(finding,))


def _rounded(compared: Parity) -> dict[str, Scalar]:
    return {
        k: v if isinstance(v, int) else float(f"{v:.3g}") for k, v in compared._asdict().items()
    }


def asked(context: GateContext) -> dict[str, Any]:
    """Which greetings the file is asked."""
    return {
        **ASKED,
        "grader": GRADER_VERSION,
        "suites": {s.name: s.sha256 for s in context.suites},
        "talk": TALK,
    }


GATE = Gate("gguf", observe, asked, own_process=True, version=2)
