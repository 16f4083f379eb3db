"""The thresholds behind every verdict: the shipped `policy.yaml`, and a person's file over it.

What each threshold means is written beside it in `policy.yaml`, the one place to look it up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rapidfuzz import fuzz, process

from harness.errors import PolicyError
from harness.marked_yaml import MarkedYaml, load_marked_yaml

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")
"""The shipped policy, documented key by key."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


class Thresholds(BaseModel):
    """Base of all policy sections: frozen, no unknown key, no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def _in_order(self, smaller: str, larger: str) -> None:
        if getattr(self, smaller) > getattr(self, larger):
            raise ValueError(
                f"{smaller} ({getattr(self, smaller)}) must not exceed "
                f"{larger} ({getattr(self, larger)})"
            )


class SuitePolicy(Thresholds):
    """When a suite of a comparison passes."""

    alpha_fail: Share
    alpha_warn: Share
    fail_drop: Share
    fail_lost_share: Share
    warn_drop: Share
    max_mde: Share
    min_known: Count
    min_scored: Count
    fail_choice_drop: Share
    margin_fail_nats: Positive
    margin_fail_d: Positive
    margin_warn_nats: Positive
    margin_warn_d: Positive

    @model_validator(mode="after")
    def _ordered(self) -> SuitePolicy:
        self._in_order("alpha_fail", "alpha_warn")
        self._in_order("warn_drop", "fail_drop")
        self._in_order("margin_warn_nats", "margin_fail_nats")
        self._in_order("margin_warn_d", "margin_fail_d")
        return self


class ComparisonPolicy(Thresholds):
    """How suites and gates add up."""

    warn_is_fail: bool


class MemoryPolicy(Thresholds):
    """Shares of the memory budget; a fail share above 1 allows swapping."""

    warn_share: Positive
    fail_share: Positive

    @model_validator(mode="after")
    def _ordered(self) -> MemoryPolicy:
        self._in_order("warn_share", "fail_share")
        return self


class GgufPolicy(Thresholds):
    """How far a converted file may be from its original."""

    kl_warn_nats: Positive
    kl_fail_nats: Positive
    top1_warn: Share
    top1_fail: Share
    tokenizer_warn: Share
    tokenizer_fail: Share
    talk_fail: Share

    @model_validator(mode="after")
    def _ordered(self) -> GgufPolicy:
        self._in_order("kl_warn_nats", "kl_fail_nats")
        self._in_order("top1_fail", "top1_warn")
        self._in_order("tokenizer_fail", "tokenizer_warn")
        return self


class HeaderGgufPolicy(Thresholds):
    """How much a model's shapes may cost in the file."""

    kquant_extra_warn: Share


class TokenizerPolicy(Thresholds):
    """How alike the tokenizer in the file and the original have to be."""

    equal_warn: Share
    equal_fail: Share
    min_texts: Count

    @model_validator(mode="after")
    def _ordered(self) -> TokenizerPolicy:
        self._in_order("equal_fail", "equal_warn")
        return self


class PipelinePolicy(Thresholds):
    """How far two runtimes of a twin may be apart; logit limits are shares of their spread."""

    kl_warn_nats: Positive
    kl_fail_nats: Positive
    logit_warn: Positive
    logit_fail: Positive
    top1_fail: Share
    min_effect_nats: Positive

    @model_validator(mode="after")
    def _ordered(self) -> PipelinePolicy:
        self._in_order("kl_warn_nats", "kl_fail_nats")
        self._in_order("logit_warn", "logit_fail")
        return self


class GreetingsPolicy(Thresholds):
    """What a base must answer before training."""

    warn_share: Share
    fail_share: Share
    min_n: Count

    @model_validator(mode="after")
    def _ordered(self) -> GreetingsPolicy:
        self._in_order("fail_share", "warn_share")
        return self


class FactsPolicy(GreetingsPolicy):
    """What a base must know before training; `choice_*` are shares above chance."""

    choice_warn: Share
    choice_fail: Share

    @model_validator(mode="after")
    def _choices_ordered(self) -> FactsPolicy:
        self._in_order("choice_fail", "choice_warn")
        return self


class GatePolicy(Thresholds):
    """One section for each gate that has thresholds."""

    memory: MemoryPolicy
    gguf: GgufPolicy
    header_gguf: HeaderGgufPolicy
    tokenizer: TokenizerPolicy
    pipeline: PipelinePolicy
    greetings: GreetingsPolicy
    facts: FactsPolicy


class Policy(Thresholds):
    """Every threshold, resolved: suites without an entry of their own use `default`."""

    suites: dict[str, SuitePolicy]
    comparison: ComparisonPolicy
    gates: GatePolicy

    def suite(self, name: str) -> SuitePolicy:
        """The thresholds of one suite."""
        return self.suites.get(name, self.suites["default"])

    @property
    def sha256(self) -> str:
        """Hash of the values, for provenance; comments and layout do not change it."""
        values = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()


def load_policy(path: Path | None = None) -> Policy:
    """The shipped policy, with the keys of the file at `path` laid over it.

    A suite's entry is laid over `suites.default`, wherever the two stand. Raises PolicyError
    naming file, line and key where the file is unreadable, not YAML, or has a wrong key or value.
    """
    document = load_marked_yaml(DEFAULT_POLICY, PolicyError)
    values = document.data
    if path is not None:
        document = load_marked_yaml(path, PolicyError)
        if not isinstance(document.data, dict):
            raise PolicyError(
                f"{path}: a policy is a mapping of sections (suites, comparison, gates), not a "
                f"{type(document.data).__name__}."
            )
        values = _overlay(values, document.data)
    suites = values["suites"]
    if isinstance(suites, dict) and isinstance(default := suites["default"], dict):
        values["suites"] = {name: _overlay(default, own) for name, own in suites.items()}
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise PolicyError(_explain(error, document, values)) from error


def _overlay(base: Mapping[str, Any], over: Any) -> Any:
    """`base` with the keys of `over` laid over it; anything but a mapping replaces it whole."""
    if not isinstance(over, Mapping):
        return over
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        merged[key] = _overlay(below, value) if isinstance(below, Mapping) else value
    return merged


def _explain(error: ValidationError, document: MarkedYaml, values: Mapping[str, Any]) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    at = tuple(str(part) for part in first["loc"] if part != "[key]")
    where = document.where(at, key=True)
    key = ".".join(at)
    more = f" ({len(problems) - 1} more after this one)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'{_near_miss(at, values)}.{more}"
    if first["type"] == "value_error":
        return f"{where}: in '{key}', {first['ctx']['error']}.{more}"
    if first["type"] in ("dict_type", "model_type"):
        return f"{where}: '{key}' must be a section with keys of its own, as in {DEFAULT_POLICY}."
    return f"{where}: '{key}' is {first['input']!r}: {first['msg'].lower()}.{more}"


def _near_miss(at: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """The known key most like the last part of `at`, out of its own section."""
    section: Any = values
    for part in at[:-1]:
        section = section[part]
    known = [str(key) for key in section if str(key) != at[-1]]
    best = process.extractOne(at[-1], known, scorer=fuzz.ratio, score_cutoff=60)
    return f"; did you mean '{best[0]}'?" if best else f"; known are {', '.join(sorted(known))}"
