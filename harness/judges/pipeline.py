"""The pipeline gate: a miniature in transformers, MLX and llama.cpp, stage by stage."""

from __future__ import annotations

from typing import NamedTuple

from harness.judges.common import Amount, Count, Judged, Numbers, Problem, Share, percent
from harness.policy import GatePolicy, PipelinePolicy
from harness.records import Scalar, Status

_FIX = (
    "convert and run with mlx-lm and llama-cpp-python releases that agree, or choose another base"
)


class PipelineNumbers(Numbers):
    """Numbers of the pipeline gate, but for the stages."""

    architecture: str
    texts: Count
    tokens: Count
    twin_parameters: Count
    logit_spread_nats: Amount
    adapter_effect_nats: float
    qlora_adapter_effect_nats: float | None = None
    """None where the path from a 4-bit base was not run."""
    requantised_adapter_kept: Share | None = None
    window_tokens: Count | None = None
    """The candidate's sliding window, where one acts."""
    switch_tokens: Count | None = None
    """The context above which longrope's other factors hold."""


class Stage(Numbers):
    """Two runtimes on the same texts."""

    kl_nats: Amount
    max_logit_difference: Amount
    top1_agreement: Share


class _Step(NamedTuple):
    name: str
    what: str
    required: bool = True


_STEPS = (
    _Step("mlx_vs_reference", "MLX computes the base otherwise than transformers", False),
    _Step("fused_vs_adapter", "the fused model computes otherwise than base and adapter in MLX"),
    _Step("gguf_vs_mlx", "llama.cpp computes the fused model otherwise than MLX"),
    _Step("gguf_vs_adapter", "the GGUF file computes otherwise than base and adapter in MLX"),
    _Step(
        "qlora_fused_vs_adapter",
        "fused from 4 bits with --dequantize, it computes otherwise than base and adapter in MLX",
    ),
    _Step(
        "qlora_gguf_vs_mlx",
        "llama.cpp computes the model fused from 4 bits with --dequantize otherwise than MLX",
    ),
    _Step(
        "qlora_gguf_vs_adapter",
        "the GGUF file from 4 bits computes otherwise than base and adapter in MLX",
    ),
)

_SUMS = {
    "gguf_vs_adapter": {"fused_vs_adapter", "gguf_vs_mlx"},
    "qlora_gguf_vs_adapter": {"qlora_fused_vs_adapter", "qlora_gguf_vs_mlx"},
}
"""Steps that are two others together; where one of these is wrong, it is told once."""


def judge(numbers: dict[str, Scalar], policy: GatePolicy) -> Judged:
    """FAIL where two stages of a recommended path compute different things."""
    seen, limits = PipelineNumbers.model_validate(numbers), policy.pipeline
    view = _View(numbers, seen, limits)
    gguf = view.stage("gguf_vs_mlx")
    summary = (
        f"a miniature {seen.architecture} of {seen.twin_parameters / 1e6:.1f} M parameters: from "
        f"MLX with an adapter ({seen.adapter_effect_nats:.2g} nats) to llama.cpp KL "
        f"{gguf.kl_nats:.2g} nats/token, largest logit difference "
        f"{gguf.max_logit_difference:.2g}, the same first choice on "
        f"{percent(gguf.top1_agreement)} of {seen.tokens} tokens"
    )
    if seen.tokens == 0:
        return Judged(summary, [Problem(Status.INCONCLUSIVE, "no tokens were compared")])
    problems = [*view.problems(), *view.window(), *view.effects()]
    if seen.qlora_adapter_effect_nats is None or seen.requantised_adapter_kept is None:
        text = "the path from a 4-bit base was not run"
        return Judged(summary, [*problems, Problem(Status.INCONCLUSIVE, text)])
    summary += (
        f"; from a 4-bit base KL {view.stage('qlora_gguf_vs_mlx').kl_nats:.2g}; without "
        f"--dequantize {percent(seen.requantised_adapter_kept)} of the adapter is left"
    )
    return Judged(summary, problems)


class _View:
    """The numbers as stages that agree or do not."""

    def __init__(
        self, numbers: dict[str, Scalar], seen: PipelineNumbers, limits: PipelinePolicy
    ) -> None:
        self._numbers = numbers
        self._seen = seen
        self._limits = limits

    def has(self, name: str) -> bool:
        return f"{name}_kl_nats" in self._numbers

    def stage(self, name: str) -> Stage:
        """Raises ValidationError where its numbers are missing."""
        found = {key: self._numbers.get(f"{name}_{key}") for key in Stage.model_fields}
        return Stage.model_validate({k: v for k, v in found.items() if v is not None})

    def status(self, name: str) -> Status:
        """PASS where the two agree."""
        stage, limits = self.stage(name), self._limits
        share = stage.max_logit_difference / max(self._seen.logit_spread_nats, 1e-9)
        if (
            stage.kl_nats > limits.kl_fail_nats
            or share > limits.logit_fail
            or stage.top1_agreement < limits.top1_fail
        ):
            return Status.FAIL
        if stage.kl_nats > limits.kl_warn_nats or share > limits.logit_warn:
            return Status.WARN
        return Status.PASS

    def agrees(self, name: str) -> bool | None:
        """None where the stage was not measured."""
        return self.status(name) is not Status.FAIL if self.has(name) else None

    def problems(self) -> list[Problem]:
        """What is wrong with each step that was run."""
        whole = self._seen.qlora_adapter_effect_nats is not None
        steps = [s for s in _STEPS if s.required or self.has(s.name)]
        steps = [s for s in steps if whole or not s.name.startswith("qlora")]
        found: dict[str, Problem] = {}
        for step in steps:
            problem = self._problem(step)
            if problem is not None and not found.keys() & _SUMS.get(step.name, set()):
                found[step.name] = problem
        return list(found.values())

    def _problem(self, step: _Step) -> Problem | None:
        """What is wrong with one step, and whose side it is on."""
        status = self.status(step.name)
        if status is Status.PASS:
            return None
        stage, limits = self.stage(step.name), self._limits
        longer = self._only_short(step.name)
        text = (
            f"{step.what}{self._side(step.name)}: KL {stage.kl_nats:.2g} nats/token (WARN above "
            f"{limits.kl_warn_nats:.2g}, FAIL above {limits.kl_fail_nats:.2g}), largest logit "
            f"difference {stage.max_logit_difference:.2g}, the same first choice on "
            f"{percent(stage.top1_agreement)} of tokens"
        )
        if longer:
            return Problem(
                Status.WARN,
                f"{text}; in contexts above {self._seen.switch_tokens} tokens they agree, since "
                "MLX uses longrope's long factors at every length",
                f"open the GGUF file with a context above {self._seen.switch_tokens} tokens "
                f"(llama-server -c {2 * (self._seen.switch_tokens or 1)}), as MLX trained it",
            )
        return Problem(status, text, _FIX)

    def window(self) -> list[Problem]:
        """Differences that show only in texts longer than the sliding window."""
        window = self._seen.window_tokens
        found = []
        for step in _STEPS:
            name = f"beyond_window_{step.name}"
            if not self.has(name) or self.status(name) is not Status.FAIL:
                continue
            stage = self.stage(name)
            seen = f"KL {stage.kl_nats:.2g} nats/token"
            if step.name != "mlx_vs_reference":
                text = f"in texts longer than {window} tokens {step.what} ({seen})"
                found.append(Problem(Status.FAIL, text, _FIX))
                continue
            alike = self.agrees("beyond_window_base_gguf_vs_mlx")
            who = "neither MLX nor llama.cpp applies" if alike else "MLX does not apply"
            found.append(
                Problem(
                    Status.WARN,
                    f"{who} the sliding window of {window} tokens: in longer texts they attend "
                    f"to more than the model was trained to ({seen} from transformers)",
                    f"keep training texts and contexts below {window} tokens",
                )
            )
        return found

    def effects(self) -> list[Problem]:
        """Adapters that change too little to show anything."""
        least = self._limits.min_effect_nats
        effects = (self._seen.adapter_effect_nats, self._seen.qlora_adapter_effect_nats)
        weakest = min(effect for effect in effects if effect is not None)
        if weakest >= least:
            return []
        text = (
            f"the adapter changes only {weakest:.2g} nats, so fusing shows nothing (limit {least})"
        )
        return [Problem(Status.INCONCLUSIVE, text)]

    def _only_short(self, name: str) -> bool:
        long = f"long_context_{name}"
        return self.has(long) and self.status(long) is Status.PASS

    def _side(self, name: str) -> str:
        """Who is alone with what it computes, from the three runtimes of the base."""
        mlx, gguf = self.agrees("mlx_vs_reference"), self.agrees("gguf_vs_reference")
        both = self.agrees("base_gguf_vs_mlx")
        if name == "mlx_vs_reference":
            if gguf:
                return " (MLX is alone: llama.cpp agrees with transformers)"
            return " (llama.cpp agrees with MLX)" if both else " (and llama.cpp with neither)"
        if "gguf" not in name:
            return " (on MLX's side, in mlx_lm.fuse)"
        if both:
            return " (the base converts rightly, so it is what was fused that does not)"
        if mlx:
            return " (MLX is right about the base, so the converter or llama.cpp is not)"
        return " (transformers agrees with llama.cpp)" if gguf else ""
