"""Texts in the published output formats of judges trained elsewhere.

Read from:
    yfzhang114/r1_reward at 176aba8, inference/VL-Reward-Bench/r1_reward.py lines 28-40 (what is
        asked for) and openrlhf/models/remote_rm/math_verifier_mllm.py lines 30-39 (what counted
        as well formed in training).
    CodeGoat24/UnifiedReward at ed52f98, UnifiedReward-Think/inference_qwen/image_understanding/
        qwen_infer_cot_image_understanding.py lines 30-50 (what is asked for) and
        UnifiedReward-Think/llava_think/train/train_grpo.py lines 59-64 and 94-99 (what counted
        as right and as well formed in training); at dae5c72, UnifiedReward-Think/inference_qwen/
        UnifiedReward-Think-qwen3vl-inference/qwen3vl_infer_cot_image_understanding.py line 24
        (the same with line breaks inside a dimension).

The texts are written for these tests.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import UnreadableJudgement
from models.formats import load_format
from models.judgement import WrittenJudgement

R1 = load_format("r1_reward")
UNIFIED = load_format("unified_reward_think")

COMPARED = """\
Response 1 names the street sign correctly: it reads "Elm St", as the image shows.

Response 2 says "Oak St", which is nowhere to be seen; 1 of its 2 claims is wrong (x < 5, 3 > 2).

Response 1 is therefore the better one."""
SCORED = """\
1. Semantic accuracy: Answer 1 (6/10) - misses the dog; Answer 2 (9/10) - names dog and ball
2. Correctness: Answer 1 (7/10) - nothing wrong; Answer 2 (9/10) - all of it is right
3. Clarity: Answer 1 (8/10) - short; Answer 2 (8/10) - clear
Attention to detail: Answer 1 (5/10) - none; Answer 2 (8/10) - the collar's colour
Total score:
Answer 1: 6+7+8+5=26
Answer 2: 9+9+8+8=34"""
SCORED_IN_LINES = """\
1. Semantic accuracy:
    Answer 1 (9/10) - says what is there;
    Answer 2 (7/10) - adds a second cup
Total score:
Answer 1: 9=9
Answer 2: 7=7"""


def r1(answer: str = "1", thought: str = COMPARED) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def unified(answer: str = "Answer 2 is better", thought: str = SCORED) -> str:
    return f"<think>\n{thought}\n</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("written", "text", "expected"),
    [
        (R1, r1(), WrittenJudgement(None, COMPARED, 1)),
        (R1, r1("2"), WrittenJudgement(None, COMPARED, 2)),
        (R1, r1(" 2\n"), WrittenJudgement(None, COMPARED, 2)),
        (R1, f"\n{r1()}\n", WrittenJudgement(None, COMPARED, 1)),
        (R1, r1().replace("</think>", "</think>\n\n"), WrittenJudgement(None, COMPARED, 1)),
        (R1, r1(thought=""), WrittenJudgement(None, "", 1)),
        (UNIFIED, unified(), WrittenJudgement(None, SCORED, 2)),
        (UNIFIED, unified("Answer 1 is better"), WrittenJudgement(None, SCORED, 1)),
        (UNIFIED, unified("\nAnswer 1 is better "), WrittenJudgement(None, SCORED, 1)),
        (
            UNIFIED,
            unified("Answer 1 is better", SCORED_IN_LINES),
            WrittenJudgement(None, SCORED_IN_LINES, 1),
        ),
    ],
)
@pytest.mark.parametrize("part", ["rubric", "evaluation"])
def test_thought_and_answer_are_evaluation_and_verdict(written, text, expected, part):
    assert written.read(text, part) == expected


@pytest.mark.parametrize("answer", ["", "3", "12", "1/2", "Response 1", "1.", "one", "Tie", "１"])
def test_an_r1_reward_answer_is_1_or_2_and_nothing_else(answer):
    with pytest.raises(UnreadableJudgement, match="the answer is none of"):
        R1.read(r1(answer), "evaluation")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "1",
        "Answer 1",
        "Answer 3 is better",
        "Answer 1 is better.",
        "answer 1 is better",
        "Answer  1 is better",
        "Answer 1 is better, Answer 2 is better",
        "Both answers are equally good",
        "Image 1 is better",
        "Answer 2 is not better",
    ],
)
def test_a_unified_reward_answer_is_one_of_two_sentences_and_nothing_else(answer):
    with pytest.raises(UnreadableJudgement, match="the answer is none of"):
        UNIFIED.read(unified(answer), "evaluation")


def hostile(whole: str, answer: str, other: str) -> dict[str, str]:
    """Texts that are no judgement; some of them would be one to a reader that searches."""
    thought = whole.partition("<think>")[2].partition("</think>")[0]
    block = f"<answer>{answer}</answer>"
    return {
        "nothing": "",
        "the answer alone": block,
        "a bare verdict": answer,
        "no thought": f"{thought}{block}",
        "no answer": f"<think>{thought}</think>",
        "a verdict in plain words": f"<think>{thought}</think>\n{answer}",
        "cut short in the thought": f"<think>{thought}",
        "cut short in the answer": whole.removesuffix("</answer>"),
        "the answer first": f"{block}<think>{thought}</think>",
        "the answer inside the thought": f"<think>{thought}{block}</think>",
        "an answer quoted from a candidate": whole.replace(
            "</think>", f"It says <answer>{other}</answer>.</think>"
        ),
        "half an answer quoted": whole.replace("</think>", f"<answer>{other}</think>"),
        "a thought ended by a candidate": whole.replace(
            "</think>", f"</think><answer>{other}</answer></think>"
        ),
        "two answers": f"{whole}<answer>{other}</answer>",
        "two judgements": whole + whole,
        "two thoughts": f"<think>hm</think>{whole}",
        "a thought in a thought": f"<think>{whole}</think>{block}",
        "text before": f"Sure! {whole}",
        "text between": whole.replace("<answer>", "So: <answer>"),
        "text after": f"{whole} I hope this helps.",
        "our own grammar": f"<eval>{thought}</eval>\n{block}",
    }


@pytest.mark.parametrize(
    "text", **{"argvalues": (cases := hostile(r1("1"), "1", "2")).values(), "ids": cases.keys()}
)
def test_r1_reward_texts_that_are_no_judgement_are_unreadable(text):
    with pytest.raises(UnreadableJudgement):
        R1.read(text, "evaluation")


@pytest.mark.parametrize(
    "text",
    **{
        "argvalues": (
            cases := hostile(unified(), "Answer 2 is better", "Answer 1 is better")
        ).values(),
        "ids": cases.keys(),
    },
)
def test_unified_reward_texts_that_are_no_judgement_are_unreadable(text):
    with pytest.raises(UnreadableJudgement):
        UNIFIED.read(text, "evaluation")


def test_the_scores_do_not_overrule_the_answer():
    assert UNIFIED.read(unified("Answer 1 is better"), "evaluation").preferred == 1


def test_each_others_judgements_are_unreadable():
    with pytest.raises(UnreadableJudgement):
        R1.read(unified(), "evaluation")
    with pytest.raises(UnreadableJudgement):
        UNIFIED.read(r1(), "evaluation")


@pytest.mark.parametrize("written", [R1, UNIFIED])
@given(data=st.data())
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_grammar_lets_through_can_be_read(written, data):
    text = data.draw(st.from_regex(written.grammar("evaluation"), fullmatch=True))
    preferred = written.read(text, "evaluation").preferred
    assert [preferred] == [int(digit) for digit in re.findall(r"<answer>\D*([12])", text)]


@pytest.mark.parametrize(("written", "text"), [(R1, r1()), (UNIFIED, unified())])
def test_the_grammar_takes_what_such_a_judge_writes(written, text):
    assert re.fullmatch(written.grammar("evaluation"), text)


@pytest.mark.parametrize(("written", "digit"), [(R1, "1"), (UNIFIED, "2")])
def test_the_verdict_is_the_last_digit_and_stands_right_after_the_prefix(written, digit):
    whole = written.verdict_prefix() + digit + written.tail + written.answer_end
    assert written.read(whole, "evaluation") == WrittenJudgement(None, "", int(digit))
    assert re.fullmatch(written.grammar("evaluation"), whole)
    assert re.findall("[12]", whole) == [digit]


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>1</answer>", "<", "<think"])
def test_a_megabyte_of_tags_is_refused_in_no_time(piece, within):
    with within(5), pytest.raises(UnreadableJudgement):
        R1.read(piece * (1_000_000 // len(piece)), "evaluation")
