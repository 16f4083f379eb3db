"""How large a GGUF file will be: as converted, and quantised by llama.cpp. Pure.

The converter's dry run prints each tensor that it would write. From that plan, the sizes of Q8_0
and Q4_K_M follow by the rules of llama.cpp's `llama_tensor_get_type_impl` and
`tensor_type_fallback` (src/llama-quant.cpp of the release that llama-cpp-python 0.3.36 carries).
A type stores whole blocks of a row, so a row of another length gets a larger type instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from harness.errors import ConversionError

Mixture: TypeAlias = Literal["Q8_0", "Q4_K_M"]

_BLOCKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2),
        "Q8_0": (32, 34), "Q5_0": (32, 22), "Q5_1": (32, 24),
        "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    }
)  # fmt: skip
"""Type → elements of a block and its bytes (ggml's block structs)."""
_FALLBACK: Mapping[str, str] = MappingProxyType({"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"})
"""What a row that is no multiple of 256 gets instead; none of 32: F16."""
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d", "shortconv.conv.weight", "altup",
          "laurel", "per_layer_model_proj", "position_embd", "attn_rel_b.weight")  # fmt: skip
_VALUES = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
_ALIGNMENT = 32
_TENSOR = re.compile(
    r"^INFO:hf-to-gguf:(?P<name>\S+), +\S+ --> (?P<type>\w+), shape = \{(?P<shape>[\d, ]*)\}$",
    re.MULTILINE,
)
_TOTAL = re.compile(r"n_tensors = (\d+), total_size = ")


class PlannedTensor(NamedTuple):
    """One tensor that the converter will write."""

    name: str
    """GGUF's name, e.g. "blk.0.attn_q.weight"."""
    type: str
    """As converted, e.g. "BF16"."""
    shape: tuple[int, ...]
    """GGUF's order: the length of a row comes first."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class QuantisedSize(NamedTuple):
    """What a quantised file will weigh."""

    bytes: int
    bytes_without_fallback: int
    """What it would weigh if every row suited its type."""
    fallback_tensors: int
    """Tensors whose rows do not."""
    fallback_share: float
    """Their share of the elements that are quantised, 0–1."""


def natural_outtype(dtypes: Mapping[str, int]) -> Literal["f16", "bf16"]:
    """bf16 stays bf16, since f16 overflows on some models; everything else becomes f16.

    Args:
        dtypes: safetensors dtype → number of tensors.
    """
    floats = {dtype: count for dtype, count in dtypes.items() if "F" in dtype}
    most = max(floats, key=lambda dtype: floats[dtype], default="F16")
    return "bf16" if most == "BF16" else "f16"


def read_plan(log: str) -> tuple[PlannedTensor, ...]:
    """The tensors that a converter's log says it writes.

    Raises ConversionError where it lists another number of them than it counts, as a release
    that prints them otherwise would.
    """
    plan = tuple(
        PlannedTensor(m["name"], m["type"], tuple(int(size) for size in m["shape"].split(",")))
        for m in _TENSOR.finditer(log)
    )
    counted = _TOTAL.search(log)
    if not plan or counted is None or int(counted[1]) != len(plan):
        fix = "use the llama-cpp-python release that this harness pins"
        raise ConversionError(f"the converter's list of tensors cannot be read; {fix}", fix=fix)
    return plan


def converted_bytes(plan: Iterable[PlannedTensor]) -> int:
    """Bytes of the tensors as converted, each padded; metadata comes on top."""
    return sum(_padded(_row_bytes(tensor, tensor.type)) for tensor in plan)


def quantised_size(
    plan: Iterable[PlannedTensor], mixture: Mixture, *, experts: int = 0
) -> QuantisedSize:
    """Size after `llama-quantize FILE OUT MIXTURE` of a file with these tensors.

    Args:
        experts: how many experts a layer has; 0 or 1 for a dense model.
    """
    # In the order of llama.cpp's loader, which sorts by layer and then by name.
    tensors = sorted(plan, key=lambda tensor: (_layer(tensor.name), tensor.name))
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    layers = 1 + max(_layer(tensor.name) for tensor in tensors)
    values = sum(_is_value(tensor.name) for tensor in tensors)
    seen_values = seen_downs = total = ideal = odd = odd_elements = quantised = 0
    for tensor in tensors:
        if not _is_quantised(tensor):
            size = _padded(_row_bytes(tensor, tensor.type))
            total, ideal = total + size, ideal + size
            continue
        is_value, is_down = _is_value(tensor.name), "ffn_down" in tensor.name
        down = _layer(tensor.name) if experts > 1 else seen_downs
        more = (is_value and _more_bits(seen_values, values)) or (
            is_down and _more_bits(down, layers)
        )
        head = tensor.name == "output.weight" or (tied and _is_embedding(tensor.name))
        wanted = "Q8_0" if mixture == "Q8_0" else _q4_k_m(tensor.name, head or more, experts == 8)
        seen_values, seen_downs = seen_values + is_value, seen_downs + is_down
        given = _given(tensor, wanted)
        quantised += tensor.elements
        odd += given != wanted
        odd_elements += tensor.elements if given != wanted else 0
        total += _padded(_row_bytes(tensor, given))
        ideal += _padded(_row_bytes(tensor, wanted))
    return QuantisedSize(total, ideal, odd, odd_elements / quantised if quantised else 0.0)


def _q4_k_m(name: str, more_bits: bool, eight_experts: bool) -> str:
    """The type that Q4_K_M means for a tensor, whatever its shape."""
    if eight_experts and (_is_value(name) or "attn_k.weight" in name):
        return "Q8_0"
    if eight_experts and "attn_output.weight" in name:
        return "Q5_K"
    return "Q6_K" if more_bits else "Q4_K"


def _is_quantised(tensor: PlannedTensor) -> bool:
    # A dimension of 1 at the end does not count for llama.cpp.
    dimensions = max((i + 1 for i, size in enumerate(tensor.shape) if size != 1), default=1)
    return (
        dimensions >= 2
        and tensor.name.endswith("weight")
        and not any(part in tensor.name for part in _NEVER)
    )


def _given(tensor: PlannedTensor, wanted: str) -> str:
    columns = tensor.shape[0]
    if columns % _BLOCKS[wanted][0] == 0:
        return wanted
    other = _FALLBACK.get(wanted, wanted)
    return other if columns % _BLOCKS[other][0] == 0 else "F16"


def _more_bits(place: int, of: int) -> bool:
    """llama.cpp's `use_more_bits`: the first and last eighth, and every third in between."""
    return place < of // 8 or place >= 7 * of // 8 or (place - of // 8) % 3 == 2


def _is_value(name: str) -> bool:
    return any(part in name for part in _VALUES)


def _is_embedding(name: str) -> bool:
    return name in ("token_embd.weight", "per_layer_token_embd.weight")


def _layer(name: str) -> int:
    parts = name.split(".", 2)
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdecimal() else -1


def _row_bytes(tensor: PlannedTensor, kind: str) -> int:
    """Bytes of a tensor; a row that is cut off in a block counts by its elements."""
    block, size = _BLOCKS[kind]
    return -(-tensor.elements * size // block)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
