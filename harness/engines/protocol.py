"""What every engine offers. Gates and transcripts know only this."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.records import Question, Response

Logits = NDArray[np.float32]
"""Next-token logits, shape [tokens, vocabulary]."""

PLAIN_PROMPT = "Question: {question}\nAnswer:"
"""For base models without a chat template, the same in every engine."""

PROMPT_DATE = datetime(2025, 1, 1)
"""What chat templates that print today's date are told: before and after, and a run resumed
after midnight, must be asked the same."""


def strftime_now(pattern: str) -> str:
    """The function chat templates call for the date."""
    return PROMPT_DATE.strftime(pattern)


class Engine(Protocol):
    """A loaded model that can be asked and read."""

    name: str

    def ask(self, questions: Sequence[Question]) -> list[Response]:
        """Answer one batch greedily and score its options; same order as asked.

        The same batch on the same machine gives the same responses: batches, not single
        questions, are the unit that is stored and repeated.
        """

    def use_adapter(self, adapter_dir: Path | None) -> None:
        """Swap in an adapter, or with None return to the base, without reloading the weights.

        Raises:
            AdapterError: the adapter does not fit this model.
        """

    def render(self, question: Question) -> str:
        """The prompt text as the chat template writes it, up to the assistant's turn."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens recognised, none added."""

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """Logits after each of the given tokens, float32 [len(token_ids), vocabulary]."""

    def facts(self) -> dict[str, Any]:
        """What was loaded: dtype, parameters and the like; numbers and short strings only."""

    def close(self) -> None:
        """Free the model."""
