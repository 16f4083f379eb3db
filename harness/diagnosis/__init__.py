"""Which kind of damage an adapter did: symptoms of single replies, and what they add up to.

`symptoms_of` labels one reply. `diagnose` holds the labels of two transcripts against each other:
what the base already does is no damage, and a handful of replies is no pattern. A diagnosis
explains a verdict and never makes one. Pure: no I/O, no clock, no model.
"""

from __future__ import annotations

from harness.diagnosis.compare import Copied, diagnose, probe_key
from harness.diagnosis.copied import Copies
from harness.diagnosis.symptoms import symptoms_of

__all__ = ["Copied", "Copies", "diagnose", "probe_key", "symptoms_of"]
