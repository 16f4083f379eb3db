"""Does the tokenizer in the GGUF file read texts as the original does? Needs no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.checkpoints.chat_template import check_chat_template, find_template
from harness.checkpoints.converter import convert
from harness.checkpoints.folder import has_tokenizer, read_config, read_weight_headers
from harness.checkpoints.gguf_forecast import embedding_of, text_config
from harness.checkpoints.original_tokenizer import OriginalTokenizer, end_tokens, open_original
from harness.checkpoints.safetensors import shown
from harness.checkpoints.tokenizer_texts import all_texts, texts_around
from harness.errors import ConversionError, ModelError
from harness.gates.context import Gate, GateContext, Tools
from harness.records import Finding, Observation, Scalar

PUT_BACK = "put back the tokenizer files of the original base, then convert again"
_SPECIAL = 24
"""Special tokens that get texts of their own; some models have thousands."""


class Compared(NamedTuple):
    """How alike two tokenizers are on the same texts."""

    texts: int
    equal: int
    first: str | None
    """The first text that they cut differently."""
    at: str
    """What each makes of it, from the first token that differs."""


def observe(context: GateContext, tools: Tools) -> Observation:
    """Write a GGUF of nothing but the vocabulary, open it, and compare."""
    del tools  # no weights, so nothing to load
    folder, facts = context.subject.model, context.facts
    missing = facts is not None and facts.parts["tokenizer"].standing == "missing"
    if missing or not has_tokenizer(folder):
        return Observation(gate="tokenizer", depth="header", not_run=_reason(context))
    file = context.work_dir / "vocabulary.gguf"
    try:
        convert(folder, file, cache_dir=context.cache_dir, timeout_s=120, mode="vocabulary_only")
        # Only now, so that the converter and transformers are not in memory together.
        return _compare_with(file, open_original(folder), folder)
    except (ConversionError, ModelError) as error:
        if isinstance(error, ConversionError) and error.machine:
            raise
        fix = error.fix if isinstance(error, ConversionError) else None
        message = str(error).removesuffix(f"; {fix}")
        return _seen({}, [Finding(severity="fail", message=message, fix=fix or PUT_BACK)])


def compare(
    texts: Sequence[str],
    original: Callable[[str], list[int]],
    converted: Callable[[str], list[int]],
) -> Compared:
    """Tokenise every text with both."""
    equal, first, at = 0, None, ""
    for text in texts:
        ours, theirs = original(text), converted(text)
        equal += ours == theirs
        if ours != theirs and first is None:
            first = text
            start = next(
                (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(ours), len(theirs)),
            )
            at = f"{ours[start : start + 6]} against {theirs[start : start + 6]}"
    return Compared(len(texts), equal, first, at)


def _compare_with(file: Path, original: OriginalTokenizer, folder: Path) -> Observation:
    from harness.engines.llamacpp import open_vocabulary

    vocabulary = open_vocabulary(file)
    seen = compare(_texts(original, folder), original.tokenize, vocabulary.tokenize)
    findings = []
    if seen.first is not None:
        findings.append(
            Finding(
                severity="note",
                message=f"first text that is cut differently: {shown(seen.first, 60)!r}, tokens "
                f"{seen.at}",
                fix=PUT_BACK,
            )
        )
    rows = _rows(folder)
    if rows is not None and rows != vocabulary.size:
        message = (
            f"the file's vocabulary has {vocabulary.size} tokens and the embedding {rows} rows, so "
            "llama.cpp would refuse to open it"
        )
        fix = "put back the tokenizer files of the base, or resize the embedding to match"
        findings.append(Finding(severity="fail", message=message, fix=fix))
    ends = {token for token in (*end_tokens(folder), original.eos) if token is not None}
    deaf = sorted(token for token in ends if token >= vocabulary.size or not vocabulary.ends(token))
    template = find_template(folder)
    numbers: dict[str, Scalar] = {
        "texts": seen.texts,
        "equal": seen.equal,
        "first_difference": None if seen.first is None else shown(seen.first, 60),
        "gguf_tokens": vocabulary.size,
        "original_tokens": original.size,
        "embedding_rows": rows,
        "pre_tokenizer": _word(vocabulary.metadata("tokenizer.ggml.pre")),
        "kind": _word(vocabulary.metadata("tokenizer.ggml.model")),
        "bos_equal": original.bos is None or original.bos == vocabulary.bos,
        "eos_equal": original.eos is None or original.eos == vocabulary.eos,
        "end_tokens": len(ends),
        "end_tokens_unknown": len(deaf),
        "has_chat_template": template is not None,
        "template_equal": vocabulary.metadata("tokenizer.chat_template") == template,
    }
    vocabulary.close()
    return _seen(numbers, findings)


def _texts(original: OriginalTokenizer, folder: Path) -> tuple[str, ...]:
    """The fixed texts, and some made of this model's own special tokens and chat template."""
    step = max(1, len(original.special) // _SPECIAL)
    own = [text for token in original.special[::step][:_SPECIAL] for text in texts_around(token)]
    prompt = check_chat_template(folder)
    return (*all_texts(), *own, *([prompt] if prompt else []))


def _rows(folder: Path) -> int | None:
    """Rows of the embedding, from the headers where there are any; None where it is cut to fit."""
    config = read_config(folder)
    if str(config["model_type"]).startswith("gemma3"):
        return None  # the converter cuts rows that have no token
    if any(folder.glob("model*.safetensors")):
        headers = read_weight_headers(folder).values()
        found = embedding_of({n: info for h in headers for n, info in h.tensors.items()})
        if found is not None:
            return found[1].shape[0]
    size = text_config(config).get("vocab_size")
    return size if type(size) is int else None


def _reason(context: GateContext) -> str:
    known = context.facts.parts["tokenizer"] if context.facts is not None else None
    why = f": {known.note}" if known is not None and known.note else ""
    return (
        f"its tokenizer files are not here{why}; put "
        "tokenizer.json and tokenizer_config.json (and tokenizer.model, if it has one) beside "
        "config.json and use `harness vet --model-dir DIR`, or go online"
    )


def _word(value: str | None) -> str:
    return shown(value, 40) if value is not None else "none"


def _seen(numbers: dict[str, Scalar], findings: list[Finding]) -> Observation:
    return Observation(gate="tokenizer", depth="header", numbers=numbers, findings=tuple(findings))


def asked(context: GateContext) -> dict[str, Any]:
    """Which texts are compared, and whether the tokenizer is to be had."""
    facts = context.facts
    return {
        "texts": len(all_texts()),
        "standing": facts.parts["tokenizer"].standing if facts is not None else None,
    }


GATE = Gate("tokenizer", observe, asked, depth="header")
