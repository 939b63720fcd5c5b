from __future__ import annotations

import json

import pytest
from proxy_grm_client import DemoRelease
from proxy_grm_client.trainers.openrlhf import RewardFunction, response_in

PROMPT = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"


def label(**more) -> str:
    return json.dumps({"question": "How many?", "reference": "2"} | more)


def test_rewards_have_its_form(opened, judge):
    reward_func = opened(RewardFunction, order="both")
    queries = [PROMPT + "3<|im_end|>", PROMPT + "1<|im_end|>\n<|endoftext|>"]
    found = reward_func(queries, [PROMPT, PROMPT], [label(images=[{"data": "eA=="}]), label()])
    assert found["rewards"].tolist() == pytest.approx([0.8, -0.8])
    assert found["scores"].tolist() == pytest.approx([0.9, 0.1])
    assert found["extra_logs"]["failed"].tolist() == [0.0, 0.0]
    bodies = sorted((body for _, body in judge.bodies), key=lambda body: body["responses"])
    assert [body["responses"] for body in bodies] == [["1", "2"], ["3", "2"]]
    assert bodies[1]["images"] == [{"data": "eA=="}]
    assert {body["order"] for body in bodies} == {"both"}


def test_an_abstention_is_a_number_with_a_flag(opened):
    reward_func = opened(RewardFunction, abstained_reward=-0.5)
    found = reward_func([PROMPT + "mumble", PROMPT + "3"], [PROMPT] * 2, [label()] * 2)
    assert found["rewards"].tolist() == pytest.approx([-0.5, 0.8])
    assert found["extra_logs"]["failed"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("wrong", ["", "no json", "[]", '{"reference": "2"}', None, 5])
def test_a_label_that_is_none_says_what_is_needed(wrong, opened, judge):
    with pytest.raises(ValueError, match=r"label|JSON|Expecting"):
        opened(RewardFunction)([PROMPT + "3"], [PROMPT], [wrong])
    assert judge.bodies == []


def test_a_demonstration_is_refused(opened, judge):
    judge.purpose = "demo"
    with pytest.raises(DemoRelease):
        opened(RewardFunction)([PROMPT + "3"], [PROMPT], [label()])


def test_the_response_is_found_where_pictures_make_the_query_longer():
    query = PROMPT.replace("How", "<|image_pad|>How") + "Two.\n<|im_end|>"
    assert response_in(query, PROMPT) == "Two."
    llama = "x<|start_header_id|>assistant<|end_header_id|>\n\nTwo.<|eot_id|>"
    assert response_in(llama, "another prompt") == "Two."
    assert response_in(PROMPT + "<|im_end|>", PROMPT) == ""
    with pytest.raises(ValueError, match="assistant's turn"):
        response_in("Two.", "How many?")
