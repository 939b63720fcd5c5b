from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from proxy_grm_client.trainers.rollouts import (
    Rollout,
    as_images,
    cohorts,
    images_of,
    question_of,
    response_of,
)

PICTURE = Image.new("RGB", (8, 6), "teal")
TURN = {
    "role": "user",
    "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "How many?"}],
}


def test_a_question_is_what_the_user_says():
    assert question_of("How many?") == "How many?"
    assert question_of([{"role": "user", "content": "How many?"}]) == "How many?"
    system = {"role": "system", "content": "Think first."}
    assert question_of([system, TURN]) == "How many?"


def test_turns_are_told_apart():
    turns = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How many?"},
    ]
    assert question_of(turns) == "User: Hello.\nAssistant: Hi.\nUser: How many?"


def test_a_response_is_what_the_assistant_says():
    assert response_of("Two.") == "Two."
    assert response_of([{"role": "assistant", "content": "Two."}]) == "Two."
    parts = [{"type": "text", "text": "Two."}]
    assert response_of([{"role": "assistant", "content": parts}]) == "Two."
    assert response_of([{"role": "assistant", "content": None}]) == ""
    called = [{"role": "assistant", "content": "See."}, {"role": "tool", "content": "2"}]
    assert response_of(called) == "See."


def test_pictures_may_stand_in_the_prompt():
    assert images_of([TURN]) == [PICTURE]
    assert images_of("How many?") == []
    assert images_of([{"role": "user", "content": [{"type": "image"}]}]) == []


def test_a_column_holds_none_one_or_several_pictures():
    assert as_images(None) == ()
    assert as_images(PICTURE) == (PICTURE,)
    assert as_images("cat.jpg") == ("cat.jpg",)
    assert as_images([PICTURE, PICTURE]) == [PICTURE, PICTURE]


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("cat.jpg", "cat.jpg", "dog.jpg"),
        (PICTURE, PICTURE.copy(), Image.new("RGB", (8, 6), "red")),
        (np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), np.zeros((4, 5, 3))),
        (torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), torch.ones(3, 4, 4)),
        ({"bytes": b"x"}, {"bytes": b"x"}, {"bytes": b"y"}),
        ("cat.jpg", "cat.jpg", PICTURE),
    ],
)
def test_a_cohort_has_one_question_about_the_same_pictures(one, same, other):
    asked = [Rollout("Which?", "x", [image]) for image in (one, other, same)]
    assert cohorts(asked) == [[0, 2], [1]]


def test_more_pictures_are_other_pictures():
    asked = [Rollout("Which?", "x"), Rollout("Which?", "x", [PICTURE]), Rollout("What?", "x")]
    assert cohorts(asked) == [[0], [1], [2]]
    assert cohorts([]) == []


def test_a_column_of_a_data_frame_may_hold_an_array_of_pictures():
    paths = np.array(["a.png", "b.png"], dtype=object)
    assert as_images(paths) == ("a.png", "b.png")
    picture = np.zeros((4, 4, 3), np.uint8)
    [one] = as_images(picture)
    assert one is picture
