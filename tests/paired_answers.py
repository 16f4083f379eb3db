"""Builds transcripts for the tests of statistics and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Answered, Grade, Outcome, Probe, Response

Options = tuple[float, ...]


def answered(
    number: int,
    right: bool | Outcome,
    logprobs: Options = (),
    tokens: tuple[int, ...] | None = None,
) -> Answered:
    """One graded answer to probe `number`; option tokens default to one each."""
    if isinstance(right, bool):
        right = Outcome.RIGHT if right else Outcome.WRONG
    probe = Probe(
        id=f"q{number:04}",
        grader="fact",
        prompt="Which hormone lowers blood sugar?",
        accepted=("insulin",),
        distractors=("glucagon", "cortisol", "adrenaline"),
        category="endocrine",
        source="textbook",
    )
    response = Response(
        probe_id=probe.id,
        text="insulin",
        finish="stop",
        prompt_tokens=9,
        completion_tokens=2,
        option_logprobs=logprobs,
        option_tokens=(1,) * len(logprobs) if tokens is None else tokens,
    )
    return Answered(probe=probe, response=response, grade=Grade(outcome=right, reason="test"))


def transcript(
    outcomes: Sequence[bool | Outcome], options: Sequence[Options] | None = None
) -> tuple[Answered, ...]:
    """Answers to probes 0, 1, 2, …"""
    scored = options if options is not None else [()] * len(outcomes)
    return tuple(
        answered(i, outcome, logprobs)
        for i, (outcome, logprobs) in enumerate(zip(outcomes, scored, strict=True))
    )


def flips(
    kept: int, lost: int, gained: int, still_wrong: int
) -> tuple[tuple[Answered, ...], tuple[Answered, ...]]:
    """Transcripts before and after with these numbers of flips."""
    before = [True] * kept + [True] * lost + [False] * gained + [False] * still_wrong
    after = [True] * kept + [False] * lost + [True] * gained + [False] * still_wrong
    return transcript(before), transcript(after)
