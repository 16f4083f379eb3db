"""Logs of real conversion failures, each with the issue that it was reported in."""

from __future__ import annotations

import pickle

import pytest

from harness.checkpoints.gguf_failures import explain_failure

LLAMA_CPP = "https://github.com/ggml-org/llama.cpp/issues/"

CASES = [
    # log, offending tensor or setting, word in the fix, issue
    (
        "ValueError: Unrecognized tensor name: 'lm_head.scales'",
        "lm_head.scales",
        "--dequantize",
        22431,
    ),
    ("ValueError: Can not map tensor 'lm_head.biases'", "lm_head.biases", "--dequantize", 14467),
    (
        "Can not map tensor 'model.embed_tokens.biases'",
        "model.embed_tokens.biases",
        "--dequantize",
        12524,
    ),
    (
        "ERROR:hf-to-gguf:Model MllamaForConditionalGeneration is not supported",
        "MllamaForConditionalGeneration",
        "base model",
        13805,
    ),
    (
        "NotImplementedError: Architecture 'M2M100ForConditionalGeneration' not supported!",
        "M2M100ForConditionalGeneration",
        "base model",
        6718,
    ),
    (
        "NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()",
        "tokenizer.json",
        "copy tokenizer.json",
        8649,
    ),
    ("Error: Missing tokenizer.model", "tokenizer.model", "copy tokenizer.model", 6419),
    ("FileNotFoundError: tokenizer.model", "tokenizer.model", "copy tokenizer.model", 19152),
    (
        "FileNotFoundError: File not found: Merged/tokenizer.model",
        "tokenizer.model",
        "copy tokenizer.model",
        1197,
    ),
    (
        "Exception: data did not match any variant of untagged enum ModelWrapper",
        "tokenizer.json",
        "pip install -U tokenizers",
        12819,
    ),
    (
        "Exception: Vocab size mismatch (model has 32000, but x/tokenizer.model has 32001).",
        "vocab_size",
        "remove the tokens",
        6111,
    ),
    (
        "ValueError: Can not map tensor 'model.layers.0.mlp.down_proj.SCB'",
        "model.layers.0.mlp.down_proj.SCB",
        "unquantised",
        12923,
    ),
    (
        "Can not map tensor 'model.layers.0.mlp.down_proj.weight.absmax'",
        "model.layers.0.mlp.down_proj.weight.absmax",
        "unquantised",
        5647,
    ),
    (
        "ValueError: Can not map tensor 'model.layers.0.mlp.down_proj.weight_scale_inv'",
        "model.layers.0.mlp.down_proj.weight_scale_inv",
        "bfloat16",
        12644,
    ),
    (
        "ValueError: Can not map tensor 'lm_head.weight._scale'",
        "lm_head.weight._scale",
        "bfloat16",
        9252,
    ),
    (
        "ValueError:Can not map tensor 'embed_tokens.weight'",
        "embed_tokens.weight",
        "ForCausalLM",
        9211,
    ),
    (
        "FileNotFoundError: File not found: m/tokenizer.model\n"
        "During handling of the above exception, another exception occurred:\n"
        "FileNotFoundError: Cannot find Llama BPE tokenizer\n"
        "NotImplementedError: BPE pre-tokenizer was not recognized",
        "tokenizer.json",
        "copy tokenizer.json",
        13421,
    ),
]


@pytest.mark.parametrize(
    ("log", "culprit", "fix", "issue"), CASES, ids=lambda value: str(value)[:30]
)
def test_known_failures(log: str, culprit: str, fix: str, issue: int) -> None:
    traceback = f"INFO:hf-to-gguf:Loading model: x\nTraceback (most recent call last):\n{log}\n"
    error = explain_failure(traceback, 1)
    assert error.tensor == culprit, f"see {LLAMA_CPP}{issue}"
    assert error.fix is not None
    assert fix in error.fix
    assert str(error).endswith(error.fix)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.tensor, again.fix) == (str(error), error.tensor, error.fix)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("MemoryError\n", "out of memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "out of memory"),
        ("ModuleNotFoundError: No module named 'sentencepiece'", "pip install sentencepiece"),
        ("ValueError: Missing or incomplete model files: ['a.safetensors']", "['a.safetensors']"),
        ("KeyError: \"could not find any of: ['n_layers', 'num_hidden_layers']\"", "n_layers"),
        ("NotImplementedError: Quant method is not yet supported: 'awq'", "quantised with awq"),
        ("KeyError: 'U32'", "cannot read weights of dtype U32"),
        ("ValueError: Failed to detect model architecture", "config.json has no architectures"),
    ],
)
def test_other_causes(log: str, says: str) -> None:
    assert says in str(explain_failure(f"Traceback (most recent call last):\n{log}", 1))


@pytest.mark.parametrize(
    ("log", "machine"),
    [
        ("OSError: [Errno 28] No space left on device", True),
        ("ModuleNotFoundError: No module named 'sentencepiece'", True),
        ("ValueError: Can not map tensor 'lm_head.biases'", False),
        ("RuntimeError: something else", False),
        ("MemoryError", True),
        ("RuntimeError: can't start new thread", True),
        ("OSError: [Errno 24] Too many open files", True),
        ("", True),
    ],
)
def test_a_full_disk_says_nothing_of_the_model(log: str, machine: bool) -> None:
    assert explain_failure(log, 1).machine is machine
    assert explain_failure("", -9).machine
    assert pickle.loads(pickle.dumps(explain_failure(log, 1))).machine is machine


def test_the_hash_of_an_unknown_pre_tokenizer_is_told() -> None:
    log = (
        "WARNING:hf-to-gguf:** WARNING: The BPE pre-tokenizer was not recognized!\n"
        f"WARNING:hf-to-gguf:** chkhsh:  {'8e62295832751ca1' * 4}\n"
        "NotImplementedError: BPE pre-tokenizer was not recognized - update it\n"
    )
    assert "not recognised (hash 8e62295832751ca1…)" in str(explain_failure(log, 1))


def test_the_last_telling_line_is_the_fallback() -> None:
    log = (
        "INFO:hf-to-gguf:Loading model: x\n"
        "Traceback (most recent call last):\n"
        '  File "base.py", line 1, in f\n'
        "    raise RuntimeError()\n"
        "    ^^^^^^^^^^^^^^^\n"
        "RuntimeError: the moon\x1b[0m is full\n"
        "Writing:  21%|██  | 56.6M/269M [00:00<00:01, 166Mbyte/s]\n"
    )
    assert r"it ended with: RuntimeError: the moon\x1b[0m is full" in str(explain_failure(log, 1))
    assert "exit status 3" in str(explain_failure("", 3))
    assert "killed by signal 9" in str(explain_failure("", -9))
