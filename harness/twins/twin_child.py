"""Child process: a model of transformers' own class with random weights, and its logits.

Run by path with `python -P`. Arguments: the parent's process id, a folder with config.json, a
JSON file with the texts (lists of token ids), an output folder, and a seed. Writes the model into
the output folder in the published layout, `logits.npz` (one array a text) and `result.json`:
{"class", "parameters"}, or {"unknown": why transformers has no such model}, or {"broken": why it
could not be built}.
"""

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

POLL_S = 0.5
LOGIT_SPREAD = 1.5
"""Standard deviation of the logits, in nats."""
SCORE_SPREAD = 2.0
"""Standard deviation of the attention scores, in nats: flat attention would hide a wrong rope."""
LAYER_SHARE = 8.0
"""A layer's output weights, against the embedding: so that the layers decide, not the token."""
POST_NORM = 3.0
"""Added to the norms of what a layer adds, for the same reason."""
JITTER = 0.1
"""Norms, biases and the like: their usual start ± this."""


def main() -> None:
    parent, folder, texts, out, seed = sys.argv[1:6]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    os.environ["HF_HUB_OFFLINE"] = "1"
    result = _run(Path(folder), json.loads(Path(texts).read_text("utf-8")), Path(out), int(seed))
    Path(out, "result.json").write_text(json.dumps(result), encoding="utf-8")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


def _run(folder: Path, texts: list[list[int]], out: Path, seed: int) -> dict[str, object]:
    import numpy as np
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return {"unknown": _line(error)}
    names = getattr(config, "architectures", None) or []
    cls = getattr(transformers, names[0], None) if names else None
    # The name is the config's: nothing but a model class may come of it.
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        cls = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if cls is None:
        return {"unknown": f"transformers has no language model of model_type {config.model_type}"}
    try:
        config._attn_implementation = "eager"
        model = cls(config).float().eval()
        with torch.no_grad():
            _randomise(model, config, torch)
        model.save_pretrained(out)
        with torch.no_grad():
            logits = [
                model(input_ids=torch.tensor([text]), use_cache=False).logits[0].numpy()
                for text in texts
            ]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return {"broken": f"{type(error).__name__}: {_line(error)}"}
    # As published, not as this release of transformers would write it.
    (out / "config.json").write_text((folder / "config.json").read_text("utf-8"), "utf-8")
    with contextlib.suppress(OSError):
        (out / "generation_config.json").unlink()
    np.savez(out / "logits.npz", *logits)
    return {"class": cls.__name__, "parameters": sum(p.numel() for p in model.parameters())}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _randomise(model: Any, config: Any, torch: Any) -> None:
    """Random weights in which embedding, attention, rope and every multiplier matter.

    A matrix has standard deviation gain / √fan_in, which keeps the size of what goes through it.
    """
    text = config.get_text_config()
    gains = _gains(text)
    # Where what a layer adds is normalised, the size of its last matrix says nothing.
    normed = any("post_feedforward_layernorm" in name for name, _ in model.named_parameters())
    conv1d = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module).__name__ == "Conv1D"
    }
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            weight.add_(torch.randn_like(weight) * JITTER)
            if normed and re.search(r"post_\w+_layernorm\.weight$", name):
                weight.add_(POST_NORM)
            continue
        fan_in = weight.shape[0] if name in conv1d else math.prod(weight.shape[1:])
        if weight.ndim == 3 and "conv" not in name:  # one matrix for each expert
            fan_in = weight.shape[-1]
        std = next((gain for pattern, gain in gains if pattern.search(name)), 1.0)
        if not _is_table(name):
            std /= math.sqrt(fan_in)
        weight.normal_(0.0, std)


def _is_table(name: str) -> bool:
    return bool(re.search(r"(embed_tokens|wte|wpe|embed_positions|embeddings?)\.weight$", name))


def _gains(text: Any) -> list[tuple[re.Pattern[str], float]]:
    """Name pattern → gain of a matrix, or standard deviation of an embedding."""
    hidden = text.hidden_size
    head_dim = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    logits = LOGIT_SPREAD * (getattr(text, "logits_scaling", None) or 1.0)
    entry = getattr(text, "embedding_multiplier", None) or 1.0
    if str(text.model_type).startswith("gemma"):
        entry = math.sqrt(hidden)
    tied = getattr(text, "tie_word_embeddings", True)
    table = logits / math.sqrt(hidden) if tied else 1.0
    share = LAYER_SHARE * table * entry / (getattr(text, "residual_multiplier", None) or 1.0)
    scale = getattr(text, "attention_multiplier", None)
    if scale is None:
        scale = (getattr(text, "query_pre_attn_scalar", None) or head_dim) ** -0.5
    score = math.sqrt(SCORE_SPREAD / (scale * math.sqrt(head_dim)))
    return [
        (re.compile(r"vision|projector|encoder\."), 0.5),
        (re.compile(r"(embed_tokens|wte|embeddings?)\.weight$"), table),
        (re.compile(r"(wpe|embed_positions)\.weight$"), table * entry),
        (re.compile(r"lm_head|output_projection"), logits),
        (re.compile(r"\b(q|k)_proj\."), score),
        (re.compile(r"o_proj|down_proj|out_proj|output_linear|c_proj|fc2|dense_4h_to_h"), share),
        (re.compile(r"qkv_proj|c_attn|query_key_value"), math.sqrt(score)),
    ]


if __name__ == "__main__":
    main()
