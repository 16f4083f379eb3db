"""Vet base models before fine-tuning them, and regression-test adapters after.

Importing this package has no side effects and needs neither mlx nor llama.cpp.
"""

__version__ = "0.1.0"
