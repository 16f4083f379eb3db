"""Two transcripts → what the adapter does that its base did not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from harness.diagnosis.stock import Pair, Reply, Stock, find_stock, read
from harness.diagnosis.words import CAUSES, sentence
from harness.forgetting import mcnemar_p
from harness.records import Answered, Symptom, SymptomExample, SymptomKind

ALPHA = 0.01
"""p from which a symptom is no accident (exact McNemar over replies that got it or lost it)."""
LEAST_SHARE = 0.05
"""Share of a group's replies that must show it newly, on balance."""
EXAMPLES = 3
EXAMPLE_CHARS = 100

_MILD = frozenset({SymptomKind.RUNAWAY, SymptomKind.LECTURE, SymptomKind.WRONG_ANSWER})
"""Named after the others however frequent, since those say more about the cause."""

_OF_FORM = frozenset(SymptomKind) - {SymptomKind.RUNAWAY, SymptomKind.WRONG_ANSWER}
"""What explains by itself why an answer is wrong."""


ProbeKey: TypeAlias = tuple[str, str, str]
Copied: TypeAlias = dict[ProbeKey, tuple[float, float]]
"""Probe → share of the reply that is copied from the training data, before and after, 0–1."""


class Spread(NamedTuple):
    """One symptom in one group of probes that share a grader."""

    group: str
    pairs: Sequence[Pair]
    before: frozenset[int]
    """Indices of `pairs` whose reply before shows it."""
    after: frozenset[int]
    new: frozenset[int]
    """Those that count against the adapter …"""
    cured: frozenset[int]
    """… and those that count for it."""

    @property
    def is_damage(self) -> bool:
        """True where it is more than noise and more than a handful."""
        net = len(self.new) - len(self.cured)
        return (
            net > 0
            and net >= LEAST_SHARE * len(self.pairs)
            and mcnemar_p(len(self.new), len(self.cured)) <= ALPHA
        )


def probe_key(answered: Answered) -> ProbeKey:
    """What tells a probe from those of all suites; ids are unique within a suite only."""
    probe = answered.probe
    return probe.grader, probe.id, probe.prompt


def diagnose(
    before: Sequence[Answered], after: Sequence[Answered], copied: Copied | None = None
) -> tuple[Symptom, ...]:
    """What kind of damage the second subject shows against the first, the worst first.

    Takes the answers of all suites, in any order; probes that only one of them answered are left
    out. A symptom is reported where, among the probes of one grader, significantly more replies
    show it than before; its numbers are those of these probes. Style bleed shows in phrases that
    are the same everywhere and, where `copied` says how much of each reply before and after stands
    in the training data, also in that.
    """
    groups = _grouped(before, after, copied or {})
    stock = find_stock(groups)
    found = []
    for kind in SymptomKind:
        spreads = [_spread(kind, name, pairs, stock) for name, pairs in groups.items()]
        damaged = [spread for spread in spreads if spread.is_damage]
        if damaged:
            new = sum(len(spread.new) for spread in damaged)
            found.append(((kind in _MILD, -new), _symptom(kind, damaged, stock)))
    # The sort is stable: among equals, the order of SymptomKind decides.
    return tuple(symptom for _, symptom in sorted(found, key=lambda entry: entry[0]))


def _grouped(
    before: Sequence[Answered], after: Sequence[Answered], copied: Copied
) -> dict[str, list[Pair]]:
    """Pairs by grader, in the order of their probes."""
    first = {probe_key(answered): answered for answered in before}
    groups: dict[str, list[Pair]] = defaultdict(list)
    for new in sorted(after, key=probe_key):
        old = first.get(probe_key(new))
        if old is not None:
            shares = copied.get(probe_key(new), (0.0, 0.0))
            groups[new.probe.grader].append(Pair(read(old, shares[0]), read(new, shares[1])))
    return dict(groups)


def _spread(kind: SymptomKind, group: str, pairs: Sequence[Pair], stock: Stock) -> Spread:
    if kind is SymptomKind.WRONG_ANSWER:
        return _lost_answers(group, pairs, stock)
    before = frozenset(i for i, pair in enumerate(pairs) if _shows(kind, pair.before, stock))
    after = frozenset(i for i, pair in enumerate(pairs) if _shows(kind, pair.after, stock))
    return Spread(group, pairs, before, after, after - before, before - after)


def _shows(kind: SymptomKind, reply: Reply, stock: Stock) -> bool:
    match kind:
        case SymptomKind.STYLE_BLEED:
            return stock.shown_by(reply)
        case SymptomKind.LECTURE:  # that it says so everywhere is the better explanation
            return kind in reply.symptoms and not stock.shown_by(reply)
        case _:
            return kind in reply.symptoms


def _lost_answers(group: str, pairs: Sequence[Pair], stock: Stock) -> Spread:
    """Right before, wrong after, and no symptom of form that would explain it."""
    gained = frozenset(i for i, p in enumerate(pairs) if p.after.right and not p.before.right)
    lost = frozenset(
        i
        for i, (before, after) in enumerate(pairs)
        if before.right
        and not after.right
        and not _OF_FORM & after.symptoms
        and not stock.shown_by(after)
    )
    return Spread(group, pairs, frozenset(), lost, lost, gained)


def _symptom(kind: SymptomKind, damaged: Sequence[Spread], stock: Stock) -> Symptom:
    count = sum(len(spread.after) for spread in damaged)
    where = [(s.group, len(s.after), len(s.pairs), len(s.before)) for s in damaged]
    bleeds = kind is SymptomKind.STYLE_BLEED
    quoted = stock.quote(s.group for s in damaged) if bleeds else None
    training = _mean_copied(damaged) if bleeds else None
    return Symptom(
        kind=kind,
        count=count,
        share=count / sum(len(spread.pairs) for spread in damaged),
        before=sum(len(spread.before) for spread in damaged),
        examples=_examples(damaged),
        sentence=sentence(kind, where, quoted, training),
        cause=CAUSES[kind],
    )


def _mean_copied(damaged: Sequence[Spread]) -> tuple[float, float] | None:
    """Mean share copied before and after; None where nothing is, or the data is not known."""
    pairs = [pair for spread in damaged for pair in spread.pairs]
    before = sum(pair.before.copied for pair in pairs) / len(pairs)
    after = sum(pair.after.copied for pair in pairs) / len(pairs)
    return (before, after) if after > before else None


def _examples(damaged: Sequence[Spread]) -> tuple[SymptomExample, ...]:
    """A few of the new ones, the groups taking turns."""
    queues = [[spread.pairs[i].after.answered for i in sorted(spread.new)] for spread in damaged]
    longest = max(len(queue) for queue in queues)
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return tuple(
        SymptomExample(probe=a.probe.id, response=_shortened(a.response.text))
        for a in turns[:EXAMPLES]
    )


def _shortened(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARS else text[: EXAMPLE_CHARS - 1] + "…"
