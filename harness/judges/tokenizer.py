"""The tokenizer gate: the vocabulary in the GGUF file against the original."""

from __future__ import annotations

from harness.judges.common import Count, Judged, Numbers, Problem, beyond, percent
from harness.policy import GatePolicy
from harness.records import Scalar, Status

_PUT_BACK = "put back the tokenizer files of the original base, then convert again"


class TokenizerNumbers(Numbers):
    """Numbers of the tokenizer gate."""

    texts: Count
    equal: Count
    first_difference: str | None
    gguf_tokens: Count
    pre_tokenizer: str
    bos_equal: bool
    eos_equal: bool
    end_tokens_unknown: Count
    template_equal: bool


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    """Judge the share of texts that both cut alike, and the special tokens."""
    seen, limits = TokenizerNumbers.model_validate(numbers), policy.tokenizer
    summary = (
        f"{seen.equal} of {seen.texts} texts are cut into the same tokens ({seen.gguf_tokens} "
        f"tokens, pre-tokenizer {seen.pre_tokenizer})"
    )
    if seen.texts < limits.min_texts:
        text = f"{seen.texts} texts are too few to judge by, {limits.min_texts} are needed"
        return Judged(summary, [Problem(Status.INCONCLUSIVE, text)])
    share = seen.equal / seen.texts
    first = f", first {seen.first_difference!r}" if seen.first_difference is not None else ""
    checks = [
        beyond(
            share < limits.equal_fail,
            share < limits.equal_warn,
            f"{seen.texts - seen.equal} texts are cut differently from the original{first} (WARN "
            f"below {percent(limits.equal_warn)} alike, FAIL below {percent(limits.equal_fail)})",
            _PUT_BACK,
        ),
        beyond(
            False,
            not (seen.bos_equal and seen.eos_equal),
            f"the token that {'ends' if seen.bos_equal else 'begins'} a text is not the original's",
            _PUT_BACK,
        ),
        beyond(
            False,
            seen.end_tokens_unknown > 0,
            f"llama.cpp does not stop at {seen.end_tokens_unknown} of the tokens that end a reply",
            "mark them as special in tokenizer.json and tokenizer_config.json, then convert again",
        ),
        beyond(
            False,
            not seen.template_equal,
            "the chat template in the file is not the original's",
            "put back chat_template.jinja or tokenizer_config.json of the base, then convert again",
        ),
    ]
    return Judged(summary, [problem for problem in checks if problem is not None])
