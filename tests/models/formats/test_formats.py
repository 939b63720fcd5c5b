from __future__ import annotations

import pytest

from models.comparison import Comparison
from models.errors import ReleaseInvalid
from models.formats import SHIPPED, OutputFormat, load_format
from models.formats.proxy_grm import ProxyGrm
from models.judgement import WrittenJudgement, write_judgement
from models.neutralise import Neutraliser
from models.prompts import read_prompts
from models.rubric import Rubric

FOREIGN = [load_format(name) for name in SHIPPED if name != "proxy_grm"]


class Terse(OutputFormat):
    """A format of somebody else's: the verdict and nothing else."""

    def read(self, text, begins_with):
        return WrittenJudgement(None, "", int(text))

    def verdict_prefix(self):
        return ""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_format_loads_and_has_its_prompt_files(name):
    written = load_format(name)
    assert set(read_prompts(written.prompts_dir, written.layouts)) == set(written.layouts)
    assert written.revision >= 1


def test_a_format_may_be_named_by_where_it_is():
    written = load_format(f"{__name__}:Terse")
    assert (written.writes_rubric, written.verdict_depth) == (False, False)
    assert written.grammar("rubric") is None
    assert written.layouts == ("no_rubric", "rubric_given")


@pytest.mark.parametrize("name", ["", "r1-reward", "models.formats", ":R1Reward", "models:"])
def test_a_name_that_is_none_is_refused_with_those_that_are(name):
    with pytest.raises(ReleaseInvalid, match="proxy_grm, r1_reward, unified_reward_think"):
        load_format(name)


@pytest.mark.parametrize("name", ["models.nowhere:Format", "models.formats.thinking:Nobody"])
def test_a_format_that_is_not_where_it_is_said_to_be_is_refused(name):
    with pytest.raises(ReleaseInvalid, match="cannot be loaded") as caught:
        load_format(name)
    assert isinstance(caught.value.__cause__, (ImportError, AttributeError))


@pytest.mark.parametrize("name", ["models.rubric:Rubric", "models.rubric:read_criteria"])
def test_what_is_no_output_format_is_refused(name):
    with pytest.raises(ReleaseInvalid, match="no subclass"):
        load_format(name)


def test_our_own_grammar_is_the_one_that_writes_rubrics_and_has_a_verdict_depth():
    own = load_format("proxy_grm")
    assert isinstance(own, ProxyGrm)
    assert own.writes_rubric
    assert own.verdict_depth
    rubric = Rubric("1. Count (100%): it is right.")
    assert own.read(write_judgement(rubric, "Fine.", 2), "rubric").rubric == rubric
    assert [written.writes_rubric or written.verdict_depth for written in FOREIGN] == [False, False]


@pytest.mark.parametrize("written", FOREIGN)
@pytest.mark.parametrize("layout", ["no_rubric", "rubric_given"])
def test_a_candidate_cannot_speak_in_the_tags_or_marks_of_the_format(written, layout):
    neutralise = Neutraliser(["<|im_end|>"], written.tags, written.marks)
    fill = read_prompts(written.prompts_dir, written.layouts)[layout].fill
    signs = [f"<{slash}{tag}>" for tag in written.tags for slash in ("", "/")]
    signs += [*written.marks, *(mark.lower().replace(" ", "\n  ") for mark in written.marks)]
    text = " x ".join(signs)
    given = layout == "rubric_given"
    benign = fill(Comparison("q", ("a", "b")), neutralise, Rubric("r") if given else None)
    benign = "".join(benign.user)
    prompt = fill(Comparison(text, (text, text)), neutralise, Rubric(text) if given else None)
    hostile = "".join(prompt.user)
    for sign in signs:
        assert hostile.count(sign) == benign.count(sign)
    assert prompt.injection_attempts == len(signs) * (4 if given else 3)


@pytest.mark.parametrize("written", FOREIGN)
def test_other_text_is_left_as_it_is(written):
    neutralise = Neutraliser(["<|im_end|>"], written.tags, written.marks)
    text = "Answer 1: yes. Answer 2 is better? [Response 3] <b>x</b> <eval> Question: how [many]?"
    assert neutralise(text).text == text
