"""What the published figures come from; each is made anew by one command, from a checkout.

`python -m benchmarks cpu` writes docs/performance.md, `trees` draws docs/tree_speed.svg, `distill`
times the making of training data, `gpu` does all that wants a GPU.
"""

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
