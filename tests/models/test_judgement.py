from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import UnreadableJudgement
from models.judgement import (
    ANSWER_END,
    GRAMMARS,
    RUBRIC_END,
    RUBRIC_GRAMMAR,
    TAG_NAMES,
    WrittenJudgement,
    read_judgement,
    read_rubric,
    verdict_prefix,
    write_rubric,
)
from models.rubric import Rubric

RUBRIC_TEXT = "1. Count accuracy (60%): it matches.\n2. Relevance (40%): it answers."
RUBRIC = f"<rubric>\n{RUBRIC_TEXT}\n<justify>A number is asked for.</justify>\n</rubric>\n"
REST = "<eval>\nThe image shows three.\n</eval>\n<answer>1</answer>"
WHOLE = RUBRIC + REST
MEGABYTE = 1_000_000

TAGS = [f"<{slash}{name}>" for name in TAG_NAMES for slash in ("", "/")]
TAG_SOUP = st.lists(
    st.one_of(
        st.sampled_from([*TAGS, "1", "2", "\n", " ", "<", "</", "x < 5"]), st.text(max_size=3)
    )
).map("".join)
QUICK = settings(deadline=None)
FROM_REGEX = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_a_whole_judgement_is_read():
    assert read_judgement(WHOLE) == WrittenJudgement(
        rubric=Rubric(RUBRIC_TEXT, "A number is asked for."),
        evaluation="The image shows three.",
        preferred=1,
    )


def test_a_judgement_by_a_given_rubric_is_read():
    assert read_judgement(REST, "evaluation") == WrittenJudgement(
        rubric=None, evaluation="The image shows three.", preferred=1
    )


@pytest.mark.parametrize("digit", [1, 2])
@pytest.mark.parametrize("form", ["{}", " {} ", "\n{}\n", "\t{}\u00a0"])
def test_the_answer_may_stand_between_blanks(digit, form):
    text = f"<eval></eval><answer>{form.format(digit)}</answer>"
    assert read_judgement(text, "evaluation").preferred == digit


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "0",
        "3",
        "12",
        "1 2",
        "1.",
        "01",
        "+1",
        "one",
        "Response 1",
        "１",
        "²",
        "1\u200b",
        "1\0",
    ],
)
def test_an_answer_that_is_neither_1_nor_2_is_unreadable(answer):
    with pytest.raises(UnreadableJudgement, match="neither 1 nor 2"):
        read_judgement(f"<eval>x</eval><answer>{answer}</answer>", "evaluation")


def test_an_evaluation_may_be_empty():
    assert read_judgement("<eval></eval><answer>2</answer>", "evaluation").evaluation == ""


def test_blanks_around_the_blocks_do_not_matter():
    spaced = WHOLE.replace("</rubric>", "</rubric>\n\n ").replace("</eval>", "</eval>\t")
    assert read_judgement(f"\n {spaced} \n") == read_judgement(WHOLE)


def test_a_rubric_needs_no_justification():
    judgement = read_judgement(f"<rubric>Be fair.</rubric>{REST}")
    assert judgement.rubric == Rubric("Be fair.", None)


def test_an_empty_justification_counts_as_none():
    assert read_rubric("<rubric>Be fair.<justify> \n</justify></rubric>") == Rubric("Be fair.")


def test_signs_and_foreign_tags_in_the_evaluation_are_text():
    evaluation = "x < 5 > 3, <b>bold</b>, <|im_end|>, <Answer>2</Answer>, </ eval>, <answers>"
    text = f"<eval>{evaluation}</eval><answer>1</answer>"
    assert read_judgement(text, "evaluation").evaluation == evaluation


UNREADABLE = {
    "nothing": "",
    "blanks": " \n",
    "a digit alone": "1",
    "prose": "The first response is better: 1",
    "no answer": RUBRIC + "<eval>x</eval>",
    "no evaluation": RUBRIC + "<answer>1</answer>",
    "no rubric": REST,
    "an answer never closed": RUBRIC + "<eval>x</eval><answer>1",
    "an evaluation never closed": RUBRIC + "<eval>x<answer>1</answer>",
    "a rubric never closed": WHOLE.replace("</rubric>", ""),
    "a justification never closed": WHOLE.replace("</justify>", ""),
    "a justification never opened": WHOLE.replace("<justify>", ""),
    "a justification in the evaluation": WHOLE.replace("three", "<justify>three</justify>"),
    "a justification outside": RUBRIC + "<justify>why</justify>" + REST,
    "two justifications": WHOLE.replace("</rubric>", "<justify>more</justify></rubric>"),
    "text after the justification": WHOLE.replace("</rubric>", "more</rubric>"),
    "a nested justification": WHOLE.replace("A number", "<justify>A number</justify>"),
    "an empty rubric": f"<rubric> \n</rubric>{REST}",
    "a rubric of a justification alone": f"<rubric><justify>why</justify></rubric>{REST}",
    "a second rubric": RUBRIC + WHOLE,
    "a second evaluation": RUBRIC + "<eval>x</eval>" + REST,
    "a second closing evaluation": WHOLE.replace("</eval>", "</eval></eval>"),
    "a second answer": WHOLE + "<answer>2</answer>",
    "the same answer twice": WHOLE + "<answer>1</answer>",
    "an answer quoted in the evaluation": WHOLE.replace("three", "<answer>2</answer>"),
    "an answer quoted in the rubric": WHOLE.replace("it matches", "<answer>2</answer>"),
    "an answer in an answer": WHOLE.replace(">1<", "><answer>1</answer><"),
    "an evaluation smuggled into the evaluation": WHOLE.replace(
        "three", "</eval><answer>2</answer><eval>"
    ),
    "another order": REST + RUBRIC,
    "the answer before the evaluation": RUBRIC + "<answer>1</answer><eval>x</eval>",
    "text before": "Sure! " + WHOLE,
    "text between": WHOLE.replace("</eval>\n", "</eval>\nso: "),
    "text after": WHOLE + " Done.",
    "a zero-width space before": "\u200b" + WHOLE,
    "a byte order mark before": "\ufeff" + WHOLE,
    "tags in capitals": WHOLE.replace("answer", "ANSWER"),
    "one closing tag in capitals": WHOLE.replace("</answer>", "</ANSWER>"),
    "a blank in the tag": WHOLE.replace("<answer>", "< answer>"),
    "a zero-width space in the tag": WHOLE.replace("<answer>", "<ans\u200bwer>"),
    "an attribute in the tag": WHOLE.replace("<answer>", '<answer id="1">'),
    "an empty-element tag": RUBRIC + "<eval/><answer>1</answer>",
    "another bracket": WHOLE.replace("<answer>", "‹answer›"),
    "a closing tag first": "</rubric>" + WHOLE,
    "only closing tags": "</rubric></eval></answer>",
    "blocks one inside the other": "<rubric>a<eval>b<answer>1</answer></eval></rubric>",
    "blocks that overlap": "<rubric>a<eval></rubric>b</eval><answer>1</answer>",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_whatever_is_not_exactly_the_grammar_is_unreadable(text):
    with pytest.raises(UnreadableJudgement):
        read_judgement(text)


def test_a_second_closing_tag_is_unreadable():
    with pytest.raises(UnreadableJudgement, match="</eval> closes nothing"):
        read_judgement("<eval>x</eval></eval><answer>1</answer>", "evaluation")


def test_an_own_rubric_is_unreadable_where_one_was_given():
    with pytest.raises(UnreadableJudgement, match="found \\['rubric', 'eval', 'answer'\\]"):
        read_judgement(WHOLE, "evaluation")


def test_a_rubric_alone_is_read():
    assert read_rubric(RUBRIC) == Rubric(RUBRIC_TEXT, "A number is asked for.")


@pytest.mark.parametrize(
    "text",
    ["", "Be fair.", "<rubric></rubric>", "<rubric>a", RUBRIC * 2, WHOLE, REST, RUBRIC + "more"],
)
def test_anything_but_one_closed_rubric_is_not_a_rubric(text):
    with pytest.raises(UnreadableJudgement):
        read_rubric(text)


@given(st.one_of(st.text(), TAG_SOUP), st.sampled_from(["rubric", "evaluation"]))
@QUICK
def test_reading_never_fails_in_any_other_way(text, begins_with):
    with contextlib.suppress(UnreadableJudgement):
        judgement = read_judgement(text, begins_with)
        assert judgement.preferred in (1, 2)
        assert (judgement.rubric is None) == (begins_with == "evaluation")
        assert [text.count(tag) for tag in ("<eval>", "</eval>", "<answer>", "</answer>")] == [
            1
        ] * 4
    with contextlib.suppress(UnreadableJudgement):
        assert read_rubric(text).text != ""


@given(TAG_SOUP)
@QUICK
def test_nothing_that_a_candidate_gets_quoted_changes_the_verdict(quoted):
    try:
        judgement = read_judgement(f"<eval>{quoted}</eval>\n<answer>1</answer>", "evaluation")
    except UnreadableJudgement:
        return
    assert judgement.preferred == 1
    assert judgement.evaluation == quoted.strip()


@pytest.mark.parametrize("begins_with", ["rubric", "evaluation"])
@given(data=st.data())
@FROM_REGEX
def test_whatever_the_grammar_lets_through_is_readable(begins_with, data):
    text = data.draw(st.from_regex(GRAMMARS[begins_with], fullmatch=True))
    judgement = read_judgement(text, begins_with)
    assert judgement.preferred == int(text[-len(ANSWER_END) - 1])
    assert (judgement.rubric is not None) == (begins_with == "rubric")


@given(st.from_regex(RUBRIC_GRAMMAR, fullmatch=True))
@FROM_REGEX
def test_whatever_the_rubric_grammar_lets_through_is_a_rubric(text):
    assert text.endswith(RUBRIC_END)
    assert read_rubric(text).text != ""


@pytest.mark.parametrize(
    "text", [WHOLE, WHOLE.replace("three", "x < 5 and <3"), f"<rubric>\nBe fair.</rubric>\n{REST}"]
)
def test_a_well_written_judgement_matches_the_grammar(text):
    assert re.fullmatch(GRAMMARS["rubric"], text)
    assert re.fullmatch(RUBRIC_GRAMMAR, text[: text.index(RUBRIC_END) + len(RUBRIC_END)])


@pytest.mark.parametrize("smuggled", [*TAGS, "</x", "<|im_end|>", "<!--", "<ANSWER>"])
def test_the_grammar_has_no_tags_inside_rubric_and_evaluation(smuggled):
    assert not re.fullmatch(GRAMMARS["evaluation"], REST.replace("three", smuggled))
    assert not re.fullmatch(GRAMMARS["rubric"], WHOLE.replace("it matches", smuggled))


TAG = re.compile(r"</?(?:rubric|justify|eval|answer)>")
STRIPPED = st.text(min_size=1).map(str.strip).filter(lambda text: text and not TAG.search(text))


@given(STRIPPED, st.none() | STRIPPED)
@QUICK
def test_a_written_rubric_reads_as_itself(text, justification):
    rubric = Rubric(text, justification)
    assert read_rubric(write_rubric(rubric)) == rubric


def test_a_written_rubric_looks_as_the_grammar_says():
    assert write_rubric(Rubric(RUBRIC_TEXT, "A number is asked for.")) == RUBRIC.rstrip("\n")
    assert write_rubric(Rubric("Be fair.")) == "<rubric>\nBe fair.\n</rubric>"


def test_after_the_verdict_prefix_only_the_verdict_is_missing():
    assert verdict_prefix(None) == "<eval></eval>\n<answer>"
    given_rubric = verdict_prefix(None) + "2" + ANSWER_END
    assert re.fullmatch(GRAMMARS["evaluation"], given_rubric)
    assert read_judgement(given_rubric, "evaluation") == WrittenJudgement(None, "", 2)
    rubric = Rubric(RUBRIC_TEXT, "why")
    own = verdict_prefix(rubric) + "1" + ANSWER_END
    assert re.fullmatch(GRAMMARS["rubric"], own)
    assert read_judgement(own) == WrittenJudgement(rubric, "", 1)


def test_an_evaluation_of_a_megabyte_is_read(within):
    with within(3):
        judgement = read_judgement(WHOLE.replace("three", "x" * MEGABYTE))
    assert judgement.evaluation == f"The image shows {'x' * MEGABYTE}."


@pytest.mark.parametrize("piece", ["<", "</eval>", "<eval></eval>", "<justify>", "\n", "<answer"])
def test_a_hostile_megabyte_is_unreadable_in_a_moment(piece, within):
    with within(3), pytest.raises(UnreadableJudgement):
        read_judgement(piece * (MEGABYTE // len(piece)))
