"""Loading: names to files, files to a checked description and raw weights, tokenizer, heads.

Importing this package is cheap; torch, transformers and huggingface_hub are imported by the
functions that need them.
"""

from .config import LayerSpec, ModelConfig
from .files.weight import NATIVE_DTYPES, WeightTensor
from .heads.checkpoint import HeadsCheckpoint, ResBlock
from .heads.convert import convert
from .heads.load import check_against_base, load_heads
from .heads.resolve import resolve_heads
from .heads.v3 import save_heads
from .names import resolve_model
from .source import ModelSource, open_source
from .tokenizer.load import load_tokenizer
from .weights import iter_weights

__all__ = [
    "NATIVE_DTYPES",
    "HeadsCheckpoint",
    "LayerSpec",
    "ModelConfig",
    "ModelSource",
    "ResBlock",
    "WeightTensor",
    "check_against_base",
    "convert",
    "iter_weights",
    "load_heads",
    "load_tokenizer",
    "open_source",
    "resolve_heads",
    "resolve_model",
    "save_heads",
]
