"""Which number type a model's weights really have: mlx-lm loads what the files hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.checkpoints.folder import read_weight_headers
from harness.errors import ModelError

_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def with_stored_dtype(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`config` with the `torch_dtype` of the weights in `folder`, where their headers are there.

    A config may be silent or wrong about it. Of several types the one of most elements counts.
    """
    try:
        headers = read_weight_headers(folder)
    except ModelError:
        return dict(config)
    elements: Counter[str] = Counter()
    for header in headers.values():
        for tensor in header.tensors.values():
            if tensor.dtype in _TORCH_NAMES:
                elements[tensor.dtype] += tensor.elements
    if not elements:
        return dict(config)
    most = elements.most_common(1)[0][0]
    return {**config, "torch_dtype": _TORCH_NAMES[most]}
