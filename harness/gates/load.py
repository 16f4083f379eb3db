"""Does it load in MLX, strictly, and does it produce a token?"""

from __future__ import annotations

import numpy as np

from harness.errors import ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.records import Finding, Observation, Question

PROMPT = Question(id="load", messages=(("user", "Hello!"),), max_tokens=1)


def observe(context: GateContext, tools: Tools) -> Observation:
    """Strict load, parameter count, one forward pass, one token."""
    try:
        engine = tools.engine(context.subject)
    except ModelError as error:
        finding = Finding(severity="fail", message=str(error), fix="choose another base model")
        return Observation(gate="load", findings=(finding,))
    facts = engine.facts()
    logits = engine.logits(engine.tokenize(engine.render(PROMPT)))
    token = engine.ask([PROMPT])[0]
    findings = []
    if not facts["has_chat_template"]:
        findings.append(
            Finding(
                severity="warn",
                message="it has no chat template, so it was asked as a plain text completion",
                fix="choose the instruct version of this model",
            )
        )
    return Observation(
        gate="load",
        numbers={
            "parameters": facts["parameters"],
            "weights_gb": facts["weights_gb"],
            "dtype": facts["dtype"],
            "forward_ok": bool(np.isfinite(logits).all()),
            "token_ok": token.completion_tokens == 1,
            "first_token": token.text,
        },
        findings=tuple(findings),
    )


GATE = Gate("load", observe, asked=lambda _: {})
