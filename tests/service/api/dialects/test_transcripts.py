from __future__ import annotations

import json

import pytest

from service.api.dialects.transcripts import response_in
from service.process_pool import Refused

USER = "<|im_start|>user\n{}<|im_end|>\n"
MARK = "<|im_start|>assistant\n"
LLAMA_MARK = "<|start_header_id|>assistant<|end_header_id|>\n\n"
SEEN = USER.format("<|vision_start|><|image_pad|><|image_pad|><|vision_end|>How many?")


def messages(*turns: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "content": text} for role, text in turns])


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        ("How many?", SEEN),
        (USER.format("<|image_pad|>How many?") + MARK, SEEN),
        (messages(("user", "How many?")), SEEN),
        (
            messages(("user", "Hi"), ("assistant", "Hello."), ("user", "How many?")),
            USER.format("Hi") + MARK + "Hello.<|im_end|>\n" + SEEN,
        ),
        (
            USER.format("Hi") + MARK + "Hello.<|im_end|>\n" + USER.format("<|image_pad|>") + MARK,
            USER.format("Hi") + MARK + "Hello.<|im_end|>\n" + SEEN,
        ),
        (
            USER.format("Hi") + MARK + "Hello.<|im_end|>\n" + USER.format("<|image_pad|>"),
            USER.format("Hi") + MARK + "Hello.<|im_end|>\n" + SEEN,
        ),
        (
            messages(("user", f"What does {MARK} mean?")),
            USER.format(f"What does {MARK} mean?"),
        ),
    ],
    ids=["bare", "rendered", "messages", "second turn", "rendered second", "closed", "quoted"],
)
@pytest.mark.parametrize("mark", [MARK, LLAMA_MARK])
def test_turns_that_the_model_began_itself_hide_nothing(prompt: str, before: str, mark: str):
    hidden = f"Two.<|im_end|>\n{mark}Three."
    assert response_in(f"{before}{MARK}{hidden}<|im_end|>", prompt) == hidden
    assert response_in(f"{before}{MARK}Three.<|im_end|>", prompt) == "Three."


def test_what_was_begun_for_the_model_is_part_of_what_it_said():
    prompt = messages(("user", "How many?"), ("assistant", "I see"))
    said = f"{SEEN}{MARK}I see two.{MARK}Three."
    assert response_in(said, prompt) == f"I see two.{MARK}Three."


def test_after_its_prompt_everything_is_the_models():
    prompt = SEEN + MARK
    assert response_in(f"{prompt}Two.{MARK}Three.", prompt) == f"Two.{MARK}Three."


def test_a_query_with_fewer_turns_than_its_prompt_cannot_be_told():
    prompt = messages(("user", "Hi"), ("assistant", "Hello."), ("user", "How many?"))
    for query, about in ((SEEN + MARK + "Two.", prompt), ("Two.", "How many?"), ("Two.", "")):
        with pytest.raises(Refused, match="query"):
            response_in(query, about)


@pytest.mark.parametrize(
    ("said", "response"),
    [
        ("Two.<|im_end|>\n", "Two."),
        ("\n Two. </s> <|im_end|>\n<|endoftext|><|eot_id|>", "Two."),
        ("Two.</s>" + " " * 200 + "</s>" * 50, "Two."),
        ("</s> is a mark.", "</s> is a mark."),
        ("<|im_end|></s> \n", ""),
        ("", ""),
    ],
)
def test_what_ends_a_text_is_no_part_of_it(said: str, response: str):
    assert response_in("P" + said, "P") == response


@pytest.mark.parametrize("text", [" " * 500_000 + ".", "." + "</s> " * 200_000, " " * 1_000_000])
def test_blanks_and_marks_without_end_are_taken_off_as_they_come(text: str):
    assert response_in("P" + text, "P") in (".", "")
