"""The tokenizer that the model was trained with, from local files and without its own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.folder import check_tokenizer_folder, read_config
from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import shown
from harness.errors import ModelError


class OriginalTokenizer(NamedTuple):
    """transformers' tokenizer of a folder."""

    tokenizer: Any
    size: int
    """Number of tokens, added ones included."""
    bos: int | None
    eos: int | None
    special: tuple[str, ...]
    """Added tokens that are recognised in a text, as written, by id."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens recognised, none added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def open_original(folder: Path) -> OriginalTokenizer:
    """The tokenizer as transformers' AutoTokenizer makes it.

    Raises ModelError where the files are missing, unreadable, or need their own Python code.
    """
    check_tokenizer_folder(folder)
    # Imported here, since it takes seconds.
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (MemoryError, OSError):
        raise  # of this machine, not of the model
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        reason = shown(" ".join(str(error).split()), 160)
        raise ModelError(
            f"transformers cannot open the tokenizer of {folder.name} ({reason}); copy "
            "tokenizer.json and tokenizer_config.json from the base model's repository"
        ) from error
    added = sorted(tokenizer.added_tokens_decoder.items())
    return OriginalTokenizer(
        tokenizer=tokenizer,
        size=len(tokenizer),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        special=tuple(str(token.content) for _, token in added),
    )


def end_tokens(folder: Path) -> frozenset[int]:
    """Ids at which the model's own settings end a reply (generation_config.json, config.json)."""
    settings = read_config(folder)
    file = folder / "generation_config.json"
    if file.exists():
        settings |= read_json_object(file, ModelError, "copy it from the base model")
    ids = settings.get("eos_token_id")
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(number for number in listed if type(number) is int and number >= 0)
