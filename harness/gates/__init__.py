"""The gates, in the order of the report. A new gate is one file and one line in GATES."""

from harness.gates import facts, gguf, greetings, load, memory
from harness.gates.context import Gate, GateContext, Tools

GATES: tuple[Gate, ...] = (load.GATE, memory.GATE, gguf.GATE, greetings.GATE, facts.GATE)

__all__ = ["GATES", "Gate", "GateContext", "Tools"]
