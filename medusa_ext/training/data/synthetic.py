"""Prompts from built-in topics, templates and programming tasks, and generated sums."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from .passages import source_question, text_question
from .prompts import Prompt

DATA: Final = Path(__file__).parents[2] / "data" / "prompts"
_SLOT: Final = re.compile(r"\{(\w+)\}")
_LANGUAGES: Final = ("Python",) * 8 + (
    "JavaScript",
    "Java",
    "C",
    "C++",
    "Go",
    "Rust",
    "Bash",
    "TypeScript",
    "Ruby",
    "PHP",
    "C#",
    "Kotlin",
)
_CODE_SHAPES: Final = (
    "Write a {language} function that {task}.",
    "Write a {language} program that {task}.",
    "How do I write {language} code that {task}?",
    "Implement a function in {language} that {task}. Add comments.",
    "Give me a short {language} snippet that {task}, and explain it.",
    "Write a {language} function that {task}, with a docstring and an example call.",
    "Write a {language} function that {task} and three tests for it.",
    "I need a {language} script that {task}. Keep it simple.",
    "Show two ways to write {language} code that {task}.",
    "Write a function called `{name}` in {language} that {task}.",
    "Explain step by step how a program {task}.",
    "What are the edge cases when a function {task}?",
    "Write pseudocode for a program that {task}.",
    "{task} in {language}",
    "Write a {language} class with a method that {task}.",
)
_NAMES: Final = (
    "Anna Ben Carla David Emma Felix Grace Hassan Ines Jamal Kate Liam Mia Noah Olga Priya Quinn "
    "Rosa Sam Tara Uma Victor Wei Yusuf Zoe"
).split()
_THINGS: Final = (
    "apples books marbles stickers pencils cookies stamps coins balloons eggs oranges cards shirts "
    "candles flowers bottles tickets chairs bananas toys"
).split()


def _lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@cache
def topics() -> dict[str, list[str]]:
    """Category -> topics, from data/prompts/topics.txt."""
    pairs = (line.split(":", 1) for line in _lines("topics.txt"))
    return {name.strip(): [t.strip() for t in listed.split(";")] for name, listed in pairs}


@cache
def templates() -> tuple[str, ...]:
    """Question shapes with {category} slots, from data/prompts/templates.txt."""
    return tuple(_lines("templates.txt"))


@cache
def code_tasks() -> tuple[str, ...]:
    """Programming tasks ("reverses a string"), from data/prompts/code_tasks.txt."""
    return tuple(_lines("code_tasks.txt"))


def topic_question(random: Random) -> str:
    """A template with its slots filled, sometimes with a wish about the answer's form."""
    used: set[str] = set()

    def fill(match: re.Match[str]) -> str:
        choices = [topic for topic in topics()[match[1]] if topic not in used]
        chosen = random.choice(choices)
        used.add(chosen)
        return chosen

    question = _SLOT.sub(fill, random.choice(templates()))
    if random.random() < 0.2:
        question += " " + random.choice(_WISHES)
    if random.random() < 0.06:
        question = question.lower().rstrip(".?!")
    return question


_WISHES: Final = (
    "Keep it short.",
    "Answer in one paragraph.",
    "Use bullet points.",
    "Explain step by step.",
    "Use simple words.",
    "Answer in two sentences.",
    "Give an example.",
    "Write about 100 words.",
    "Be precise.",
    "Make it funny.",
    "Number your points.",
    "Thanks!",
)


def code_question(random: Random) -> str:
    """A programming task in one of many shapes and languages."""
    task = random.choice(code_tasks())
    name = "_".join(re.findall(r"[a-z]+", task)[:3])
    shape = random.choice(_CODE_SHAPES)
    return shape.format(language=random.choice(_LANGUAGES), task=task, name=name)


def maths_question(random: Random) -> str:
    """A sum or a word problem with numbers drawn for it."""
    return random.choice(_MATHS)(random)


def _shopping(r: Random) -> str:
    a, b = r.sample(_THINGS, 2)
    return (
        f"{r.choice(_NAMES)} buys {r.randint(2, 12)} {a} for {r.randint(1, 9)} dollars each and "
        f"{r.randint(2, 9)} {b} for {r.randint(1, 15)} dollars each. How much is that in total?"
    )


def _giving(r: Random) -> str:
    one, two = r.sample(_NAMES, 2)
    have = r.randint(20, 90)
    return (
        f"{one} has {have} {r.choice(_THINGS)}. {one} gives {r.randint(3, 15)} to {two} and then "
        f"{r.choice(('loses', 'finds', 'buys', 'sells'))} {r.randint(2, 5)}. How many are left?"
    )


def _travel(r: Random) -> str:
    vehicle = r.choice(("train", "car", "bus", "cyclist", "plane", "ship"))
    if r.random() < 0.5:
        return (
            f"A {vehicle} travels at {r.randrange(10, 300, 5)} km/h for {r.randint(2, 9)} hours. "
            "How far does it go?"
        )
    return (
        f"A {vehicle} covers {r.randrange(60, 900, 10)} km in {r.randint(2, 9)} hours. "
        "What is its average speed?"
    )


def _percent(r: Random) -> str:
    percent, amount = r.randrange(5, 95, 5), r.randrange(20, 900, 10)
    return r.choice(
        (
            f"What is {percent}% of {amount}?",
            f"A {r.choice(_THINGS)[:-1]} costs {amount} dollars and is reduced by {percent}%. "
            "What is the new price?",
            f"A salary of {amount * 10} euros rises by {percent}%. How much is it now?",
            f"{percent} students out of {amount} passed the test. What percentage is that?",
        )
    )


def _equation(r: Random) -> str:
    a, b, c = r.randint(2, 12), r.randint(1, 40), r.randint(2, 90)
    return r.choice(
        (
            f"Solve for x: {a}x + {b} = {c}",
            f"Solve {a}x - {b} = {c} and show every step.",
            f"Solve the quadratic equation x^2 + {a}x + {b} = 0.",
            f"Solve the system: x + y = {b}, x - y = {a}.",
            f"If 3x + {a} = {c}, what is x?",
            f"Simplify {a}(x + {b}) - {c}x.",
            f"Factor x^2 - {b * b}.",
            f"What is the derivative of {a}x^3 + {b}x^2 - {c}?",
            f"What is the integral of {a}x + {b}?",
        )
    )


def _arithmetic(r: Random) -> str:
    a, b, c = r.randint(2, 999), r.randint(2, 99), r.randint(2, 50)
    return r.choice(
        (
            f"What is {a} + {b} * {c}?",
            f"Calculate {a} - {b} + {c}.",
            f"Compute {b} times {c}.",
            f"Divide {a * b} by {b}.",
            f"What is {a} squared?",
            f"What is the square root of {c * c}?",
            f"Round {a / b:.4f} to two decimal places.",
            f"Is {a} a prime number? Explain.",
            f"Find the greatest common divisor of {a} and {b}.",
            f"What are the prime factors of {a}?",
            f"Convert {a} to binary.",
            f"Add the fractions {b}/{c} and 1/{b}.",
            f"Put these numbers in order: {a}, {b}, {c}, {a - b}, {b + c}.",
            f"What comes next: {c}, {c + b}, {c + 2 * b}, {c + 3 * b}, ...?",
            f"Find the mean and the median of {a}, {b}, {c}, {a + c} and {b + c}.",
        )
    )


def _geometry(r: Random) -> str:
    a, b = r.randint(2, 40), r.randint(2, 30)
    return r.choice(
        (
            f"What is the area of a rectangle that is {a} m long and {b} m wide?",
            f"A garden is {a} metres by {b} metres. How much fence do I need around it?",
            f"What is the area of a circle with radius {b} cm?",
            f"What is the volume of a cube with sides of {b} cm?",
            f"A right triangle has legs of {a} and {b}. How long is the hypotenuse?",
            f"Two angles of a triangle are {a + 20} and {b + 30} degrees. What is the third?",
            f"How many tiles of {b} cm by {b} cm cover a floor of {a} square metres?",
            f"A box is {a} cm long, {b} cm wide and {r.randint(2, 20)} cm high. Find its volume.",
        )
    )


def _rate(r: Random) -> str:
    a, b, c = r.randint(2, 9), r.randint(2, 12), r.randint(10, 60)
    thing = r.choice(_THINGS)
    return r.choice(
        (
            f"{a} workers paint a house in {b} days. How long do {a + 2} workers need?",
            f"A recipe for {a} people needs {c * 10} g of flour. How much for {b + 4} people?",
            f"A machine makes {c} {thing} in {a} minutes. How many in {b} hours?",
            f"{r.choice(_NAMES)} reads {c} pages a day. How long for a book of {c * b + a} pages?",
            f"The ratio of boys to girls is {a}:{b}. There are {(a + b) * 4} children. "
            "How many girls are there?",
            f"{r.choice(_NAMES)} saves {c} dollars a month. How much is saved after {b} months "
            f"if {a * 10} dollars are spent on {thing}?",
            f"If I invest {c * 100} euros at {a}% interest a year, how much do I have after "
            f"{b} years?",
            f"A bag holds {a} red, {b} blue and {a + b} green marbles. What is the probability "
            "of drawing a blue one?",
        )
    )


_MATHS: Final[tuple[Callable[[Random], str], ...]] = (
    _shopping,
    _giving,
    _travel,
    _percent,
    _equation,
    _arithmetic,
    _geometry,
    _rate,
)
_MAKERS: Final[tuple[tuple[str, float, Callable[[Random], str]], ...]] = (
    ("topics", 0.44, topic_question),
    ("code", 0.16, code_question),
    ("source", 0.14, source_question),
    ("texts", 0.12, text_question),
    ("maths", 0.14, maths_question),
)


def template_prompts(seed: int) -> Iterator[Prompt]:
    """An endless stream of built-in prompts; the same for the same seed."""
    random = Random(f"medusa templates {seed}")
    weights = [share for _, share, _ in _MAKERS]
    while True:
        source, _, make = random.choices(_MAKERS, weights)[0]
        yield Prompt.ask(make(random), source)
