"""A tensor list in a few lines: names that differ only in layer numbers share one.

    "model.layers.{0-27}.self_attn.q_proj.weight": "BF16 [3072, 3072]"

A name's parts that are whole numbers may be sets of ranges, `{0-4,6}`; a table's entry stands for
every combination. Braces that belong to a name are doubled. Packing and unpacking is lossless.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from harness.checkpoints.ghost import Tensors, TensorShape
from harness.checkpoints.safetensors import (
    DTYPE_BITS,
    MAX_DIMENSION,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    shown,
)
from harness.errors import ModelError

_NUMBER = re.compile(r"(?<![^.])(0|[1-9][0-9]{0,5})(?![^.])", re.ASCII)
_SET = re.compile(r"\{([0-9][0-9,-]{0,2000})\}")
_SHAPE = re.compile(r"([A-Z0-9_]{2,12}) \[((?:[0-9]{1,15}(?:, [0-9]{1,15})*)?)\]", re.ASCII)
_HOLE = "\0"


def pack(tensors: Tensors) -> dict[str, str]:
    """Tensor list → table, sorted by pattern."""
    groups: dict[tuple[str, TensorShape], list[tuple[int, ...]]] = defaultdict(list)
    for name, tensor in tensors.items():
        numbers = tuple(int(number) for number in _NUMBER.findall(name))
        groups[_NUMBER.sub(_HOLE, _doubled(name)), tensor].append(numbers)
    table = {}
    for (template, (dtype, shape)), rows in groups.items():
        for product in _products(rows):
            parts = template.split(_HOLE)
            sets = [_written(one) for one in product]
            pattern = "".join(a + b for a, b in zip(parts, [*sets, ""], strict=True))
            table[pattern] = f"{dtype} {list(shape)}"
    return {pattern: table[pattern] for pattern in sorted(table, key=_natural)}


def unpack(table: Mapping[str, str]) -> dict[str, TensorShape]:
    """Table → tensor list, in the table's order.

    Raises ModelError, naming the pattern, where the table is not one that `pack` writes.
    """
    tensors: dict[str, TensorShape] = {}
    for pattern, text in table.items():
        shape = _shape(pattern, text)
        parts = _split(pattern)
        most = math.prod(len(part) for part in parts)
        if len(tensors) + most > MAX_TENSORS:
            raise ModelError(f"the pattern {shown(pattern)} makes more tensors than a model has")
        for words in itertools.product(*parts):
            name = "".join(words)
            if name in tensors:
                raise ModelError(
                    f"the pattern {shown(pattern)} gives the tensor {shown(name)} again"
                )
            tensors[name] = shape
    return tensors


def _shape(pattern: str, text: str) -> TensorShape:
    match = _SHAPE.fullmatch(text)
    sizes = [int(size) for size in match[2].split(", ") if size] if match else []
    sane = len(sizes) <= MAX_DIMENSIONS and all(size <= MAX_DIMENSION for size in sizes)
    if match is None or match[1] not in DTYPE_BITS or not sane:
        raise ModelError(
            f"{shown(text, 60)} of {shown(pattern)} is no dtype with a shape; write it like "
            "BF16 [3072, 3072]"
        )
    return TensorShape(match[1], tuple(sizes))


def _split(pattern: str) -> list[list[str]]:
    """The pattern as a list of alternatives: single texts, and the numbers of a set."""
    parts: list[list[str]] = []
    plain = pattern.replace("{{", "\x01").replace("}}", "\x02")
    position = 0
    for match in _SET.finditer(plain):
        parts.append([plain[position : match.start()]])
        parts.append(_numbers(pattern, match[1]))
        position = match.end()
    parts.append([plain[position:]])
    if any("{" in text or "}" in text for part in parts for text in part):
        raise ModelError(f"the pattern {shown(pattern)} has a brace that stands for nothing")
    return [[t.replace("\x01", "{").replace("\x02", "}") for t in part] for part in parts]


def _numbers(pattern: str, text: str) -> list[str]:
    found: list[int] = []
    for one in text.split(","):
        first, dash, last = one.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(_NUMBER.fullmatch(end) for end in ends):
            raise ModelError(f"the pattern {shown(pattern)} has the bad range {shown(one, 40)}")
        low, high = int(ends[0]), int(ends[1])
        if low > high or (found and low <= found[-1]) or high - low >= MAX_TENSORS:
            raise ModelError(f"the pattern {shown(pattern)} has the bad range {shown(one, 40)}")
        found.extend(range(low, high + 1))
        if len(found) > MAX_TENSORS:
            raise ModelError(f"the pattern {shown(pattern)} makes more tensors than a model has")
    return [str(number) for number in found]


def _products(rows: Iterable[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Rows of numbers as few products of sets: each product stands for all its combinations."""
    by_head: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in rows:
        if not row:
            return [()]
        by_head[row[:-1]].append(row[-1])
    by_tail: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for head, tail in by_head.items():
        by_tail[tuple(sorted(tail))].append(head)
    return [(*product, tail) for tail, heads in by_tail.items() for product in _products(heads)]


def _written(numbers: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) → "{0-2,5}"; a single number stays as it is."""
    if len(numbers) == 1:
        return str(numbers[0])
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) + "}"


def _doubled(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _natural(pattern: str) -> list[tuple[int, str]]:
    """Sort key in which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", pattern)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]
