"""Stock phrases: text that an adapter says whatever it is asked.

Without its training data, over-fitted style shows as the same words in answers to unrelated
prompts. So do good manners ("How can I help you today?"). A phrase is therefore stock only where
many answers carry it, to prompts with nothing in common, the base hardly uses it, and it costs
right answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.diagnosis.symptoms import content_words, symptoms_of
from harness.forgetting import mcnemar_p
from harness.grading import degenerate
from harness.records import Answered, Outcome, SymptomKind

GRAM = 5
"""Words of a phrase. Shorter runs ("is the most common") are shared by honest answers."""
CARRIED_SHARE = 0.10
"""Share of a group's answers that must carry a phrase …"""
MARKER_SHARE = 0.80
"""… or a single telling word, such as "Impression", since words are shared sooner."""
UNRELATED = 4
"""Answered prompts, no two with a meaningful word in common, that must carry a phrase."""
RARE_BEFORE = 4
"""How many times as often as in the base's answers."""
ALPHA = 0.05
"""p of the losses among the answers that carry it (exact McNemar)."""
COPIED = 0.25
"""Share of a reply's phrases from examples on other topics; the embedded base reaches 0.00."""
LONGEST_UNIT = 12
"""Words of the longest repeated unit that counts once."""
WHOLE = " ."
"""Ends a feature that is a whole answer: "Yes." is one, "yes" within an answer is none."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_EXPLAINED = frozenset({SymptomKind.EMPTY, SymptomKind.WRONG_LANGUAGE, SymptomKind.REFUSAL})
"""Symptoms that already say why an answer is the same everywhere."""


class Reply(NamedTuple):
    """One answer, looked at once."""

    answered: Answered
    symptoms: frozenset[SymptomKind]
    features: frozenset[str]
    """What it may share with other answers; see `features_of`."""
    copied: float
    """Share that stands in the training data, 0–1; 0 where that is not known."""

    @property
    def right(self) -> bool:
        return self.answered.grade.outcome is Outcome.RIGHT


class Pair(NamedTuple):
    """One probe's two answers."""

    before: Reply
    after: Reply


class Stock(NamedTuple):
    """Stock phrases by group of probes, the most frequent first."""

    phrases: dict[str, tuple[str, ...]]

    def shown_by(self, reply: Reply) -> bool:
        """True where the answer carries a stock phrase of its group, or, if it is not right, one
        of another group or much of the training data.
        """
        own = self.phrases.get(reply.answered.probe.grader, ())
        if not reply.features.isdisjoint(own):
            return True
        return not reply.right and (
            reply.copied >= COPIED
            or any(not reply.features.isdisjoint(p) for p in self.phrases.values())
        )

    def quote(self, groups: Iterable[str]) -> str | None:
        """The most frequent phrase of the first of `groups` that has any; phrases before words."""
        for group in groups:
            phrases = self.phrases.get(group, ())
            if phrases:
                return max(phrases, key=lambda p: " " in p).removesuffix(WHOLE)
        return None


def read(answered: Answered, copied: float) -> Reply:
    """The answer with all that is looked for in it."""
    symptoms = frozenset(symptoms_of(answered))
    # Every refusal says the same, and so does every silence: that is not style.
    if _EXPLAINED & symptoms:
        return Reply(answered, symptoms, frozenset(), 0.0)
    return Reply(answered, symptoms, features_of(answered), copied)


def find_stock(groups: dict[str, list[Pair]]) -> Stock:
    """The stock phrases of each group of paired answers."""
    return Stock({name: _stock_of(pairs) for name, pairs in groups.items()})


def features_of(answered: Answered) -> frozenset[str]:
    """What an answer may share with others: runs of five words that its prompt does not hold, all
    of a shorter answer, and single words with a meaning. A loop counts once, and what follows a
    leaked turn label does not count.
    """
    text = degenerate.first_turn(answered.response.text)
    words, asked = collapsed(words_of(text)), words_of(answered.probe.prompt)
    runs = set(runs_of(words)) - set(runs_of(asked))
    if degenerate.loop(text) is not None:
        return frozenset(runs)
    if 0 < len(words) < GRAM and words != asked:
        runs.add(" ".join(words) + WHOLE)
    return frozenset(runs) | (content_words(text) - content_words(answered.probe.prompt))


def _stock_of(pairs: Sequence[Pair]) -> tuple[str, ...]:
    carriers: dict[str, list[Pair]] = defaultdict(list)
    before: dict[str, int] = defaultdict(int)
    for pair in pairs:
        for feature in pair.after.features:
            carriers[feature].append(pair)
        for feature in pair.before.features:
            before[feature] += 1
    stock = [
        (-len(found), -_opens(feature, found), feature)
        for feature, found in carriers.items()
        if len(found) >= max(UNRELATED, _least_share(feature) * len(pairs))
        and len(found) >= RARE_BEFORE * before[feature]
        and _costs(found)
        and _unrelated(found)
    ]
    return tuple(feature for *_, feature in sorted(stock))


def _least_share(feature: str) -> float:
    return CARRIED_SHARE if " " in feature else MARKER_SHARE


def _opens(feature: str, found: Sequence[Pair]) -> int:
    """How many of the answers begin with it: what opens them is quoted best."""
    return sum(
        " ".join(words_of(pair.after.answered.response.text)).startswith(feature) for pair in found
    )


def _costs(found: Sequence[Pair]) -> bool:
    lost = sum(pair.before.right and not pair.after.right for pair in found)
    gained = sum(pair.after.right and not pair.before.right for pair in found)
    return mcnemar_p(lost, gained) <= ALPHA


def _unrelated(found: Sequence[Pair]) -> bool:
    """True where enough of the prompts have no meaningful word in common."""
    seen: set[str] = set()
    count = 0
    prompts = {pair.after.answered.probe.prompt for pair in found}
    # Short prompts first: they rule out the fewest others.
    for words in sorted((content_words(p) for p in prompts), key=lambda w: (len(w), sorted(w))):
        if seen.isdisjoint(words):
            seen |= words
            count += 1
    return count >= UNRELATED


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.replace("’", "'").casefold())


def runs_of(words: Sequence[str]) -> Iterable[str]:
    return (" ".join(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1))


def collapsed(words: list[str]) -> list[str]:
    """The words with every immediate repetition of a unit said once."""
    for size in range(1, LONGEST_UNIT + 1):
        kept: list[str] = []
        for word in words:
            kept.append(word)
            if kept[-size:] == kept[-2 * size : -size]:
                del kept[-size:]
        words = kept
    return words
