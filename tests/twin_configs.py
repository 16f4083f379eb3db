"""Published architecture numbers of one model for each family that a twin must know.

Each is the `config.json` of the Hub repository named beside it (https://huggingface.co/REPO),
without the keys that describe no computation. `phi3-longrope` is Phi-3.5 mini with factors of our
own: long ones that grow, as the published ones do.
"""

from __future__ import annotations

from typing import Any

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
    "hidden_act": "silu", "mlp_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": None,
    "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GRANITE: dict[str, Any] = {
    "attention_bias": False, "embedding_multiplier": 12, "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22, "logits_scaling": 8, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "num_attention_heads": 32, "num_hidden_layers": 40,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "rope_scaling": None, "torch_dtype": "bfloat16",
}  # fmt: skip
_GRANITE_4: dict[str, Any] = {
    **_GRANITE, "architectures": ["GraniteMoeHybridForCausalLM"],
    "model_type": "granitemoehybrid", "vocab_size": 100352, "shared_intermediate_size": 8192,
    "num_local_experts": 0, "num_experts_per_tok": 0, "mamba_chunk_size": 256,
    "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_groups": 1,
    "mamba_proj_bias": False, "normalization_function": "rmsnorm", "bos_token_id": 100257,
    "eos_token_id": 100257, "pad_token_id": 100256,
}  # fmt: skip
_MAMBA_EVERY_TEN = (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4
_GEMMA_3: dict[str, Any] = {
    "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
    "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1000000,
    "rope_local_base_freq": 10000, "query_pre_attn_scalar": 256, "vocab_size": 262144,
    "attention_bias": False, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768, "rope_scaling": None, "bos_token_id": 2,
    "eos_token_id": [1, 106], "torch_dtype": "bfloat16",
}  # fmt: skip
_PHI_3: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "attention_bias": False,
    "vocab_size": 32064, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
    "original_max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip

INTERNLM_2: dict[str, Any] = {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False,
    "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 32768,
    "num_attention_heads": 16, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 1000000,
    "tie_word_embeddings": False, "vocab_size": 92544,
}  # fmt: skip
"""internlm/internlm2-chat-1_8b: MLX and llama.cpp know it, transformers only by its own code."""

BIOGPT: dict[str, Any] = {
    "architectures": ["BioGptForCausalLM"], "model_type": "biogpt", "hidden_act": "gelu",
    "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 1024, "num_attention_heads": 16, "num_hidden_layers": 24,
    "scale_embedding": True, "vocab_size": 42384,
}  # fmt: skip
"""microsoft/biogpt: only transformers knows it."""

CONFIGS: dict[str, dict[str, Any]] = {
    # NousResearch/Llama-2-7b-hf: as many key-value heads as heads, output layer of its own.
    "llama": {
        **_LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "tie_word_embeddings": False, "vocab_size": 32000, "rope_theta": 10000.0,
    },
    # unsloth/Llama-3.2-1B-Instruct
    "llama3-rope": {
        **_LLAMA, "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True,
        "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
    },
    # HuggingFaceTB/SmolLM2-135M-Instruct: three heads to a key-value head, tied
    "smollm": {
        **_LLAMA, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_hidden_layers": 30, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "tie_word_embeddings": True, "vocab_size": 49152, "rope_theta": 100000,
        "rope_interleaved": False,
    },
    # ibm-granite/granite-3.3-2b-instruct
    "granite": {
        **_GRANITE, "architectures": ["GraniteForCausalLM"], "model_type": "granite",
        "mlp_bias": False, "rope_theta": 10000000.0, "vocab_size": 49159, "bos_token_id": 0,
        "eos_token_id": 0, "pad_token_id": 0,
    },
    # ibm-granite/granite-4.0-micro: the hybrid's class without a Mamba layer
    "granite4": {
        **_GRANITE_4, "hidden_size": 2560, "num_attention_heads": 40, "logits_scaling": 10,
        "layer_types": ["attention"] * 40, "mamba_d_head": 40, "mamba_d_state": 256,
        "mamba_n_heads": 128, "position_embedding_type": "rope", "rope_theta": 10000000,
    },
    # ibm-granite/granite-4.0-h-micro
    "granite4-hybrid": {
        **_GRANITE_4, "layer_types": _MAMBA_EVERY_TEN, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_n_heads": 64, "position_embedding_type": "nope", "rope_theta": 10000,
    },
    # ibm-granite/granite-4.0-h-tiny
    "granite4-hybrid-moe": {
        **_GRANITE_4, "layer_types": _MAMBA_EVERY_TEN, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_n_heads": 48, "position_embedding_type": "nope", "rope_theta": 10000,
        "hidden_size": 1536, "intermediate_size": 512, "shared_intermediate_size": 1024,
        "num_attention_heads": 12, "num_key_value_heads": 4, "num_local_experts": 64,
        "num_experts_per_tok": 6, "attention_multiplier": 0.0078125, "logits_scaling": 6,
    },
    # mistralai/Mistral-7B-Instruct-v0.3
    "mistral": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None,
        "tie_word_embeddings": False, "vocab_size": 32768, "torch_dtype": "bfloat16",
    },
    # mistralai/Mistral-7B-Instruct-v0.1: attends to 4,096 tokens only
    "mistral-window": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False, "vocab_size": 32000, "torch_dtype": "bfloat16",
    },
    # Qwen/Qwen2.5-3B-Instruct: biases on q, k and v
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 11008, "max_position_embeddings": 32768,
        "max_window_layers": 70, "num_attention_heads": 16, "num_hidden_layers": 36,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "sliding_window": 32768, "use_sliding_window": False, "tie_word_embeddings": True,
        "vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645,
    },
    # Qwen/Qwen3-0.6B: norms on q and k; heads that together are wider than the model
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
        "attention_bias": False, "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "use_sliding_window": False, "tie_word_embeddings": True, "vocab_size": 151936,
        "bos_token_id": 151643, "eos_token_id": 151645,
    },
    # google/gemma-3-1b-it
    "gemma3-text": {**_GEMMA_3, "architectures": ["Gemma3ForCausalLM"]},
    # google/gemma-3-4b-it: a vision tower, and much left to the class's defaults
    "gemma3-vision": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144,
        "eos_token_id": [1, 106], "mm_tokens_per_image": 256, "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
            "model_type": "siglip_vision_model", "num_attention_heads": 16,
            "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
        },
    },
    # microsoft/Phi-3-mini-4k-instruct
    "phi3": {
        **_PHI_3, "max_position_embeddings": 4096, "rope_scaling": None, "sliding_window": 2047,
    },
    # microsoft/Phi-3.5-mini-instruct, but for the factors
    "phi3-longrope": {
        **_PHI_3, "max_position_embeddings": 131072, "sliding_window": 262144,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [round(1.0 + 0.04 * i, 2) for i in range(48)],
            "long_factor": [round(1.08 * 1.09**i, 2) for i in range(48)],
        },
    },
    # allenai/OLMo-2-0425-1B-Instruct: norms after the layers, norms on q and k
    "olmo2": {
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "hidden_act": "silu",
        "attention_bias": False, "hidden_size": 2048, "intermediate_size": 8192,
        "max_position_embeddings": 4096, "num_attention_heads": 16, "num_hidden_layers": 16,
        "num_key_value_heads": 16, "rms_norm_eps": 1e-6, "rope_scaling": None,
        "rope_theta": 500000, "tie_word_embeddings": False, "vocab_size": 100352,
        "pad_token_id": 100277, "eos_token_id": 100257, "torch_dtype": "bfloat16",
    },
    # stanford-crfm/BioMedLM
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_ctx": 1024,
        "n_embd": 2560, "n_head": 20, "n_inner": None, "n_layer": 32, "n_positions": 1024,
        "scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": True,
        "reorder_and_upcast_attn": False, "vocab_size": 28896, "bos_token_id": 28895,
        "eos_token_id": 28895,
    },
}  # fmt: skip
