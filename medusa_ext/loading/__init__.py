"""Loading: names to files, files to a checked description and raw weights, tokenizer, heads.

Importing this package is cheap; torch, transformers and huggingface_hub are imported by the
functions that need them.
"""

from .config import ModelConfig, RopeScaling
from .source import ModelSource, open_source
from .weight_tensor import NATIVE_DTYPES, WeightTensor
from .weights import base_fingerprint, iter_weights

__all__ = [
    "NATIVE_DTYPES",
    "ModelConfig",
    "ModelSource",
    "RopeScaling",
    "WeightTensor",
    "base_fingerprint",
    "iter_weights",
    "open_source",
]
