"""What is printed or kept as JSON is JSON that every reader takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import medusa_ext
from medusa_ext.engine.results import Result, Stats, TokenLogprob
from medusa_ext.files import json_text, write_json


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [1.5, -math.inf, (math.inf, 2)], "c": {"d": "NaN", "e": True}}
    expected = {"a": None, "b": [1.5, None, [None, 2]], "c": {"d": "NaN", "e": True}}
    assert strict(json_text(value)) == expected
    assert json_text({"ä": 1}, ensure_ascii=False) == '{"ä": 1}'
    write_json(tmp_path / "value.json", value)
    assert strict((tmp_path / "value.json").read_text()) == expected


def test_a_token_that_cannot_come_has_no_logprob() -> None:
    entry = TokenLogprob(3, -math.inf, [(1, 0.0), (3, -math.inf)])
    found = strict(json_text(Result("", [3], "length", None, Stats(), [entry]).to_json()))
    assert found["logprobs"] == [{"token": 3, "logprob": None, "top": [[1, 0.0], [3, None]]}]


@pytest.mark.parametrize("call", ["json.dumps(", "json.dump("])
def test_nothing_writes_json_of_its_own(call: str) -> None:
    """Files of the build hold no numbers with a fraction, and cannot import the package."""
    root = Path(medusa_ext.__file__).parent
    sources = [path for path in root.rglob("*.py") if "_build" not in path.parts]
    assert [p.name for p in sources if call in p.read_text(encoding="utf-8")] == (
        ["files.py"] if call == "json.dumps(" else []
    )
