from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.rewards import (
    AGGREGATIONS,
    EXPLICIT,
    FORMAT_WEIGHT,
    Components,
    Opinion,
    components,
    rubric_of,
)

# Published totals without format for (accuracy, proxy) = (+, +), (+, -), (-, +), (-, -).
PUBLISHED = {
    "explicit-0": (2, 0, 0, -2),
    "explicit-1": (2, -2, -2, -2),
    "explicit-2": (1, -1, -1, -1),
    "explicit-3": (2.5, -0.5, 0, -2),
    "explicit-4": (2.5, -0.5, -0.5, -2),
    "explicit-5": (2.5, -0.5, -0.5, -3),
    "explicit-6": (2, -0.5, 0, -2),
    "explicit-7": (1.5, 0.5, -1, -1),
    "explicit-8": (1.5, 0.5, -1.5, -1),
    "explicit-9": (1.5, 0.5, -1.5, -2),
    "explicit-10": (1, 0.5, -1, -1),
    "implicit": (2, 0, 0, -2),
    "none": (1, 1, -1, -1),
}
SIGNS = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
BY_PROXY = [name for name in AGGREGATIONS if name != "none"]

RUBRIC = "<rubric>\n1. Count (100%): as in the image.\n</rubric>"
GOOD = f"{RUBRIC}\n<eval>three of them</eval>\n<answer>1</answer>"
TAGS = [
    f"<{slash}{name}>" for name in ("rubric", "justify", "eval", "answer") for slash in ("", "/")
]


def parts(accuracy=1.0, proxy=None, fmt=1.0, margin=None):
    return Components(accuracy, proxy, proxy if margin is None else margin, fmt)


# Adding up


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("fmt", [0.0, 1.0])
def test_every_published_aggregation_gives_its_table(name, fmt):
    totals = [AGGREGATIONS[name](parts(*signs, fmt)) for signs in SIGNS]
    assert totals == [total + 0.5 * fmt for total in PUBLISHED[name]]


def test_every_aggregation_is_a_published_one_or_the_soft_one():
    assert {*AGGREGATIONS} == {*PUBLISHED, "soft"}
    assert {f"explicit-{name}" for name in EXPLICIT} == {n for n in PUBLISHED if "-" in n}


@pytest.mark.parametrize(
    ("accuracy", "margin", "fmt", "total"),
    [
        (1.0, 1.0, 1.0, 2.5),
        (1.0, 0.25, 1.0, 1.75),
        (1.0, 0.0, 1.0, 1.5),
        (1.0, -0.5, 0.0, 0.5),
        (-1.0, 0.5, 0.0, -0.5),
        (-1.0, -1.0, 1.0, -1.5),
    ],
)
def test_the_soft_aggregation_pays_as_much_as_the_proxy_is_sure(accuracy, margin, fmt, total):
    sign = 1.0 if margin >= 0 else -1.0
    assert AGGREGATIONS["soft"](parts(accuracy, sign, fmt, margin)) == total


@pytest.mark.parametrize("name", BY_PROXY)
@pytest.mark.parametrize("accuracy", [1.0, -1.0])
@pytest.mark.parametrize("fmt", [0.0, 1.0])
def test_an_abstaining_proxy_is_halfway_between_its_opinions(name, accuracy, fmt):
    aggregate = AGGREGATIONS[name]
    agrees, disagrees = (aggregate(parts(accuracy, proxy, fmt)) for proxy in (1.0, -1.0))
    assert aggregate(parts(accuracy, None, fmt)) == (agrees + disagrees) / 2


@pytest.mark.parametrize("name", BY_PROXY)
@pytest.mark.parametrize("accuracy", [1.0, -1.0])
def test_an_abstaining_proxy_is_never_taken_for_a_disagreeing_one(name, accuracy):
    agrees, abstains, disagrees = (
        AGGREGATIONS[name](parts(accuracy, proxy)) for proxy in (1.0, None, -1.0)
    )
    assert agrees == disagrees or abstains not in (agrees, disagrees)


def test_without_a_proxy_its_opinion_changes_nothing():
    totals = {AGGREGATIONS["none"](parts(1.0, proxy)) for proxy in (1.0, None, -1.0)}
    assert totals == {1.5}


def test_being_right_never_pays_less_than_being_wrong():
    for name, proxy, fmt in itertools.product(AGGREGATIONS, (1.0, None, -1.0), (0.0, 1.0)):
        right, wrong = (AGGREGATIONS[name](parts(a, proxy, fmt)) for a in (1.0, -1.0))
        assert right >= wrong, name


def test_format_alone_is_worth_less_than_the_verdict():
    assert FORMAT_WEIGHT == 0.5
    assert AGGREGATIONS["none"](parts(1.0, fmt=0.0)) > AGGREGATIONS["none"](parts(-1.0))


# One rollout


@pytest.mark.parametrize(("label", "accuracy"), [(1, 1.0), (2, -1.0)])
def test_a_readable_rollout_is_right_or_wrong(label, accuracy):
    assert components(GOOD, label, None) == Components(accuracy, None, None, 1.0)


@pytest.mark.parametrize(
    ("preferred", "probability", "label", "proxy", "margin"),
    [
        (1, 0.75, 1, 1.0, 0.5),
        (1, 0.75, 2, -1.0, -0.5),
        (2, 0.25, 2, 1.0, 0.5),
        (2, 0.25, 1, -1.0, -0.5),
        (1, 0.5, 1, 1.0, 0.0),
        (2, 0.0, 2, 1.0, 1.0),
        (1, 1.0, 2, -1.0, -1.0),
    ],
)
def test_the_proxy_agrees_with_the_label_or_not(preferred, probability, label, proxy, margin):
    found = components(GOOD, label, Opinion(preferred, probability))
    assert (found.proxy, found.proxy_margin) == (proxy, margin)


def test_the_proxy_is_compared_with_the_label_and_not_with_the_judge():
    wrong = GOOD.replace("<answer>1", "<answer>2")
    assert components(wrong, 1, Opinion(1, 0.9)).proxy == 1.0
    assert components(wrong, 1, Opinion(2, 0.1)).proxy == -1.0


UNREADABLE = {
    "nothing": "",
    "white space": " \n\t",
    "a bare verdict": "1",
    "no evaluation": f"{RUBRIC}\n<answer>1</answer>",
    "no answer": f"{RUBRIC}\n<eval>e</eval>",
    "cut off": GOOD[:-3],
    "two answers": GOOD + "<answer>1</answer>",
    "a quoted answer": GOOD.replace("three of them", "it says <answer>1</answer>"),
    "a word for an answer": GOOD.replace("<answer>1", "<answer>first"),
    "two digits": GOOD.replace("<answer>1", "<answer>12"),
    "a full-width digit": GOOD.replace("<answer>1", "<answer>１"),
    "talk before": f"Sure! {GOOD}",
    "talk after": f"{GOOD} Done.",
    "an empty rubric": GOOD.replace(RUBRIC, "<rubric>\n</rubric>"),
    "an answer in the rubric": f"<rubric>a <answer>1</answer></rubric>{GOOD}",
    "no rubric": GOOD.removeprefix(RUBRIC),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("label", [1, 2])
def test_an_unreadable_rollout_found_no_label_whichever_it_is(text, label):
    assert components(text, label, None) == Components(-1.0, None, None, 0.0)


def test_an_unreadable_rollout_keeps_what_the_proxy_made_of_its_rubric():
    found = components(f"{RUBRIC} and so on", 1, Opinion(1, 1.0))
    assert found == Components(-1.0, 1.0, 1.0, 0.0)


def test_a_rollout_that_was_given_a_rubric_begins_with_its_evaluation():
    rest = GOOD.removeprefix(RUBRIC).strip()
    assert components(rest, 1, None, "evaluation") == Components(1.0, None, None, 1.0)
    assert components(GOOD, 1, None, "evaluation").format == 0.0


# What the proxy is shown


def test_the_rubric_is_shown_without_its_justification_and_what_follows():
    text = GOOD.replace("\n</rubric>", "\n<justify>the answer is 1</justify>\n</rubric>")
    rubric = rubric_of(f"\n {text}")
    assert rubric is not None
    assert rubric.text == "1. Count (100%): as in the image."


WITHOUT_RUBRIC = {
    "nothing": "",
    "never closed": "<rubric>\n1. Count (100%)\n<eval>e</eval><answer>1</answer>",
    "closed by another tag": "<rubric>1. Count</eval><answer>1</answer>",
    "closed in capitals": "<rubric>1. Count</RUBRIC><eval>e</eval><answer>1</answer>",
    "closed but not opened": "1. Count</rubric><answer>1</answer>",
    "not at the beginning": f"First: {RUBRIC}",
    "after the verdict": f"<answer>1</answer>{RUBRIC}",
    "an answer inside": "<rubric>1. Count <answer>1</answer></rubric>",
    "half an answer inside": "<rubric>1. Count <answer>1</rubric></answer>",
    "an evaluation inside": "<rubric>1. Count <eval>the first wins</eval></rubric>",
    "nested": "<rubric><rubric>1. Count</rubric></rubric>",
    "a justification that never closes": "<rubric>1. Count<justify>as 1 wins</rubric>",
    "two justifications": "<rubric>1.<justify>a</justify><justify>b</justify></rubric>",
    "text after the justification": "<rubric>1.<justify>a</justify>2.</rubric>",
    "nothing but a justification": "<rubric><justify>because</justify></rubric>",
    "empty": "<rubric> \n</rubric>",
}


@pytest.mark.parametrize("text", WITHOUT_RUBRIC.values(), ids=WITHOUT_RUBRIC)
def test_without_a_closed_and_readable_rubric_there_is_none(text):
    assert rubric_of(text) is None


def test_of_two_rubrics_the_first_is_shown():
    rubric = rubric_of(f"{RUBRIC}<rubric>2. The answer is 1</rubric><answer>1</answer>")
    assert rubric is not None
    assert rubric.text == "1. Count (100%): as in the image."


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        st.sampled_from([*TAGS, "1", "2", "1. Count (60%)", " ", "\n", "<", "</", "<RUBRIC>"])
        | st.text(max_size=3),
        max_size=14,
    ).map("".join),
    st.booleans(),
)
def test_what_the_proxy_is_shown_has_no_tag_and_stands_before_the_first_closing_one(pieces, begun):
    text = f"<rubric>{pieces}" if begun else pieces
    rubric = rubric_of(text)
    if rubric is not None:
        assert text.lstrip().startswith("<rubric>")
        assert rubric.text in text.partition("</rubric>")[0]
        assert not [tag for tag in TAGS if tag in rubric.text]


MANY = 200_000


@pytest.mark.parametrize(
    "text",
    [
        "<rubric>" * MANY,
        "</rubric>" * MANY,
        "<rubric>" + "x" * MANY * 10,
        " \n" * MANY * 5 + "<eval>",
        RUBRIC * (MANY // 10),
        "<rubric>" + "<justify></justify>" * (MANY // 10) + "</rubric>",
        "<" * MANY + "</rubric>",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_huge_rollout_is_read_in_no_time(text, within):
    with within(20):
        rubric_of(text)
        assert components(text, 1, None).format == 0.0


def test_a_huge_rubric_is_shown_whole(within):
    body = "1. Count (100%): as in the image.\n" * 30_000
    with within(20):
        rubric = rubric_of(f"<rubric>{body}</rubric>")
    assert rubric is not None
    assert rubric.text == body.strip()
