"""The default model in the storage types that llama.cpp and we both read, kept in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from medusa_ext.checkpoints import resolve_model
from medusa_ext.checkpoints.names import DEFAULT_MODEL
from medusa_ext.files import cache_dir, whole_file

TYPES: Final = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1")
# 4-bit files keep their embedding (and lm_head) at 8 bits, as the shipped Q4_1 file does.
_VOCABULARY: Final = ("token_embd.weight", "output.weight")


def gguf_file(storage: str) -> Path:
    """The default model with all matrices stored as `storage`; made when first asked for.

    Q4_1 is the shipped file itself; the others hold its dequantised weights, stored anew.
    """
    source = resolve_model(DEFAULT_MODEL)
    if storage == "Q4_1":
        return source
    target = cache_dir() / "bench" / f"{source.stem.rpartition('.')[0]}.{storage}.gguf"
    if not target.is_file():
        with whole_file(target) as made:
            restore(source, made, storage)
    return target


def restore(source: Path, target: Path, storage: str) -> None:
    """Writes `target`: the GGUF file `source` with its matrices in another storage type."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value: Any = field.contents()
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType["ALL_F32" if storage == "F32" else f"MOSTLY_{storage}"])
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        kind = storage if values.ndim == 2 else "F32"
        if kind.startswith("Q4") and tensor.name in _VOCABULARY:
            kind = "Q8_0"
        stored = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
