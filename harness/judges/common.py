"""What the judges of all gates share: the record they read and the problems they find."""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from harness.records import Status

Count: TypeAlias = Annotated[int, Field(ge=0)]
Amount: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Numbers(BaseModel):
    """Base of what the judges read; a gate may record more than its judge needs."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Problem(NamedTuple):
    """Something that keeps a gate from passing."""

    status: Status
    text: str
    fix: str | None = None


class Judged(NamedTuple):
    """One clause with the numbers, and what is wrong with them."""

    summary: str
    problems: list[Problem]


def beyond(fails: bool, warns: bool, text: str, fix: str) -> Problem | None:
    """The problem that crossing a threshold is, FAIL before WARN; None where neither is crossed."""
    if not fails and not warns:
        return None
    return Problem(Status.FAIL if fails else Status.WARN, text, fix)


def millions(count: int) -> str:
    """Parameters for people: "134.5 M", "3.21 B"."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def percent(share: float) -> str:
    """A share as "93.3 %", three significant digits."""
    return f"{100 * share:.3g} %"
