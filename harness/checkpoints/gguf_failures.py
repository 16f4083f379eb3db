"""What went wrong in the reference GGUF converter: its log → one sentence, culprit and fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from harness.checkpoints.safetensors import shown
from harness.errors import ConversionError

_TOKENIZER_FIX = "copy tokenizer.json and tokenizer_config.json from the base model's repository"
_TOKENIZER_MODEL_FIX = "copy tokenizer.model from the base model's repository into the folder"


_MACHINE = (
    r"can't start new thread|Too many open files|Input/output error|Permission denied"
    r"|cannot open shared object file|KeyboardInterrupt"
)


class _Cause(NamedTuple):
    pattern: re.Pattern[str]
    explain: Callable[[re.Match[str]], tuple[str, str | None, str]]
    """Match → (what happened, offending tensor or setting, fix)."""
    machine: bool = False
    """Whether it tells of this machine and nothing of the model."""


def explain_failure(log: str, returncode: int) -> ConversionError:
    """The ConversionError that a failed converter's log amounts to.

    Falls back to the log's last meaningful line. `returncode` is the process's, negative for
    a signal.
    """
    for cause in _CAUSES:
        match = cause.pattern.search(log)
        if match:
            what, culprit, fix = cause.explain(match)
            return _error(what, culprit, fix, cause.machine)
    if returncode < 0:
        return _error(
            f"it was killed by signal {-returncode}",
            None,
            "free memory (the converter needs a few GB) and try again",
            machine=True,
        )
    last = _last_line(log)
    return _error(
        f"it ended with: {last or f'exit status {returncode}'}",
        None,
        "try a newer llama-cpp-python, whose converter may know this model",
        # One that ends without a word was ended from outside.
        machine=not last,
    )


def _error(what: str, culprit: str | None, fix: str, machine: bool = False) -> ConversionError:
    message = f"the GGUF converter failed: {what}; {fix}"
    return ConversionError(message, tensor=culprit, fix=fix, machine=machine)


def _unmapped(match: re.Match[str]) -> tuple[str, str | None, str]:
    name = shown(match["name"])
    leaf = name.rpartition(".")[2]
    what = f"it knows no tensor {name}"
    if leaf in ("scales", "biases"):
        return (
            f"{what}, because the weights are still MLX-quantised",
            name,
            "fuse with `mlx_lm.fuse --dequantize`, or onto the original unquantised model",
        )
    if leaf in ("SCB", "absmax", "quant_map", "nested_absmax") or ".quant_state" in name:
        return (
            f"{what}, because the weights are still quantised by bitsandbytes",
            name,
            "merge the adapter into the unquantised base model",
        )
    if leaf in ("weight_scale", "weight_scale_inv", "_scale", "input_scale", "qzeros", "g_idx"):
        return (
            f"{what}, because the weights are still quantised (FP8, GPTQ or the like)",
            name,
            "use the bfloat16 release of the model",
        )
    if "lora" in name:
        return f"{what}, a LoRA that was not fused", name, "fuse it first with `mlx_lm.fuse`"
    return (
        what,
        name,
        "save the model again with the class that config.json names (for a missing `model.` "
        "prefix: as …ForCausalLM), or use a newer llama-cpp-python",
    )


def _architecture(match: re.Match[str]) -> tuple[str, str | None, str]:
    name = shown(match["name"])
    return (
        f"the architecture {name} is not supported",
        name,
        "choose a base model whose `architectures` in config.json this llama.cpp release knows, "
        "or a newer llama-cpp-python",
    )


def _no_architecture(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return (
        "config.json has no architectures",
        "architectures",
        "copy config.json from the base model's repository",
    )


def _packed_dtype(match: re.Match[str]) -> tuple[str, str | None, str]:
    return (
        f"it cannot read weights of dtype {match['name']}, which hold packed values",
        match["name"],
        "fuse with `mlx_lm.fuse --dequantize`, or use the bfloat16 release of the model",
    )


def _pre_tokenizer(match: re.Match[str]) -> tuple[str, str | None, str]:
    known = f" (hash {match['hash'][:16]}…)" if match["hash"] else ""
    return (
        f"the BPE pre-tokenizer was not recognised{known}, so the tokenizer differs from every "
        "known one",
        "tokenizer.json",
        f"{_TOKENIZER_FIX} (fine-tuning tools often re-save them changed)",
    )


def _tokenizer_model(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return "tokenizer.model is missing", "tokenizer.model", _TOKENIZER_MODEL_FIX


def _vocab_size(match: re.Match[str]) -> tuple[str, str | None, str]:
    counts = shown(match["counts"]) if match["counts"] else "the counts differ"
    return (
        f"the vocabulary and the embedding differ in size ({counts})",
        "vocab_size",
        "remove the tokens that were added to the tokenizer, or resize the embedding to match",
    )


def _vocab_assert(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return (
        "the tokenizer has more tokens than vocab_size in config.json",
        "vocab_size",
        "remove the tokens that were added to the tokenizer, or resize the embedding to match",
    )


def _disk(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return "the disk is full", None, "free space where the GGUF file is written"


def _memory(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return "it ran out of memory", None, "close other programs or use a machine with more memory"


def _machine(match: re.Match[str]) -> tuple[str, str | None, str]:
    said = shown(match["said"], 80)
    return f"this machine got in its way ({said})", None, "mend that and run the command again"


def _module(match: re.Match[str]) -> tuple[str, str | None, str]:
    name = shown(match["name"])
    return f"the Python package {name} is missing", None, f"run `python -m pip install {name}`"


def _missing_files(match: re.Match[str]) -> tuple[str, str | None, str]:
    return (
        f"weight files are missing or incomplete ({shown(match['files'])})",
        None,
        "download the model again",
    )


def _quant_method(match: re.Match[str]) -> tuple[str, str | None, str]:
    method = shown(match["name"])
    return (
        f"weights quantised with {method} cannot be converted",
        "quantization_config",
        "use the unquantised release of the model",
    )


def _tokenizers_version(match: re.Match[str]) -> tuple[str, str | None, str]:
    del match
    return (
        "tokenizer.json is newer than the installed tokenizers package",
        "tokenizer.json",
        "run `python -m pip install -U tokenizers transformers`",
    )


def _absent_setting(match: re.Match[str]) -> tuple[str, str | None, str]:
    name = shown(match["name"])
    return (
        f"config.json lacks {name}",
        name,
        "copy config.json from the base model's repository",
    )


_CAUSES = (
    _Cause(re.compile(r"Can ?not map tensor '(?P<name>[^'\n]+)'"), _unmapped),
    _Cause(re.compile(r"Unrecognized tensor name: '(?P<name>[^'\n]+)'"), _unmapped),
    _Cause(re.compile(r"No space left on device"), _disk, machine=True),
    _Cause(
        re.compile(
            r"^MemoryError|DefaultCPUAllocator: (?:can't|not enough)|Cannot allocate memory"
            r"|_ArrayMemoryError",
            re.MULTILINE,
        ),
        _memory,
        machine=True,
    ),
    _Cause(re.compile(rf"(?P<said>{_MACHINE})"), _machine, machine=True),
    _Cause(re.compile(r"KeyError: '(?P<name>(?:U|F4|F6|F8)[A-Z0-9_]*)'"), _packed_dtype),
    _Cause(re.compile(r"Model (?P<name>\S+) is not supported"), _architecture),
    _Cause(re.compile(r"Architecture '(?P<name>[^'\n]+)' not supported"), _architecture),
    _Cause(re.compile(r"Failed to detect model architecture"), _no_architecture),
    _Cause(re.compile(r"Quant method is not yet supported: '(?P<name>[^'\n]+)'"), _quant_method),
    # Before tokenizer.model, which the converter tries first and whose absence it logs too.
    _Cause(
        re.compile(
            r"pre-tokenizer was not recognized(?:.*?chkhsh:\s+(?P<hash>[0-9a-f]{64}))?", re.DOTALL
        ),
        _pre_tokenizer,
    ),
    _Cause(re.compile(r"untagged enum ModelWrapper"), _tokenizers_version),
    _Cause(re.compile(r"Vocab size mismatch(?: \((?P<counts>[^\n]*?)\))?"), _vocab_size),
    _Cause(re.compile(r"assert max\(.*vocab.*\) < vocab_size"), _vocab_assert),
    _Cause(
        re.compile(
            r"Missing tokenizer\.model|(?:not found|FileNotFoundError)[^\n]*tokenizer\.model"
        ),
        _tokenizer_model,
    ),
    _Cause(re.compile(r"Missing or incomplete model files: (?P<files>[^\n]+)"), _missing_files),
    _Cause(
        re.compile(r"ModuleNotFoundError: No module named '(?P<name>[^'\n]+)'"),
        _module,
        machine=True,
    ),
    _Cause(re.compile(r"could not find any of: (?P<name>[^\n]+)"), _absent_setting),
)


def _last_line(log: str) -> str:
    """The log's last line that says something: no progress bar, no traceback frame."""
    lines = [line.strip() for chunk in log.splitlines() for line in chunk.split("\r")]
    telling = [
        line
        for line in lines
        if line
        and not line.startswith(("INFO:", "Writing:", "File ", "^", "~", "Traceback"))
        and "%|" not in line
    ]
    return shown(telling[-1], 200) if telling else ""
