"""What a gate observed → its status, with one sentence of numbers. Pure.

A judge reads the numbers of its gate through a typed record: a number that is missing, of another
type or not finite makes the gate ERROR, never a pass. Thresholds are in `policy.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.forgetting import wilson_ci
from harness.policy import GatePolicy, GgufPolicy, GreetingsPolicy, Policy
from harness.records import GateResult, Observation, Scalar, Status

Count: TypeAlias = Annotated[int, Field(ge=0)]
Amount: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]

_WORST_FIRST = (Status.FAIL, Status.INCONCLUSIVE, Status.WARN)


class Numbers(BaseModel):
    """Base of what the judges read; a gate may record more than its judge needs."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class LoadNumbers(Numbers):
    """Numbers of the load gate."""

    parameters: Count
    weights_gb: Amount
    dtype: str
    forward_ok: bool
    token_ok: bool
    first_token: str


class MemoryNumbers(Numbers):
    """Numbers of the memory gate."""

    budget_gb: Annotated[float, Field(gt=0)]
    load_peak_gb: Amount
    inference_peak_gb: Amount
    train_peak_gb: Amount
    context_tokens: Count
    train_tokens: Count
    train_batch: Count
    lora_layers: int
    """-1 is MLX's way of saying all layers."""
    rank: Count
    trainable_parameters: Count
    dtype: str


class GgufNumbers(Numbers):
    """Numbers of the gguf gate."""

    file_gb: Amount
    outtype: str
    tokenizer_texts: Count
    tokenizer_equal: Count
    template_equal: bool
    texts: Count
    tokens: Count
    mean_kl_nats: float
    max_kl_nats: float
    top1_agreement: Share
    max_logit_difference: Amount
    talk_right: Count
    talk_n: Count


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


class Problem(NamedTuple):
    """Something that keeps a gate from passing."""

    status: Status
    text: str
    fix: str | None = None


class Judged(NamedTuple):
    """One clause with the numbers, and what is wrong with them."""

    summary: str
    problems: list[Problem]


def judge_gate(observation: Observation, policy: Policy) -> GateResult:
    """Status, reason and fix of one gate.

    A crash is ERROR (the traceback's last line is the reason), a gate that could not run is
    NOT_RUN, a finding of severity "fail" is FAIL and one of "warn" at least WARN; notes change
    nothing. Numbers that are missing or unusable, and a gate without a judge, are ERROR.
    """
    gate, numbers = observation.gate, observation.numbers
    if observation.error is not None:
        lines = [line.strip() for line in observation.error.splitlines() if line.strip()]
        reason = lines[-1] if lines else "it broke without a message"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    if observation.not_run is not None:
        return GateResult(gate=gate, status=Status.NOT_RUN, reason=observation.not_run)
    fails = [finding for finding in observation.findings if finding.severity == "fail"]
    if fails:
        # A gate that failed early has no numbers; those it has are shown, not judged.
        more = f" (and {len(fails) - 1} more)" if len(fails) > 1 else ""
        return GateResult(
            gate=gate,
            status=Status.FAIL,
            reason=fails[0].message + more,
            fix=fails[0].fix,
            numbers=numbers,
        )
    try:
        judged = _judge(gate, numbers, policy.gates)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"the evidence cannot be judged: {f'{key}: ' if key else ''}{first['msg'].lower()}"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    if judged is None:
        reason = f"nothing judges a gate named '{gate}'; add it to harness/gate_verdict.py"
        return GateResult(gate=gate, status=Status.ERROR, reason=reason, numbers=numbers)
    warnings = [
        Problem(Status.WARN, finding.message, finding.fix)
        for finding in observation.findings
        if finding.severity == "warn"
    ]
    return _result(gate, numbers, judged.summary, [*judged.problems, *warnings])


def _result(
    gate: str, numbers: dict[str, Scalar], summary: str, problems: list[Problem]
) -> GateResult:
    problems = sorted(problems, key=lambda problem: _WORST_FIRST.index(problem.status))
    return GateResult(
        gate=gate,
        status=problems[0].status if problems else Status.PASS,
        reason="; ".join([*(problem.text for problem in problems), summary]),
        fix=next((problem.fix for problem in problems if problem.fix is not None), None),
        numbers=numbers,
    )


def _judge(gate: str, numbers: dict[str, Scalar], policy: GatePolicy) -> Judged | None:
    judge = _JUDGES.get(gate)
    return None if judge is None else judge(numbers, policy)


def _judge_load(numbers: dict[str, Scalar], _: GatePolicy) -> Judged:
    load = LoadNumbers.model_validate(numbers)
    problems = []
    if not load.forward_ok:
        problems.append(
            Problem(
                Status.FAIL,
                "the forward pass gives numbers that are not finite",
                "load it in float32 or bfloat16, or choose another checkpoint",
            )
        )
    if not load.token_ok:
        problems.append(
            Problem(Status.FAIL, "it ends its answer before the first token", "choose another base")
        )
    return Judged(
        f"{_millions(load.parameters)} parameters ({load.weights_gb:.2f} GB, {load.dtype}), first "
        f"token {load.first_token!r}",
        problems,
    )


def _judge_memory(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen, limits = MemoryNumbers.model_validate(numbers), policy.memory
    peaks = {
        "training": seen.train_peak_gb,
        "inference": seen.inference_peak_gb,
        "loading": seen.load_peak_gb,
    }
    worst = max(peaks, key=lambda stage: peaks[stage])
    share = peaks[worst] / seen.budget_gb
    problems = []
    if share > limits.warn_share:
        fails = share > limits.fail_share
        limit = limits.fail_share if fails else limits.warn_share
        problems.append(
            Problem(
                Status.FAIL if fails else Status.WARN,
                f"{worst} needs {_percent(share)} of the memory budget, limit {_percent(limit)}",
                "train on shorter examples, with a smaller batch, on fewer layers or with gradient "
                "checkpointing"
                if worst == "training"
                else "choose a smaller base or a quantised one",
            )
        )
    layers = "all" if seen.lora_layers < 0 else str(seen.lora_layers)
    return Judged(
        f"peaks of {seen.load_peak_gb:.2f} GB loading, {seen.inference_peak_gb:.2f} GB answering "
        f"at {seen.context_tokens} tokens and {seen.train_peak_gb:.2f} GB training (batch of "
        f"{seen.train_batch}, {seen.train_tokens} tokens, {layers} layers, rank {seen.rank}, "
        f"{seen.dtype}) within {seen.budget_gb:.2f} GB",
        problems,
    )


def _judge_gguf(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen = GgufNumbers.model_validate(numbers)
    summary = (
        f"{seen.outtype} file of {seen.file_gb:.2f} GB, KL {seen.mean_kl_nats:.2g} nats/token and "
        f"the same first choice on {_percent(seen.top1_agreement)} of {seen.tokens} tokens, "
        f"{seen.talk_right} of {seen.talk_n} greetings answered"
    )
    if 0 in (seen.tokenizer_texts, seen.tokens, seen.talk_n):
        text = "the file was opened but not fully compared: no texts, tokens or greetings"
        return Judged(summary, [Problem(Status.INCONCLUSIVE, text)])
    checks = [*_logit_checks(seen, policy.gguf), *_text_checks(seen, policy.gguf)]
    return Judged(summary, [problem for problem in checks if problem is not None])


def _logit_checks(seen: GgufNumbers, limits: GgufPolicy) -> list[Problem | None]:
    fix = "convert again with the converter and llama.cpp of one release"
    return [
        _beyond(
            seen.mean_kl_nats > limits.kl_fail_nats,
            seen.mean_kl_nats > limits.kl_warn_nats,
            f"mean KL to the original is {seen.mean_kl_nats:.2g} nats/token (WARN above "
            f"{limits.kl_warn_nats}, FAIL above {limits.kl_fail_nats})",
            fix,
        ),
        _beyond(
            seen.top1_agreement < limits.top1_fail,
            seen.top1_agreement < limits.top1_warn,
            f"its first choice agrees with the original's on {_percent(seen.top1_agreement)} of "
            f"tokens (WARN below {_percent(limits.top1_warn)}, FAIL below "
            f"{_percent(limits.top1_fail)})",
            fix,
        ),
    ]


def _text_checks(seen: GgufNumbers, limits: GgufPolicy) -> list[Problem | None]:
    tokenised = seen.tokenizer_equal / seen.tokenizer_texts
    return [
        _beyond(
            tokenised < limits.tokenizer_fail,
            tokenised < limits.tokenizer_warn,
            f"{seen.tokenizer_equal} of {seen.tokenizer_texts} texts are tokenised as by the "
            f"original (WARN below {_percent(limits.tokenizer_warn)}, FAIL below "
            f"{_percent(limits.tokenizer_fail)})",
            "put back the tokenizer files of the original base, then convert again",
        ),
        _beyond(
            seen.talk_right / seen.talk_n < limits.talk_fail,
            False,
            f"the file talks nonsense: it answers {seen.talk_right} of {seen.talk_n} greetings "
            f"(FAIL below {_percent(limits.talk_fail)})",
            "keep bf16 (--outtype bf16) and ask the original the same greetings",
        ),
        _beyond(
            False,
            not seen.template_equal,
            "its chat template is not the original's",
            "put back chat_template.jinja or tokenizer_config.json of the base, then convert again",
        ),
    ]


def _beyond(fails: bool, warns: bool, text: str, fix: str) -> Problem | None:
    if not fails and not warns:
        return None
    return Problem(Status.FAIL if fails else Status.WARN, text, fix)


def _judge_greetings(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen = AnswerNumbers.model_validate(numbers)
    problem = _too_few_right(
        seen, policy.greetings, "greetings", "choose the instruct version, or another base"
    )
    return Judged(_answered(seen, "greetings"), [problem] if problem else [])


def _judge_facts(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen, limits = FactNumbers.model_validate(numbers), policy.facts
    fix = "choose a larger or a medical base: fine-tuning on style does not add these facts"
    problem = _too_few_right(seen, limits, "questions", fix)
    problems = [problem] if problem else []
    summary = _answered(seen, "questions")
    if seen.choice_share is None or seen.chance_share is None:
        return Judged(f"{summary}; no options were scored", problems)
    above = seen.choice_share - seen.chance_share
    choices = (
        f"the right option is the likeliest on {_percent(seen.choice_share)} of {seen.n_scored} "
        f"questions, {_percent(seen.chance_share)} by chance"
    )
    if above < limits.choice_warn and seen.n_scored >= limits.min_n:
        fails = above < limits.choice_fail
        limit = limits.choice_fail if fails else limits.choice_warn
        text = f"among given options it is less than {_percent(limit)} above chance"
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
    return _beyond(
        share < limits.fail_share,
        share < limits.warn_share,
        f"only {_percent(share)} of the {what} are answered right (WARN below "
        f"{_percent(limits.warn_share)}, FAIL below {_percent(limits.fail_share)})",
        fix,
    )


def _answered(seen: AnswerNumbers, what: str) -> str:
    return (
        f"{seen.right} of {seen.n} {what} right, {seen.wrong} wrong, {seen.no_answer} without an "
        "answer"
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


_JUDGES: dict[str, Callable[[dict[str, Scalar], GatePolicy], Judged]] = {
    "load": _judge_load,
    "memory": _judge_memory,
    "gguf": _judge_gguf,
    "greetings": _judge_greetings,
    "facts": _judge_facts,
}
