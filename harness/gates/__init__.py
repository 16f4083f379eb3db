"""The gates of every depth, in the report's order. A new gate is one file and one line here."""

from collections.abc import Mapping
from types import MappingProxyType

from harness.gates import (
    facts,
    gguf,
    greetings,
    header_gguf,
    header_load,
    header_memory,
    load,
    memory,
    pipeline,
    tokenizer,
)
from harness.gates.context import Gate, GateContext, Tools
from harness.records import Depth

_HEADER = (header_load.GATE, header_memory.GATE, header_gguf.GATE, tokenizer.GATE)

GATES: Mapping[Depth, tuple[Gate, ...]] = MappingProxyType(
    {
        "header": _HEADER,
        "twin": (*_HEADER, pipeline.GATE),
        "full": (load.GATE, memory.GATE, gguf.GATE, greetings.GATE, facts.GATE),
    }
)

__all__ = ["GATES", "Gate", "GateContext", "Tools"]
