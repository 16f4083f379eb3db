"""An engine that reads its replies from a JSON file: orchestration is tried without a model.

    {"default": {"text": "Hello!"},
     "replies": {"What is insulin?": {"text": "A hormone.", "logprobs": [-1.0, -4.0]}},
     "delay_s": 0.0}

`replies` is looked up by the last message of a question. An adapter is a folder holding
`scripted.json` of the same form, laid over the model's. Every word counts as one token.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from harness.engines.protocol import PLAIN_PROMPT, Logits
from harness.errors import AdapterError, HarnessError, ModelError
from harness.records import Question, Record, Response

ADAPTER_FILE = "scripted.json"
VOCABULARY = 1024
"""Words are hashed into this many token ids."""


class Reply(Record):
    """What is said to one question."""

    text: str
    logprobs: tuple[float, ...] | None = None
    """Sum log-probability in nats of each option; None: the first option is the likeliest."""


class Script(Record):
    """The file."""

    default: Reply | None = None
    replies: dict[str, Reply] = Field(default_factory=dict)
    delay_s: float = 0.0
    """Seconds that every question takes."""


class ScriptedEngine:
    """A script read from `model`, a JSON file. See `engines.protocol.Engine`."""

    name = "scripted"

    def __init__(self, model: Path) -> None:
        """Read the script.

        Raises:
            ModelError: the file is missing or not a script.
        """
        self._base = self._script = _read(model, ModelError)

    def ask(self, questions: Sequence[Question]) -> list[Response]:
        """See `Engine.ask`. Raises ModelError where the script does not know a question."""
        return [self._answer(q) for q in questions]

    def use_adapter(self, adapter_dir: Path | None) -> None:
        """See `Engine.use_adapter`."""
        self._script = self._base
        if adapter_dir is not None:
            over = _read(adapter_dir / ADAPTER_FILE, AdapterError)
            self._script = Script(
                default=over.default or self._base.default,
                replies={**self._base.replies, **over.replies},
                delay_s=over.delay_s or self._base.delay_s,
            )

    def render(self, question: Question) -> str:
        """See `Engine.render`."""
        return PLAIN_PROMPT.format(question=question.messages[-1][1])

    def tokenize(self, text: str) -> list[int]:
        """See `Engine.tokenize`."""
        return [zlib.crc32(word.encode()) % VOCABULARY for word in text.split()]

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine.logits`: every token is expected to repeat."""
        return np.eye(VOCABULARY, dtype=np.float32)[list(token_ids)]

    def facts(self) -> dict[str, Any]:
        """See `Engine.facts`."""
        return {"parameters": 0, "weights_gb": 0.0, "dtype": "none", "has_chat_template": False}

    def close(self) -> None:
        """See `Engine.close`."""

    def _answer(self, question: Question) -> Response:
        prompt = question.messages[-1][1]
        reply = self._script.replies.get(prompt, self._script.default)
        if reply is None:
            raise ModelError(f"The script has no reply to '{prompt}' and no default; add one.")
        logprobs = reply.logprobs
        if logprobs is None:
            logprobs = tuple(-1.0 - at for at in range(len(question.options)))
        if len(logprobs) != len(question.options):
            raise ModelError(
                f"The script has {len(logprobs)} logprobs for '{prompt}', which has "
                f"{len(question.options)} options; write one for each."
            )
        time.sleep(self._script.delay_s)
        words = reply.text.split(" ")
        cut = len(words) > question.max_tokens
        return Response(
            probe_id=question.id,
            text=" ".join(words[: question.max_tokens]),
            finish="length" if cut else "stop",
            prompt_tokens=len(self.tokenize(self.render(question))),
            completion_tokens=min(len(words), question.max_tokens),
            option_logprobs=logprobs,
            option_tokens=tuple(max(1, len(o.split())) for o in question.options),
        )


def _read(path: Path, error_class: type[HarnessError]) -> Script:
    try:
        return Script.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise error_class(f"The script '{path}' cannot be read ({reason}); mend it.") from error
