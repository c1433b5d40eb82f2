"""A process of its own that has torch build a library: `torch_load.py <arguments of load>`."""

import json
import os
import shlex
import sys

# This folder's modules would hide others of their names.
sys.path = [path for path in sys.path if path != os.path.dirname(__file__)]

import torch  # noqa: E402
from torch.utils import cpp_extension  # noqa: E402

# The library is loaded by the process that asked for it.
torch.ops.load_library = lambda path: None  # type: ignore[method-assign]
# torch writes this folder into the linker's command as it is, spaces and all.
cpp_extension.TORCH_LIB_PATH = shlex.quote(cpp_extension.TORCH_LIB_PATH)
cpp_extension.load(**json.loads(sys.argv[1]))
