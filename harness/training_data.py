"""The text an adapter was trained on, in the forms that mlx-lm's `--data` folder may have.

One JSON object a line in train.jsonl and valid.jsonl: {"messages": […]}, {"prompt": …,
"completion": …} or {"text": …} (mlx_lm/tuner/datasets.py, `create_dataset`). Only its hash and
what was measured with it are ever stored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError

FILES = ("train.jsonl", "valid.jsonl")
LARGEST = 256 << 20
"""Bytes of one file; no fine-tuning data that a laptop trains on comes near."""


class TrainingData(NamedTuple):
    """What the adapter was taught."""

    sha256: str
    """Over the contents of the files, in the order of `FILES`."""
    examples: tuple[tuple[str, str], ...]
    """(what was asked, what was said); asked is empty where the text has no such part."""


def as_setting(training: TrainingData | None) -> dict[str, str]:
    """What a run says of the data; nothing where none was given, so that its name stays."""
    return {} if training is None else {"train_data": training.sha256}


def read_training_data(folder: Path) -> TrainingData:
    """Read the training and validation text of an mlx-lm data folder.

    Raises:
        UsageError: the folder or train.jsonl is missing, or a line has none of the three forms.
    """
    if not (folder / FILES[0]).is_file():
        raise UsageError(
            f"There is no {FILES[0]} in '{folder}'; give --train-data the folder that mlx-lm was "
            "given as --data."
        )
    digest = hashlib.sha256()
    examples: list[tuple[str, str]] = []
    for path in (folder / name for name in FILES):
        if not path.is_file():
            continue
        content = _content(path)
        digest.update(len(content).to_bytes(8, "big") + content)
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                examples.append(_example(line, f"{path}:{number}"))
    return TrainingData(digest.hexdigest(), tuple(examples))


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(
                f"{path} is larger than {LARGEST >> 20} MiB; give a folder with a part of it."
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); mend that, or leave --train-data out."
        ) from error


def _example(line: bytes, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        example = _parts(row)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        example = None
    if example is None:
        raise UsageError(
            f"{where} is no training example; a line is a JSON object with messages, with prompt "
            "and completion, or with text."
        )
    return example


def _parts(row: Any) -> tuple[str, str] | None:
    """Asked and said, or None where the row has another form."""
    if not isinstance(row, dict):
        return None
    if "prompt" in row and "completion" in row:
        found = (row["prompt"], row["completion"])
    elif "messages" in row:
        turns = [(turn["role"], turn.get("content") or "") for turn in row["messages"]]
        found = (
            "\n".join(said for role, said in turns if role == "user"),
            "\n".join(said for role, said in turns if role == "assistant"),
        )
    elif "text" in row:
        found = ("", row["text"])
    else:
        return None
    return found if all(isinstance(part, str) for part in found) else None
