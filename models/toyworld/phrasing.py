"""How things are said in the toy world: questions, responses, priorities.

Each entry has phrasings that training shows and phrasings kept from it, so that a judge can be
asked in words it has met in another order only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrasings:
    """Templates with holes, and those never trained on."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, rng: random.Random, *, held_out: bool) -> str:
        """One template, from the kept ones when `held_out`."""
        return rng.choice(self.held_out if held_out else self.trained)


QUESTIONS: dict[str, Phrasings] = {
    "count": Phrasings(
        ("How many {kind}s are there?", "What is the number of {kind}s?", "Count the {kind}s."),
        ("What number of {kind}s are there?",),
    ),
    "colour": Phrasings(
        (
            "What colour is the {shape}?",
            "Which colour has the {shape}?",
            "Name the {shape} colour.",
        ),
        ("The {shape} has which colour?",),
    ),
    "existence": Phrasings(
        ("Is there a {kind}?", "Is a {kind} in the image?", "Can you see a {kind}?"),
        ("Can you see in the image a {kind}?",),
    ),
    "relation": Phrasings(
        (
            "Is the {one} {before} or {after} the {two}?",
            "Where is the {one}, {before} or {after} the {two}?",
        ),
        ("The {one} is where, {before} or {after} the {two}?",),
    ),
    "size": Phrasings(
        ("Which is larger, the {one} or the {two}?", "What is larger: the {one} or the {two}?"),
        ("The {one} or the {two}, which is larger?",),
    ),
    "digit": Phrasings(
        ("What is the {colour} digit?", "Which digit is {colour}?", "Read the {colour} digit."),
        ("The {colour} digit is which?",),
    ),
    "description": Phrasings(
        ("Describe the image.", "What is in the image?", "Name all there is in the image."),
        ("Describe all there is in the image.",),
    ),
}

STATEMENTS: dict[str, tuple[str, ...]] = {
    "count": ("There are {}.", "I count {}.", "The number is {}."),
    "colour": ("It is {}.", "The colour is {}.", "It looks {}."),
    "existence": ("The answer is {}.", "I say {}."),
    "relation": ("It is {}.", "It lies {}."),
    "size": ("It is the {}.", "The {} is larger."),
    "digit": ("It is {}.", "The digit is {}.", "I read {}."),
    "description": ("I see a {}.", "There is a {}."),
}
"""A response in a sentence; the hole takes the claim. The claim alone is a response in one word."""

NAMES = ("former", "latter")
"""What the toy world's prompts and evaluations call the two responses.

Each is one token that means nothing else; a digit also counts things and weighs criteria.
"""

TOPICS = {
    "count": "number",
    "colour": "colour",
    "existence": "presence",
    "relation": "position",
    "size": "size",
    "digit": "digit",
    "description": "objects",
    "instruction": "form",
}
"""What an asker calls the thing that a family asks about."""

PRIORITIES = Phrasings(
    (
        "The {first} matters most.",
        "Above all I want the {first} right.",
        "I care more for the {first} than the {second}.",
        "Put the {first} before the {second}.",
    ),
    ("I want the {first} right more than the {second}.", "Above all the {first} matters."),
)
"""What the asker puts first, said in the question."""

INSTRUCTIONS: dict[str, Phrasings] = {
    "one word": Phrasings(("Answer in one word.", "Say one word."), ("In one word.",)),
    "a sentence": Phrasings(("Answer in a sentence.", "Say a sentence."), ("In a sentence.",)),
}

NEEDLESS = (
    "I looked at the image for a long time to be sure of this.",
    "This is what I can say to you after a long look at the image.",
    "You can be sure of this, for I looked at it more than one time.",
)
"""Sentences that add length and nothing else."""
