"""Everything that looks at model files without running a model.

Reading headers, checking folders, adapters and chat templates, building the embedded model,
and converting to GGUF. Nothing here imports mlx, torch or llama.cpp.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def default_cache_dir() -> Path:
    """Where downloads and derived files live: `$HARNESS_CACHE`, else the user's cache folder."""
    override = os.environ.get("HARNESS_CACHE")
    if override:
        return Path(override).expanduser()
    return platformdirs.user_cache_path("finetune-harness", appauthor=False)
