"""The gguf gate at depth full: the converted file against the original."""

from __future__ import annotations

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, Share, beyond, percent
from harness.policy import GatePolicy, GgufPolicy
from harness.records import Scalar, Status


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


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    seen = GgufNumbers.model_validate(numbers)
    summary = (
        f"{seen.outtype} file of {seen.file_gb:.2f} GB, KL {seen.mean_kl_nats:.2g} nats/token and "
        f"the same first choice on {percent(seen.top1_agreement)} of {seen.tokens} tokens, "
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
        beyond(
            seen.mean_kl_nats > limits.kl_fail_nats,
            seen.mean_kl_nats > limits.kl_warn_nats,
            f"mean KL to the original is {seen.mean_kl_nats:.2g} nats/token (WARN above "
            f"{limits.kl_warn_nats}, FAIL above {limits.kl_fail_nats})",
            fix,
        ),
        beyond(
            seen.top1_agreement < limits.top1_fail,
            seen.top1_agreement < limits.top1_warn,
            f"its first choice agrees with the original's on {percent(seen.top1_agreement)} of "
            f"tokens (WARN below {percent(limits.top1_warn)}, FAIL below "
            f"{percent(limits.top1_fail)})",
            fix,
        ),
    ]


def _text_checks(seen: GgufNumbers, limits: GgufPolicy) -> list[Problem | None]:
    tokenised = seen.tokenizer_equal / seen.tokenizer_texts
    return [
        beyond(
            tokenised < limits.tokenizer_fail,
            tokenised < limits.tokenizer_warn,
            f"{seen.tokenizer_equal} of {seen.tokenizer_texts} texts are tokenised as by the "
            f"original (WARN below {percent(limits.tokenizer_warn)}, FAIL below "
            f"{percent(limits.tokenizer_fail)})",
            "put back the tokenizer files of the original base, then convert again",
        ),
        beyond(
            seen.talk_right / seen.talk_n < limits.talk_fail,
            False,
            f"the file talks nonsense: it answers {seen.talk_right} of {seen.talk_n} greetings "
            f"(FAIL below {percent(limits.talk_fail)})",
            "keep bf16 (--outtype bf16) and ask the original the same greetings",
        ),
        beyond(
            False,
            not seen.template_equal,
            "its chat template is not the original's",
            "put back chat_template.jinja or tokenizer_config.json of the base, then convert again",
        ),
    ]
