"""Containers of tensors: safetensors, torch's, GGUF."""
