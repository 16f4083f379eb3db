"""How much of a reply stands in the training data, where it has no business.

What an adapter learned for a question may well be said in answer to it. So a run of words counts
as copied only if none of the examples that hold it was about what is asked now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from harness.diagnosis.stock import collapsed, runs_of, words_of
from harness.diagnosis.symptoms import content_words
from harness.grading import degenerate
from harness.records import Answered

Example = tuple[str, str]
"""What was asked, empty where the training text has no such part, and what was said."""


class Copies:
    """The phrases of the training data, ready to be looked up."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._asked: list[frozenset[str]] = []
        self._holders: dict[str, set[int]] = defaultdict(set)
        for number, (asked, said) in enumerate(examples):
            self._asked.append(content_words(asked))
            for phrase in _phrases(said):
                self._holders[phrase].add(number)

    def share(self, answered: Answered) -> float:
        """Share of the reply's phrases, 0–1, that stand in examples about something else.

        Phrases are runs of five words, or the whole of a shorter reply. Those of the prompt and of
        accepted answers are left out; a reply that has no others scores 0.
        """
        probe = answered.probe
        own = {phrase for text in (probe.prompt, *probe.accepted) for phrase in _phrases(text)}
        said = _phrases(degenerate.first_turn(answered.response.text)) - own
        topic = content_words(probe.prompt)
        copied = [
            phrase
            for phrase in said
            if (holders := self._holders.get(phrase))
            and all(topic.isdisjoint(self._asked[number]) for number in holders)
        ]
        return len(copied) / len(said) if said else 0.0


def _phrases(text: str) -> set[str]:
    words = collapsed(words_of(text))
    return set(runs_of(words)) or ({" ".join(words)} if words else set())
