"""Loading never holds the weights twice: peaks of anonymous memory in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loading_models import tiny_model
from models import TINY_VOCAB, tiny_directory

# The first tokenizer brings its packages; the one that `load` makes counts.
PROGRAM = """
import json, sys, threading, time
import gguf, torch
import medusa_ext
from medusa_ext.checkpoints import load_tokenizer, open_source, resolve_model

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))

def watch():
    global peak
    while not ended:
        peak = max(peak, anonymous())
        time.sleep(0.002)

name, dtype = sys.argv[1:]
first = load_tokenizer(open_source(resolve_model(name)))
before = anonymous()
peak, ended = before, False
thread = threading.Thread(target=watch)
thread.start()
model = medusa_ext.load(name, heads=None, device="cpu", dtype=dtype)
ended = True
thread.join()
print(json.dumps([max(peak, anonymous()) - before, model.native.packed_bytes]))
"""


def check_peak(model: str | Path, dtype: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(model), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, packed = json.loads(done.stdout.splitlines()[-1])
    print(f"{model}, {dtype}: peak {peak / 1e6:.0f} MB for {packed / 1e6:.0f} MB of weights")
    assert packed <= peak <= 1.3 * packed


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_the_default_model(dtype: str) -> None:
    check_peak("smollm2-135m-instruct", dtype)


def test_a_directory_of_shards(tmp_path: Path) -> None:
    sizes = {"hidden_size": 768, "intermediate_size": 4096, "num_hidden_layers": 4}
    model = tiny_model("llama", vocab_size=TINY_VOCAB, **sizes).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20MB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_directory() / name, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    check_peak(tmp_path, "auto")
    check_peak(tmp_path, "int8")
