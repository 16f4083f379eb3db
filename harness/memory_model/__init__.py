"""Peak memory of inference and LoRA training with MLX, predicted from config.json alone.

`read_architecture(config)` → Architecture, `predict(architecture, Settings(…))` → Prediction.
docs/memory.md explains the model and shows how far it is off.
"""

from harness.memory_model.advice import Fit, fits, largest_that_fits, lora_command
from harness.memory_model.architecture import is_modelled, read_architecture
from harness.memory_model.candidates import fit_numbers, settings_for
from harness.memory_model.predict import predict
from harness.memory_model.settings import OLD_KEYS, Prediction, Settings
from harness.memory_model.shapes import Architecture

__all__ = [
    "OLD_KEYS",
    "Architecture",
    "Fit",
    "Prediction",
    "Settings",
    "fit_numbers",
    "fits",
    "is_modelled",
    "largest_that_fits",
    "lora_command",
    "predict",
    "read_architecture",
    "settings_for",
]
