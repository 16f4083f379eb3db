"""Everything that looks at model files without running a model.

Reading headers, checking folders, adapters and chat templates, building the embedded model,
and converting to GGUF. Nothing here imports mlx, torch or llama.cpp.
"""
