"""What the memory model knows of a network: its layers, their matrices and their widths.

Shapes only, as mlx-lm builds them. A width is a number of elements per token.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from harness.records import Record

Activation: TypeAlias = Literal["swiglu", "gelu", "gelu_approx", "plain_gelu"]


class Linear(Record):
    """One matrix that LoRA may adapt: `experts` matrices of outputs × inputs each."""

    name: str
    """Name within its layer, e.g. "self_attn.q_proj": what LoRA's `keys` hold."""
    inputs: int
    outputs: int
    bias: bool = False
    experts: int = 1
    """Matrices in a stack (a mixture's SwitchLinear), each with an adapter of its own."""
    per_token: int = 1
    """How many of the experts read a token."""
    source: str
    """Which activation it reads; matrices with the same source share the saved input."""
    bits: int | None = None
    """Bits it is quantised to whatever the rest gets (a router's 8), None = like the rest."""

    @property
    def parameters(self) -> int:
        """Elements of all its matrices and biases."""
        return self.experts * self.outputs * (self.inputs + int(self.bias))

    def adapter(self, rank: int) -> int:
        """Elements of its LoRA pair: rank × (inputs + outputs), for each matrix of a stack."""
        return self.experts * rank * (self.inputs + self.outputs)


class Attention(Record):
    """Softmax attention of one layer."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Tokens a sliding window sees; None = all."""
    normed: bool = False
    """Queries and keys pass a norm of their own (qwen3, gemma3, olmo2)."""
    composed: bool = False
    """mlx-lm writes it out in single operations and never calls the fused kernel (gemma2)."""
    joined: bool = False
    """One matrix gives queries, keys and values; its output lives on beside their copies."""

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_dim


class StateSpace(Record):
    """A Mamba-2 mixer of one layer."""

    heads: int
    head_dim: int
    state: int
    groups: int
    kernel: int
    """Width of the causal convolution."""

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def conv_width(self) -> int:
        return self.inner + 2 * self.groups * self.state


class FeedForward(Record):
    """One gated or plain feed-forward block, or a mixture of them."""

    width: int
    """Hidden width of the block, of one expert in a mixture."""
    activation: Activation = "swiglu"
    copies: int = 1
    """How many experts read each token."""
    experts: int = 1
    joined: bool = False
    """One matrix gives gate and up; its output lives on beside their copies."""


class Layer(Record):
    """One transformer or Mamba block."""

    mixer: Attention | StateSpace
    blocks: tuple[FeedForward, ...]
    linears: tuple[Linear, ...]
    norms: int = 2
    """Norms over the full width, each of which keeps its input for the gradient."""
    other_parameters: int = 0
    """Elements that are neither in `linears` nor adapted: norms, convolutions."""

    @property
    def kind(self) -> str:
        """ "mamba", "attention" or "sliding attention", with "+ experts" for a mixture."""
        if isinstance(self.mixer, StateSpace):
            name = "mamba"
        else:
            name = "attention" if self.mixer.window is None else "sliding attention"
        return name + (" + experts" if any(b.experts > 1 for b in self.blocks) else "")

    @property
    def parameters(self) -> int:
        return sum(linear.parameters for linear in self.linears) + self.other_parameters


class Quantisation(Record):
    """How the stored weights are packed."""

    bits: int
    group_size: int
    overrides: dict[str, tuple[int, int] | None] = Field(default_factory=dict)
    """Module path → (bits, group size), None for a module that is left as it is."""


class Architecture(Record):
    """A whole model, from its config alone."""

    family: str
    """config.json's model_type, e.g. "llama"."""
    layers: tuple[Layer, ...]
    layer_prefix: str
    """What stands before a layer's number in a module path, e.g. "model.layers"."""
    hidden: int
    vocab: int
    tied: bool
    """The output layer reuses the embedding matrix."""
    embeddings: tuple[tuple[str, int], ...]
    """Embedding matrices and the output layer, if it has one of its own: (path, rows)."""
    other_parameters: int
    """Elements outside layers and embeddings: the last norm."""
    stored_bits: Literal[16, 32]
    """Bits of the stored number type; activations have it too."""
    quantisation: Quantisation | None = None
    logit_copies: int = 0
    """Copies of the logits that operations after the output layer keep (gemma2's tanh)."""
    dropped: str = ""
    """Parts of the checkpoint that mlx-lm does not load, e.g. "vision tower"."""

    @property
    def parameters(self) -> int:
        """Elements that mlx-lm loads; tied embeddings count once."""
        inside = sum(layer.parameters for layer in self.layers)
        return (
            inside
            + sum(rows for _, rows in self.embeddings) * self.hidden
            + (self.other_parameters)
        )
