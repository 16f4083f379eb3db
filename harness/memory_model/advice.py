"""The largest setting that fits, and the command line that trains with it.

What is given up first costs the least. A float32 model becomes bfloat16. Gradient checkpointing
and smaller batches with gradient accumulation cost time only. Then the base is quantised, which
costs little: a LoRA on a 4-bit base reached the quality of one on 16 bits (QLoRA, arXiv
2305.14314). Then the longest examples are cut, and last fewer layers are trained, since both take
away what the adapter can learn.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from harness.memory_model.predict import predict
from harness.memory_model.settings import Prediction, Settings
from harness.memory_model.shapes import Architecture
from harness.records import Record

SHORTEST_EXAMPLE = 128
"""Tokens; below it hardly a question with its answer is left."""
FEWEST_LAYERS = 4
ROOM_FOR_8_BITS = 0.5
"""8-bit weights beyond this share of the limit leave too little for the longest batch; 4 bits."""


class Fit(Record):
    """A setting that fits, and what it is predicted to take."""

    settings: Settings
    prediction: Prediction
    given_up: tuple[str, ...]
    """What was changed from the wanted settings, in order, for people."""


def fits(prediction: Prediction, limit_gb: float) -> bool:
    """Whether training fits even at the upper end of its interval, and inference does."""
    return prediction.train_high_gb <= limit_gb and prediction.inference_peak_gb <= limit_gb


def largest_that_fits(architecture: Architecture, wanted: Settings, limit_gb: float) -> Fit | None:
    """The wanted settings, or the least changed ones that fit `limit_gb`; None where none does."""
    for settings in _ladder(architecture, wanted, limit_gb):
        if fits(predict(architecture, settings), limit_gb):
            kept = _taken_back(architecture, wanted, settings, limit_gb)
            return Fit(
                settings=kept,
                prediction=predict(architecture, kept),
                given_up=_changes(wanted, kept),
            )
    return None


def _taken_back(
    architecture: Architecture, wanted: Settings, found: Settings, limit_gb: float
) -> Settings:
    """`found` without the early sacrifices that a later one made needless, examples first."""
    whole = wanted.padded_tokens // wanted.batch * found.batch
    examples = {"tokens_per_batch": whole, "max_seq": wanted.max_seq}
    batches = {"batch": wanted.batch, "tokens_per_batch": wanted.tokens_per_batch}
    sooner: tuple[dict[str, Any], ...] = (
        examples,
        {**batches, "max_seq": wanted.max_seq},
        {"grad_checkpoint": wanted.grad_checkpoint},
    )
    for change in sooner:
        candidate = found.model_copy(update=change)
        if fits(predict(architecture, candidate), limit_gb):
            found = candidate
    return found


def _ladder(architecture: Architecture, wanted: Settings, limit_gb: float) -> Iterator[Settings]:
    """Settings from the wanted ones downwards; each step keeps what the one before gave up."""
    now = wanted
    yield now
    if predict(architecture, now).bits == 32:
        now = now.model_copy(update={"bits": 16})
        yield now
    if not now.grad_checkpoint:
        now = now.model_copy(update={"grad_checkpoint": True})
        yield now
    while now.batch > 1:
        batch = now.batch // 2
        tokens = max(1, now.padded_tokens // now.batch * batch)
        now = now.model_copy(update={"batch": batch, "tokens_per_batch": tokens})
        yield now
    bits = predict(architecture, now).bits
    for fewer in (8, 4):
        if fewer < bits:
            smaller = now.model_copy(update={"bits": fewer})
            crowded = predict(architecture, smaller).weights_gb > ROOM_FOR_8_BITS * limit_gb
            if fewer == 8 and crowded:
                continue
            now = smaller
            yield now
    while now.padded_tokens // now.batch > SHORTEST_EXAMPLE:
        longest = max(SHORTEST_EXAMPLE, now.padded_tokens // now.batch // 2)
        now = now.model_copy(update={"tokens_per_batch": longest * now.batch, "max_seq": longest})
        yield now
    layers = predict(architecture, now).lora_layers
    while layers > FEWEST_LAYERS:
        layers = max(FEWEST_LAYERS, layers // 2)
        now = now.model_copy(update={"lora_layers": layers})
        yield now


def _changes(wanted: Settings, fit: Settings) -> tuple[str, ...]:
    changes = []
    if fit.grad_checkpoint and not wanted.grad_checkpoint:
        changes.append("gradient checkpointing")
    if fit.batch != wanted.batch:
        changes.append(f"batches of {fit.batch} with {wanted.batch // fit.batch} accumulated")
    if fit.bits != wanted.bits:
        changes.append(f"the base in {fit.bits} bits")
    before, after = wanted.padded_tokens // wanted.batch, fit.padded_tokens // fit.batch
    if after < before:
        changes.append(f"examples of at most {after} tokens")
    if fit.lora_layers != wanted.lora_layers:
        changes.append(f"{fit.lora_layers} layers")
    return tuple(changes)


def lora_command(
    model: str,
    settings: Settings,
    adapter_path: str,
    *,
    wanted: Settings | None = None,
    scale: float = 1.33,
    learning_rate: float = 5e-6,
) -> str:
    """One line for a shell: quantise the base if need be, write LoRA's config, and train.

    `model` is a folder or a Hub repository; `wanted` are the settings before anything was given
    up, whose batch is kept up by accumulation. mlx-lm takes rank, scale, dropout and keys only
    from a file. `quantise` says whether the base has to be packed first; None = where bits are
    below 16.
    """
    steps, base = [], model
    if settings.bits is not None:
        base = f"{model.rstrip('/').rsplit('/', 1)[-1]}-{settings.bits}bit"
        how = f"-q --q-bits {settings.bits} --q-group-size {settings.group_size}"
        if settings.bits >= 16:
            how = f"--dtype {'bfloat16' if settings.bits == 16 else 'float32'}"
        source, target = shlex.quote(model), shlex.quote(base)
        steps.append(f"mlx_lm.convert --hf-path {source} --mlx-path {target} {how}")
    lora = f"rank: {settings.rank}, scale: {scale:g}, dropout: {settings.dropout:g}"
    if settings.lora_keys is not None:
        lora += f", keys: [{', '.join(settings.lora_keys)}]"
    steps.append(f"printf '%s\\n' {shlex.quote(f'lora_parameters: {{{lora}}}')} > lora.yaml")
    train = [
        f"mlx_lm.lora --train --model {shlex.quote(base)} --data data",
        f"--num-layers {settings.lora_layers} --batch-size {settings.batch}",
        f"--max-seq-length {settings.padded_tokens // settings.batch}",
    ]
    if settings.grad_checkpoint:
        train.append("--grad-checkpoint")
    if wanted is not None and wanted.batch > settings.batch:
        train.append(f"--grad-accumulation-steps {wanted.batch // settings.batch}")
    if settings.optimizer != "adam":
        train.append(f"--optimizer {settings.optimizer}")
    train.append(
        f"--learning-rate {learning_rate:g} -c lora.yaml --adapter-path {shlex.quote(adapter_path)}"
    )
    return " && ".join([*steps, " ".join(train)])
