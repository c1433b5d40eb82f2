"""What heads are packed as (8 bits or fewer, whatever the base), and from which storage types."""

from __future__ import annotations

import numpy as np
import pytest
from models import tiny_directory

import medusa_ext
from medusa_ext import _C, generate
from medusa_ext.checkpoints import NATIVE_DTYPES
from medusa_ext.checkpoints.files.weight import BLOCK_SIZES, row_bytes
from medusa_ext.checkpoints.packing import head_formats
from medusa_ext.checkpoints.types import DTYPES, FORMATS

DEFAULT = "smollm2-135m-instruct"
PROMPT = "Write a function that adds two numbers."
LARGEST = {
    "int8": 7.9e6,
    "int4": 6.8e6,
}  # bytes of the default heads, their lm_head's rows included


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_head_takes_more_than_8_bits_on_a_cpu(dtype: str) -> None:
    blocks, lm_head = head_formats(dtype, _C.weight_formats("cpu"))
    assert blocks == ("int4" if dtype == "int4" else "int8")
    assert lm_head == "int8"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_without_8_bits_heads_have_the_models_format(dtype: str) -> None:
    assert head_formats(dtype, FORMATS[:3]) == (dtype, dtype)


@pytest.mark.parametrize("dtype", ["auto", "int4", "float32"])
def test_the_default_heads_are_small_and_change_no_text(dtype: str) -> None:
    model = medusa_ext.load(DEFAULT, dtype=dtype)
    assert model.heads is not None
    blocks = "int4" if dtype == "int4" else "int8"
    assert model.heads.formats == {"blocks": blocks, "lm_head": "int8"}
    assert model.heads.packed_bytes < LARGEST[blocks]
    plain = generate(model, PROMPT, 48, tree=None)
    drafted = generate(model, PROMPT, 48, tree=8, draft="heads")
    assert drafted.tokens == plain.tokens
    assert drafted.stats.tokens_per_step > 1.5


def test_storage_types_have_one_name_from_the_file_to_the_packer() -> None:
    model = medusa_ext.load(tiny_directory(), heads=None)
    width = model.config.hidden_size
    builder = _C.HeadsBuilder(model.native, 1, 1, "medusa", "base", "int8", "int8")
    for i, storage in enumerate(NATIVE_DTYPES):
        row = np.zeros((1, row_bytes(storage, width)), np.uint8)
        builder.set_rows("0.0.weight", i, storage, row)
    for storage in {*BLOCK_SIZES, "float32"} - {*NATIVE_DTYPES}:
        message = f"0.0.weight: source_type: needs F32, .*Q4_1, got {storage}"
        with pytest.raises(ValueError, match=message):
            builder.set_rows("0.0.weight", len(NATIVE_DTYPES), storage, row)
