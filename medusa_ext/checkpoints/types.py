"""The names of devices and number types that users choose from, each list once."""

from __future__ import annotations

from typing import Final

DEVICES: Final = ("auto", "cpu", "cuda")

# Of packed weights, finest first; which of them a device's kernels take, `_C.weight_formats` says.
FORMATS: Final = ("float32", "bfloat16", "float16", "int8", "int4")
DTYPES: Final = ("auto", *FORMATS)

KV_DTYPES: Final = ("auto", "float32", "bfloat16", "float16", "int8")

# Of the matrices in a heads file.
STORAGES: Final = ("float32", "bfloat16", "float16", "int8")

# Of torch's matrix products in training, and in distilling with the torch backend.
TORCH_DTYPES: Final = ("float32", "bfloat16")
