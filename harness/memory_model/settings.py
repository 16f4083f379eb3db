"""What a prediction is for, and what it says."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from harness.records import Record

Device: TypeAlias = Literal["auto", "metal", "cpu"]
"""Whose memory is meant; `predict` looks at no machine, and takes "auto" for "metal"."""
Bits: TypeAlias = Literal[32, 16, 8, 6, 5, 4, 3, 2]
Tokens: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]

AVERAGE = (1.0, 1.5, 4.0)
"""The longest batch over the average one: at least, most likely, at most."""
LONGER = 3.0
"""Where `max_seq` is above tokens_per_batch / batch, the upper end of the interval allows for a
longest batch of up to this many times as many tokens: few data sets are even."""
OLD_KEYS = ("self_attn.q_proj", "self_attn.v_proj")
"""What mlx-lm adapted in most families before 0.29: queries and values only."""


class Settings(Record):
    """How a model is run and trained; the defaults are mlx-lm's own where it has one."""

    bits: Bits | None = None
    """Bits of the weights; None = as stored (the config's quantization, else its dtype)."""
    group_size: Literal[16, 32, 64, 128] = 64
    """Weights that share a scale, where `bits` asks for quantised ones."""
    context: Tokens = 2048
    """Prompt and reply in tokens, for inference."""
    inference_batch: Annotated[int, Field(ge=1, le=4096)] = 1
    lora_layers: Annotated[int, Field(ge=-1, le=10_000)] = 16
    """Layers with an adapter, counted from the top; -1 = all."""
    rank: Annotated[int, Field(ge=1, le=65_536)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """LoRA dropout; above 0 each adapted matrix keeps a masked input of its own."""
    lora_keys: tuple[str, ...] | None = None
    """Adapted matrices by their name within a layer; None = all (mlx-lm since 0.29)."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    tokens_per_batch: Tokens = 1024
    """Padded tokens of the longest batch: batch × its longest example."""
    max_seq: Tokens | None = None
    """Longest example; longer ones are cut, so a batch has at most batch × max_seq tokens."""
    grad_checkpoint: bool = False
    optimizer: Literal["adam", "adamw", "sgd", "adafactor", "muon"] = "adam"
    device: Device = "metal"
    tokens_are: Literal["longest", "average"] = "longest"
    """"average" where `tokens_per_batch` is the mean of a training log: the longest batch, which
    sets the peak, then counts as 1.5 times that, and the interval reaches from 1 to 4 times."""

    @property
    def token_range(self) -> tuple[int, int, int]:
        """Padded tokens of the longest batch: at least, most likely, and at most.

        The three are one number unless the tokens are an average, or `max_seq` would let a batch
        grow beyond `tokens_per_batch`.
        """
        if self.tokens_are == "average":
            factors = AVERAGE
        else:
            factors = (1.0, 1.0, 1.0 if self.max_seq is None else LONGER)
        low, likely, high = (round(self.tokens_per_batch * factor) for factor in factors)
        if self.max_seq is None:
            return low, likely, high
        cap = self.batch * self.max_seq
        return min(low, cap), min(likely, cap), min(high, cap)

    @property
    def padded_tokens(self) -> int:
        """Most likely tokens of the longest batch after `max_seq` has cut it."""
        return self.token_range[1]


class Prediction(Record):
    """Peaks of MLX's allocator in GB (10⁹ bytes), as `mx.get_peak_memory` reports them."""

    inference_peak_gb: float
    train_peak_gb: float
    train_low_gb: float
    """Lower and upper end of the interval that should hold four of five real peaks."""
    train_high_gb: float
    breakdown_gb: dict[str, float]
    """Parts of `train_peak_gb`; they add up to it."""
    inference_breakdown_gb: dict[str, float]
    """Parts of `inference_peak_gb`."""
    weights_gb: float
    bits: int
    """Bits of the weights that were assumed."""
    parameters: int
    trainable_parameters: int
    lora_layers: int
    """Trained layers, with -1 resolved."""
