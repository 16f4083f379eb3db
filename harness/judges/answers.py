"""The gates that ask: greetings and facts."""

from __future__ import annotations

from pydantic import model_validator

from harness.forgetting import wilson_ci
from harness.judges.common import Count, Judged, Numbers, Problem, Share, beyond, percent
from harness.policy import GatePolicy, GreetingsPolicy
from harness.records import Scalar, Status


class AnswerNumbers(Numbers):
    """Numbers of the greetings gate."""

    n: Count
    right: Count
    wrong: Count
    no_answer: Count

    @model_validator(mode="after")
    def _adds_up(self) -> AnswerNumbers:
        if self.right + self.wrong + self.no_answer != self.n:
            raise ValueError("right, wrong and no_answer do not add up to n")
        return self


class FactNumbers(AnswerNumbers):
    """Numbers of the facts gate; the shares are None where nothing was scored."""

    n_scored: Count
    choice_right: Count
    choice_share: Share | None
    chance_share: Share | None


def judge_greetings(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen = AnswerNumbers.model_validate(numbers)
    problem = _too_few_right(
        seen, policy.greetings, "greetings", "choose the instruct version, or another base"
    )
    return Judged(_answered(seen, "greetings"), [problem] if problem else [])


def judge_facts(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen, limits = FactNumbers.model_validate(numbers), policy.facts
    fix = "choose a larger or a medical base: fine-tuning on style does not add these facts"
    problem = _too_few_right(seen, limits, "questions", fix)
    problems = [problem] if problem else []
    summary = _answered(seen, "questions")
    if seen.choice_share is None or seen.chance_share is None:
        return Judged(f"{summary}; no options were scored", problems)
    above = seen.choice_share - seen.chance_share
    choices = (
        f"the right option is the likeliest on {percent(seen.choice_share)} of {seen.n_scored} "
        f"questions, {percent(seen.chance_share)} by chance"
    )
    if above < limits.choice_warn and seen.n_scored >= limits.min_n:
        fails = above < limits.choice_fail
        limit = limits.choice_fail if fails else limits.choice_warn
        text = f"among given options it is less than {percent(limit)} above chance"
        problems.append(Problem(Status.FAIL if fails else Status.WARN, text, fix))
    return Judged(f"{summary}; {choices}", problems)


def _too_few_right(
    seen: AnswerNumbers, limits: GreetingsPolicy, what: str, fix: str
) -> Problem | None:
    """A share that is too low; of few probes only where chance cannot explain it."""
    share = seen.right / seen.n if seen.n else 0.0
    if seen.n < limits.min_n and wilson_ci(seen.right, seen.n)[1] >= limits.fail_share:
        text = f"{seen.n} {what} are too few to judge by, {limits.min_n} are needed"
        return Problem(Status.INCONCLUSIVE, text, "ask more of them (a higher --limit)")
    return beyond(
        share < limits.fail_share,
        share < limits.warn_share,
        f"only {percent(share)} of the {what} are answered right (WARN below "
        f"{percent(limits.warn_share)}, FAIL below {percent(limits.fail_share)})",
        fix,
    )


def _answered(seen: AnswerNumbers, what: str) -> str:
    return (
        f"{seen.right} of {seen.n} {what} right, {seen.wrong} wrong, {seen.no_answer} without an "
        "answer"
    )
