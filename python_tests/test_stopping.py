"""Stop conditions, by themselves and in a model's continuations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medusa_ext.text.stopping import StopStrings, StopTokens


def run(strings: list[str], pieces: list[str]) -> tuple[str, bool]:
    stop = StopStrings(strings)
    released = []
    for piece in pieces:
        released.append(stop.add(piece))
        if stop.found:
            return "".join(released), True
    return "".join([*released, stop.flush()]), False


def test_found_across_pieces() -> None:
    assert run(["STOP"], ["abcS", "T", "OPdef"]) == ("abc", True)
    assert run(["STOP"], ["abcS", "T", "Odef"]) == ("abcSTOdef", False)


def test_holds_back_only_what_may_become_a_stop() -> None:
    stop = StopStrings(["\n\nUser:", "###"])
    assert stop.add("one\n") == "one"
    assert stop.add("two#") == "\ntwo"
    assert stop.add("#x") == "##x"
    assert stop.add("\n\nUse") == ""
    assert stop.add("d") == "\n\nUsed"
    assert stop.flush() == ""


def test_the_earliest_stop_wins() -> None:
    assert run(["bc", "abcd"], ["xabcd"]) == ("x", True)
    assert run(["cd", "b"], ["abcd"]) == ("a", True)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.text("ab", max_size=3), max_size=12),
)
def test_any_pieces_like_the_whole_text(strings: list[str], pieces: list[str]) -> None:
    """What is released, and whether a stop is found, depends on the text up to the piece that
    completes the first stop; never on where the pieces were cut before."""
    text, end = "", len(pieces)
    for count in range(len(pieces) + 1):
        text = "".join(pieces[:count])
        if any(string in text for string in strings):
            end = count
            break
    starts = [text.find(string) for string in strings if string in text]
    expected = text[: min(starts)] if starts else text
    assert run(strings, pieces[:end]) == (expected, bool(starts))


def test_token_conditions_in_order() -> None:
    stop = StopTokens(frozenset([7]), frozenset([8]), max_tokens=5, max_position=20)
    assert stop.on_token(7) == "eos"
    assert stop.on_token(8) == "stop"
    assert stop.on_token(9) is None
    assert stop.on_count(4, 19) is None
    assert stop.on_count(4, 20) == "cache"
    assert stop.on_count(5, 20) == "length"


@pytest.mark.parametrize("pieces", [["a" * 50_000], ["a"] * 5_000])
def test_no_stop_in_long_text(pieces: list[str]) -> None:
    assert run(["b" * 50], pieces) == ("".join(pieces), False)
