"""Tokenizers of directories and GGUF files."""
