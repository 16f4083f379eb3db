"""The gguf gate at depth header: the file that the converter would write."""

from __future__ import annotations

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, Share, millions, percent
from harness.policy import GatePolicy
from harness.records import Scalar, Status


class HeaderGgufNumbers(Numbers):
    """Numbers of the gguf gate at depth header; sizes without the file's vocabulary."""

    parameters: Count
    tensors: Count
    outtype: str
    file_gb: Amount
    q8_0_gb: Amount
    q4_k_m_gb: Amount
    q4_k_m_without_fallback_gb: Amount
    kquant_fallback_share: Share
    """Share of the weights whose rows are no multiple of 256."""
    kquant_extra_share: Amount
    """How much larger Q4_K_M gets by that."""
    tied_embeddings: bool
    dropped_tensors: Count
    vocabulary_checked: bool
    has_chat_template: bool | None


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    """PASS unless K-quants come out much larger; what else is wrong is a finding of the gate."""
    seen, limits = HeaderGgufNumbers.model_validate(numbers), policy.header_gguf
    problems = []
    if seen.kquant_extra_share > limits.kquant_extra_warn:
        problems.append(
            Problem(
                Status.WARN,
                f"rows of {percent(seen.kquant_fallback_share)} of the weights are no multiple of "
                f"256, so Q4_K_M takes {seen.q4_k_m_gb:.3g} GB instead of "
                f"{seen.q4_k_m_without_fallback_gb:.3g} ({percent(seen.kquant_extra_share)} more, "
                f"WARN above {percent(limits.kquant_extra_warn)})",
                "quantise to Q8_0, which needs rows in multiples of 32 only: `llama-quantize "
                "MODEL.gguf OUT.gguf Q8_0`",
            )
        )
    parts = [
        f"converts to a {seen.outtype} file of {seen.file_gb:.3g} GB ({seen.q8_0_gb:.3g} as Q8_0, "
        f"{seen.q4_k_m_gb:.3g} as Q4_K_M), {millions(seen.parameters)} parameters"
    ]
    if seen.dropped_tensors:
        parts.append(f"{seen.dropped_tensors} tensors of vision or audio stay out")
    if not seen.vocabulary_checked:
        parts.append("its vocabulary was not checked")
    return Judged(", ".join(parts), problems)
