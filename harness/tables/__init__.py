"""Records → Markdown tables. Pure: no I/O, no clock.

Every string that a model or a file could have written goes through `escape`.
"""

from harness.tables.comparisons import (
    comparison_table,
    gained_table,
    lost_table,
)
from harness.tables.diagnosis import diagnosis_table, diagnosis_words
from harness.tables.gates import (
    GATE_ORDER,
    candidates_table,
    findings_table,
    gate_cell,
    gates_table,
    grouped_reasons,
    known_table,
    last_words,
    reasons_list,
    recommendation_table,
    tuned_gates_table,
)
from harness.tables.markdown import (
    percent,
    probability,
    provenance_table,
)

__all__ = [
    "GATE_ORDER",
    "candidates_table",
    "comparison_table",
    "diagnosis_table",
    "diagnosis_words",
    "findings_table",
    "gained_table",
    "gate_cell",
    "gates_table",
    "grouped_reasons",
    "known_table",
    "last_words",
    "lost_table",
    "percent",
    "probability",
    "provenance_table",
    "reasons_list",
    "recommendation_table",
    "tuned_gates_table",
]
