from __future__ import annotations

import functools
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from models.judgement import ANSWER_END, GRAMMARS, read_judgement, read_rubric, verdict_prefix
from models.neutralise import Neutraliser
from models.rubric import Rubric, read_criteria
from models.toyworld import (
    FAMILIES,
    STRATA,
    CaseOptions,
    Stratum,
    ToyCase,
    make_case,
    teacher_rubric,
)
from models.toyworld.cases import Matter
from models.toyworld.phrasing import NAMES, TOPICS
from models.toyworld.scene import draw

Oracle = Any  # the one of conftest.py

SPECIFIED = [
    CaseOptions(stratum, family, held_out)
    for stratum in STRATA
    for family in (*FAMILIES, None)
    for held_out in (False, True)
    if (stratum, family) != ("rubric", "description")
]
every_stratum = pytest.mark.parametrize(
    ("stratum", "held_out"), list(itertools.product(STRATA, (False, True)))
)


@functools.cache
def cases(options: CaseOptions | None, number: int) -> tuple[ToyCase, ...]:
    return fresh_cases(options, number, seed=0)


def of_every_family(stratum: Stratum, held_out: bool) -> Iterator[ToyCase]:
    for options in SPECIFIED:
        if (options.stratum, options.held_out) == (stratum, held_out):
            yield from cases(options, 25)


def fresh_cases(options: CaseOptions | None, number: int, seed: int) -> tuple[ToyCase, ...]:
    rng = random.Random(seed)
    return tuple(make_case(rng, options) for _ in range(number))


def better_first(case: ToyCase) -> tuple[str, str]:
    one, two = case.responses
    return (one, two) if case.label == 1 else (two, one)


def correctness(oracle: Oracle, case: ToyCase, response: str) -> tuple[list[bool], bool]:
    """Whether each claim is true, in the order of the questions; whether the form is kept."""
    question = oracle.question(case.question)
    said = oracle.said(response, [asked.family for asked in question.asked])
    right = [
        claim == oracle.truth(case.scene, asked)
        for claim, asked in zip(said.claims, question.asked, strict=True)
    ]
    return right, question.wish is None or said.bare == (question.wish == "one word")


def heaviest(rubric: Rubric) -> str:
    """The topic that weighs most."""
    return max(rubric.criteria, key=lambda criterion: criterion.weight).name.lower()


def said_of_topics(rubric: Rubric) -> dict[str, str]:
    """What a rubric says of each of its topics."""
    return {c.name.lower(): c.description for c in rubric.criteria}


def facts_by_priority(oracle: Oracle, case: ToyCase) -> list[str]:
    """What the image shows of the matters that it settles."""
    asked = oracle.question(case.question).asked
    facts = {TOPICS[one.family]: oracle.fact(case.scene, one) for one in asked}
    return [facts[matter.topic] for matter in case.priorities if matter.topic in facts]


def versions(case: ToyCase, rng: random.Random) -> list[ToyCase]:
    """The case under every kind of rubric."""
    found = [
        case,
        case.with_rubric_varied(rng),
        case.with_rubric_varied(rng, stated=False),
        case.with_rubric(teacher_rubric(case, rng, vague=1, misweighted=0)),
        case.with_rubric(teacher_rubric(case, rng, vague=0, misweighted=1)),
    ]
    if case.stratum == "rubric":
        turned = case.with_priority_reversed()
        found += [turned, turned.with_rubric_varied(rng, stated=False)]
    return found


def is_good(finding: str) -> bool:
    return finding.endswith((": correct", "short"))


def verdict_of(findings: tuple[tuple[str, ...], tuple[str, ...]]) -> int:
    """The response that is better in the first matter in which the two differ."""
    one, two = next(pair for pair in zip(*findings, strict=True) if pair[0] != pair[1])
    assert is_good(one) != is_good(two)
    return 1 if is_good(one) else 2


def to_be_found(oracle: Oracle, case: ToyCase, response: str) -> tuple[str, ...]:
    """What there is to find about a response, in the order of the priorities."""
    question = oracle.question(case.question)
    said = oracle.heard(response, [one.family for one in question.asked])
    if said is None:
        beside = {f: other for f in oracle.families if (other := oracle.heard(response, [f]))}
        ((family, other),) = beside.items()
        return (f"{TOPICS[family]} {other.claims[0]}: not asked",)
    found = {"brevity": "long" if said.padded else "short"}
    for one, claim in zip(question.asked, said.claims, strict=True):
        truth = oracle.truth(case.scene, one)
        verdict = "correct" if claim == truth else "wrong"
        found[TOPICS[one.family]] = f"{TOPICS[one.family]} {claim}, is {truth}: {verdict}"
    if question.wish is not None:
        form = "one word" if said.bare else "a sentence"
        verdict = "correct" if form == question.wish else "wrong"
        found["form"] = f"form {form}, is {question.wish}: {verdict}"
    return tuple(found[m.topic] for m in case.priorities if m.topic in found)


# --- what is written -------------------------------------------------------------------------


@every_stratum
def test_what_the_perfect_judge_writes_is_read_back(stratum: Stratum, held_out: bool):
    for case in of_every_family(stratum, held_out):
        whole = read_judgement(case.written())
        rest = read_judgement(case.written(rubric_given=True), "evaluation")
        assert whole.preferred == rest.preferred == case.label
        assert whole.rubric == case.rubric
        assert rest.rubric is None
        assert whole.evaluation == rest.evaluation == case.evaluation
        assert re.fullmatch(GRAMMARS["rubric"], case.written())
        assert re.fullmatch(GRAMMARS["evaluation"], case.written(rubric_given=True))


@every_stratum
def test_without_an_evaluation_the_verdict_stands_after_the_verdict_prefix(
    stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        own = case.written(evaluated=False)
        given = case.written(rubric_given=True, evaluated=False)
        assert own == f"{verdict_prefix(case.rubric)}{case.label}{ANSWER_END}"
        assert given == f"{verdict_prefix(None)}{case.label}{ANSWER_END}"
        assert read_judgement(own).preferred == case.label
        assert read_judgement(given, "evaluation").preferred == case.label
        assert re.fullmatch(GRAMMARS["rubric"], own)
        assert re.fullmatch(GRAMMARS["evaluation"], given)


@every_stratum
def test_a_rubric_has_two_criteria_that_can_be_read(stratum: Stratum, held_out: bool):
    for case in of_every_family(stratum, held_out):
        criteria = read_criteria(case.rubric.text)
        assert criteria == case.rubric.criteria
        assert [criterion.weight for criterion in criteria] == [0.7, 0.3]
        assert [c.name for c in criteria] == [m.topic.capitalize() for m in case.priorities]
        assert case.rubric.justification == case.justification


@every_stratum
def test_a_justification_says_where_the_responses_part_and_what_is_right_there(
    stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        said = re.fullmatch(
            r"They differ in (.+?): former (.+), latter (.+)\. Right is (.+)\.", case.justification
        )
        assert said is not None
        topic, *claims, right = said.groups()
        assert topic in {matter.topic for matter in case.priorities}
        assert claims[0] != claims[1]
        described = topic == TOPICS["description"]
        assert right == (NAMES if described else claims)[case.label - 1]


@pytest.mark.parametrize("held_out", [False, True])
def test_descriptions_are_gone_through_thing_by_thing_and_one_of_them_is_found_wrong(
    oracle: Oracle, held_out: bool
):
    wrong: Counter[str] = Counter()
    twins = 0
    for case in cases(CaseOptions("image", "description", held_out), 400):
        gone_through: list[list[str]] = []
        for response in case.responses:
            things = oracle.said(response, ["description"]).claims[0].split(", ")
            places = oracle.places(case.scene, things)
            marks = [f"{thing} {place}" for thing, place in zip(things, places, strict=True)]
            if len(things) < len(case.scene.objects):
                marks.append("rest no")
            gone_through.append(marks)
            twins += len({*things}) < len(things) and "nowhere" not in places
        former, latter = map(", ".join, gone_through)
        assert case.justification == (
            f"They differ in objects: former {former}, latter {latter}. "
            f"Right is {NAMES[case.label - 1]}."
        )
        faults = [
            [mark for mark in marks if mark.endswith(("nowhere", " no"))] for marks in gone_through
        ]
        assert faults[case.label - 1] == []
        (fault,) = faults[2 - case.label]
        wrong[fault.rpartition(" ")[2]] += 1
    assert set(wrong) == {"nowhere", "no"}
    assert min(wrong.values()) > 20
    assert twins > 0


@every_stratum
def test_nothing_in_a_case_has_to_be_neutralised(stratum: Stratum, held_out: bool):
    neutralise = Neutraliser(["<|im_end|>", "<|image_pad|>"])
    for case in of_every_family(stratum, held_out):
        texts = (case.question, *case.responses, case.rubric.text)
        assert [neutralise(text).attempts for text in texts] == [0, 0, 0, 0]


# --- what a rubric states ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "stated", "says"),
    [
        (True, True, "red circles: 2"),
        (True, False, "as in the image"),
        (False, True, "red circles: 2"),
        (False, False, "red circles: 2"),
    ],
)
def test_of_a_matter_only_what_the_image_settles_can_be_left_unstated(
    seen: bool, stated: bool, says: str
):
    assert Matter("number", "red circles: 2", seen).criterion(stated=stated) == says


@every_stratum
def test_a_rubric_states_what_a_right_response_says_and_does(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        question = oracle.question(case.question)
        seen = {TOPICS[one.family]: oracle.fact(case.scene, one) for one in question.asked}
        others = {
            "form": question.wish,
            "relevance": "what was asked",
            "brevity": "nothing needless",
        }
        for matter in case.priorities:
            assert matter.standard == (seen | others)[matter.topic]
            assert matter.seen == (matter.topic in seen)
        assert said_of_topics(case.rubric) == {m.topic: f"{m.standard}." for m in case.priorities}


@every_stratum
def test_an_unstated_rubric_names_no_fact_and_weighs_the_same(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    rng = random.Random(7)
    for case in of_every_family(stratum, held_out):
        unstated = case.with_rubric_varied(rng, stated=False)
        assert said_of_topics(unstated.rubric) == {
            m.topic: "as in the image." if m.seen else f"{m.standard}." for m in case.priorities
        }
        assert not any(f in unstated.rubric.text for f in facts_by_priority(oracle, case))
        assert heaviest(unstated.rubric) == case.priorities[0].topic


def test_an_unstated_rubric_is_the_same_whatever_the_image_shows():
    rubrics: dict[tuple[str, ...], set[Rubric]] = {}
    scenes: Counter[tuple[str, ...]] = Counter()
    for case in cases(None, 400):
        key = tuple(m.topic if m.seen else m.standard for m in case.priorities)
        unstated = case.with_rubric_varied(random.Random(0), stated=False)
        rubrics.setdefault(key, set()).add(unstated.rubric)
        scenes[key] += 1
    assert max(scenes.values()) > 20
    assert {len(found) for found in rubrics.values()} == {1}


@every_stratum
def test_a_rubric_that_is_varied_says_the_same_of_the_same_case(stratum: Stratum, held_out: bool):
    rng = random.Random(8)
    for case in of_every_family(stratum, held_out):
        varied = case.with_rubric_varied(rng)
        assert said_of_topics(varied.rubric) == said_of_topics(case.rubric)
        assert heaviest(varied.rubric) == case.priorities[0].topic
        assert varied.rubric.justification is None
        assert varied.with_rubric(case.rubric) == case


@pytest.mark.parametrize("stated", [False, True])
def test_a_rubric_is_varied_in_its_weights_and_in_what_stands_first(stated: bool):
    rng, number = random.Random(8), 1200
    weights = Counter(
        tuple(c.weight for c in case.with_rubric_varied(rng, stated=stated).rubric.criteria)
        for case in cases(None, number)
    )
    assert set(weights) == {(0.6, 0.4), (0.7, 0.3), (0.8, 0.2), (0.4, 0.6), (0.3, 0.7), (0.2, 0.8)}
    for count in weights.values():
        assert count / number == pytest.approx(1 / 6, abs=0.045)


# --- which response is better ----------------------------------------------------------------


@every_stratum
def test_a_question_says_only_what_a_phrasing_gives(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        question = oracle.question(case.question)
        assert len(question.asked) == (
            2 if case.stratum == "rubric" and case.family != "instruction" else 1
        )
        assert (question.wish is not None) == (case.family == "instruction")
        assert (question.first is not None) == (case.stratum == "rubric")


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_the_image_stratum_one_response_is_right_and_the_label_names_it(
    oracle: Oracle, family: str, held_out: bool
):
    for case in cases(CaseOptions("image", family, held_out), 150):
        better, worse = (correctness(oracle, case, text) for text in better_first(case))
        assert case.family == family
        assert better[0] == [True]
        assert worse[0] == [False]
        assert better[1] == worse[1], "both keep the form or neither does"


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("description", "instruction")])
def test_in_the_rubric_stratum_each_response_is_right_about_one_matter_and_the_priority_decides(
    oracle: Oracle, family: str, held_out: bool
):
    for case in cases(CaseOptions("rubric", family, held_out), 100):
        question = oracle.question(case.question)
        asked = [one.family for one in question.asked]
        better, worse = (correctness(oracle, case, text)[0] for text in better_first(case))
        deciding = asked.index(family)
        assert case.family == family
        assert sorted(better) == sorted(worse) == [False, True]
        assert better == [not right for right in worse]
        assert better[deciding]
        assert question.first == case.priorities[0].topic
        assert question.second in (None, case.priorities[1].topic)


@pytest.mark.parametrize("held_out", [False, True])
def test_form_against_fact_is_decided_by_the_priority(oracle: Oracle, held_out: bool):
    deciding: Counter[str] = Counter()
    for case in cases(CaseOptions("rubric", "instruction", held_out), 400):
        first = oracle.question(case.question).first
        better, worse = (correctness(oracle, case, text) for text in better_first(case))
        by_form = first == "form"
        assert better == ([not by_form], by_form)
        assert worse == ([by_form], not by_form)
        assert first == case.priorities[0].topic
        deciding["form" if by_form else "fact"] += 1
    assert deciding["form"] / 400 == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, None])
def test_in_the_text_stratum_both_are_true_of_the_image_and_one_is_badly_put(
    oracle: Oracle, family: str | None, held_out: bool
):
    for case in cases(CaseOptions("text", family, held_out), 60):
        question = oracle.question(case.question)
        (asked,) = question.asked
        better, worse = better_first(case)
        good = oracle.said(better, [asked.family])
        assert correctness(oracle, case, better) == ([True], True)
        assert not good.padded
        fault = case.priorities[1].topic
        if fault == "relevance":
            assert "not asked" in case.findings[2 - case.label][0]
            assert any(
                oracle.true_of_something(case.scene, other, said.claims[0])
                for other in oracle.families
                if other != asked.family and (said := oracle.heard(worse, [other]))
            )
        elif fault == "form":
            assert correctness(oracle, case, worse) == ([True], False)
        else:
            assert fault == "brevity"
            assert correctness(oracle, case, worse) == ([True], True)
            assert oracle.said(worse, [asked.family]).padded


# --- what is found ----------------------------------------------------------------------------


@every_stratum
def test_each_response_is_found_right_or_wrong_in_order_of_priority(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        assert case.findings == tuple(to_be_found(oracle, case, text) for text in case.responses)


@every_stratum
def test_the_verdict_follows_the_first_finding_in_which_the_responses_differ(
    stratum: Stratum, held_out: bool
):
    rng = random.Random(9)
    for case in of_every_family(stratum, held_out):
        for version in versions(case, rng):
            assert verdict_of(version.findings) == version.label


@every_stratum
def test_what_comes_first_is_what_was_asked_or_what_the_asker_put_first(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    for case in of_every_family(stratum, held_out):
        question = oracle.question(case.question)
        first = question.first or TOPICS[question.asked[0].family]
        assert case.evaluation.split("\n")[0] == f"first: {first}"


@every_stratum
def test_an_evaluation_says_what_comes_first_what_its_rubric_does_not_state_and_what_is_found(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    rng = random.Random(10)
    for case in of_every_family(stratum, held_out):
        for version in versions(case, rng):
            facts = facts_by_priority(oracle, version)
            one, two = (", ".join(findings) for findings in version.findings)
            assert version.evaluation.split("\n") == [
                f"first: {version.priorities[0].topic}",
                *(fact for fact in facts if fact not in version.rubric.text),
                f"{NAMES[0]}: {version.responses[0]}",
                one,
                f"{NAMES[1]}: {version.responses[1]}",
                two,
            ]


@every_stratum
def test_a_rubric_that_states_the_facts_leaves_none_to_its_evaluation(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    rng = random.Random(11)
    for case in of_every_family(stratum, held_out):
        weighed_otherwise = teacher_rubric(case, rng, vague=0, misweighted=1)
        for version in (case, case.with_rubric(weighed_otherwise)):
            said = version.evaluation.split("\n")
            assert len(said) == 5
            assert not {*facts_by_priority(oracle, case)} & {*said}


@every_stratum
def test_a_rubric_that_is_vague_or_leaves_the_facts_unstated_leaves_all_to_its_evaluation(
    oracle: Oracle, stratum: Stratum, held_out: bool
):
    rng = random.Random(12)
    for case in of_every_family(stratum, held_out):
        vague = case.with_rubric(teacher_rubric(case, rng, vague=1, misweighted=0))
        for version in (vague, case.with_rubric_varied(rng, stated=False)):
            assert version.evaluation.split("\n")[1:-4] == facts_by_priority(oracle, case)


@pytest.mark.parametrize("stating", [0, 1])
def test_a_rubric_that_states_one_of_two_facts_leaves_the_other_to_its_evaluation(
    oracle: Oracle, stating: int
):
    for case in cases(CaseOptions("rubric", "count"), 50):
        facts = facts_by_priority(oracle, case)
        matter = case.priorities[stating]
        rubric = Rubric(f"1. {matter.topic.capitalize()} (100%): {matter.standard}.")
        found = case.with_rubric(rubric).evaluation.split("\n")
        assert found[1:-4] == [facts[1 - stating]]


# --- reversing the priority ------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_reversing_the_priority_turns_the_label_and_keeps_the_pair(oracle: Oracle, held_out: bool):
    for case in cases(CaseOptions("rubric", held_out=held_out), 300):
        turned = case.with_priority_reversed()
        assert turned.label == 3 - case.label
        assert (turned.scene, turned.question, turned.responses) == (
            case.scene,
            case.question,
            case.responses,
        )
        assert turned.priorities == case.priorities[::-1]
        assert turned.findings == tuple(findings[::-1] for findings in case.findings)
        assert turned.findings == tuple(to_be_found(oracle, turned, t) for t in turned.responses)
        assert verdict_of(turned.findings) == turned.label
        assert heaviest(turned.rubric) == case.priorities[1].topic
        assert said_of_topics(turned.rubric) == said_of_topics(case.rubric)
        assert turned.rubric.justification == turned.justification != case.justification
        assert turned.evaluation.split("\n")[0] == f"first: {case.priorities[1].topic}"
        judged = read_judgement(turned.written())
        assert (judged.preferred, judged.rubric) == (turned.label, turned.rubric)
        assert not oracle.kept_from_training(turned.rubric.text) - oracle.kept_from_training(
            case.rubric.text
        )


def test_a_priority_reversed_twice_is_the_first_one():
    for case in cases(CaseOptions("rubric"), 50):
        twice = case.with_priority_reversed().with_priority_reversed()
        assert (twice.label, twice.priorities) == (case.label, case.priorities)
        assert twice.findings == case.findings
        assert twice == case


@pytest.mark.parametrize("stratum", ["image", "text"])
def test_only_a_rubric_decided_case_has_a_priority_to_reverse(stratum: Stratum):
    for case in cases(CaseOptions(stratum), 20):
        with pytest.raises(ValueError, match="only a rubric-decided case"):
            case.with_priority_reversed()


def test_the_rubric_of_another_case_favours_neither_matter():
    drawn = cases(CaseOptions("rubric"), 2000)
    others = drawn[1:] + drawn[:1]
    deciding, losing = (
        sum(
            heaviest(other.rubric) == case.priorities[place].topic
            for case, other in zip(drawn, others, strict=True)
        )
        for place in (0, 1)
    )
    # About 1 in 7 names each; the difference of two such counts has a deviation of about 24.
    assert deciding > 200
    assert abs(deciding - losing) < 4 * 24


# --- a teacher's rubrics ---------------------------------------------------------------------


@pytest.mark.parametrize(("vague", "misweighted"), [(0.15, 0.15), (0.3, 0.0), (0.0, 0.4)])
@pytest.mark.parametrize("stratum", STRATA)
def test_a_teacher_errs_as_often_as_asked(stratum: Stratum, vague: float, misweighted: float):
    rng, number = random.Random(2), 800
    found: Counter[str] = Counter()
    for case in cases(CaseOptions(stratum), number):
        rubric = teacher_rubric(case, rng, vague=vague, misweighted=misweighted)
        if rubric.criteria[0].name == "Quality":
            found["vague"] += 1
        elif heaviest(rubric) != case.priorities[0].topic:
            found["misweighted"] += 1
            assert said_of_topics(rubric) == said_of_topics(case.rubric)
        else:
            assert rubric == case.rubric
    expected = {"vague": vague, "misweighted": misweighted if stratum == "rubric" else 0.0}
    for fault, share in expected.items():
        deviation = (number * share * (1 - share)) ** 0.5
        assert abs(found[fault] - number * share) <= 4 * deviation


def test_a_teachers_verdict_stays_right_whatever_its_rubric():
    rng = random.Random(3)
    for case in cases(None, 300):
        rubric = teacher_rubric(case, rng, vague=0.5, misweighted=0.5)
        written = case.with_rubric(rubric)
        judged = read_judgement(written.written())
        assert (judged.preferred, judged.rubric) == (case.label, rubric)
        assert judged.evaluation == written.evaluation
        assert (written.label, written.priorities) == (case.label, case.priorities)
        assert written.findings == case.findings
        assert read_judgement(written.written(evaluated=False)).preferred == case.label
        assert read_rubric(f"<rubric>\n{rubric.text}\n</rubric>").text == rubric.text
        assert sum(criterion.weight for criterion in rubric.criteria) == pytest.approx(1)


def test_a_vague_rubric_says_nothing_about_the_case():
    rng = random.Random(4)
    texts = {teacher_rubric(case, rng, vague=1, misweighted=0).text for case in cases(None, 50)}
    (text,) = texts
    assert [criterion.weight for criterion in read_criteria(text)] == [0.5, 0.5]


def test_a_teacher_without_faults_gives_the_good_rubric():
    rng = random.Random(5)
    assert all(
        teacher_rubric(case, rng, vague=0, misweighted=0) == case.rubric for case in cases(None, 50)
    )


# --- drawing lots ----------------------------------------------------------------------------


def test_the_same_random_state_gives_the_same_case():
    for options in SPECIFIED:
        assert fresh_cases(options, 6, seed=9) == fresh_cases(options, 6, seed=9)


def test_different_seeds_give_different_cases():
    for options in SPECIFIED:
        drawn = [fresh_cases(options, 1, seed) for seed in range(12)]
        for one, two in itertools.combinations(drawn, 2):
            assert one != two


def test_options_say_which_cases_are_made():
    for options in SPECIFIED:
        for case in cases(options, 25):
            assert case.stratum == options.stratum
            assert options.family in (None, case.family)


def test_strata_labels_and_families_come_in_their_shares():
    drawn = cases(None, 2500)
    strata = Counter(case.stratum for case in drawn)
    assert strata["image"] / 2500 == pytest.approx(0.55, abs=0.035)
    assert strata["rubric"] / 2500 == pytest.approx(0.35, abs=0.035)
    assert strata["text"] / 2500 == pytest.approx(0.10, abs=0.02)
    for stratum in STRATA:
        labels = [case.label for case in drawn if case.stratum == stratum]
        deviation = 0.5 / len(labels) ** 0.5
        assert abs(labels.count(1) / len(labels) - 0.5) < 4 * deviation
    families = Counter(case.family for case in drawn if case.stratum == "image")
    for family in FAMILIES:
        assert families[family] / strata["image"] == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_alone_draws_among_the_strata_that_have_it(family: str):
    drawn = cases(CaseOptions(family=family), 400)
    strata = Counter(case.stratum for case in drawn)
    having = {"image": 0.55, "rubric": 0.35, "text": 0.10}
    if family == "description":
        del having["rubric"]
    assert {case.family for case in drawn} == {family}
    assert set(strata) == set(having)
    for stratum, share in having.items():
        assert strata[stratum] / 400 == pytest.approx(share / sum(having.values()), abs=0.1)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_description_is_never_one_of_two_matters(held_out: bool):
    for case in cases(CaseOptions("text", "description", held_out), 60):
        assert case.priorities[1].topic == "brevity"
    for case in cases(CaseOptions("rubric", held_out=held_out), 400):
        assert "objects" not in {matter.topic for matter in case.priorities}
    with pytest.raises(ValueError, match="stratum 'rubric' and family 'description'"):
        make_case(random.Random(0), CaseOptions("rubric", "description", held_out))


@pytest.mark.parametrize("stratum", [*STRATA, None])
@pytest.mark.parametrize("family", ["smell", "", "Count"])
def test_an_unknown_family_is_an_error_and_draws_nothing(stratum: Stratum | None, family: str):
    rng = random.Random(0)
    before = rng.getstate()
    with pytest.raises(ValueError, match=f"family '{family}'"):
        make_case(rng, CaseOptions(stratum, family))
    assert rng.getstate() == before


@every_stratum
def test_no_scene_is_empty(stratum: Stratum, held_out: bool):
    assert all(case.scene.objects for case in of_every_family(stratum, held_out))


# --- what a judge receives -------------------------------------------------------------------


def test_a_labeled_case_is_what_a_judge_receives():
    for case in cases(None, 20):
        labeled = case.labeled()
        (picture,) = labeled.comparison.images
        assert labeled.label == case.label
        assert labeled.comparison.question == case.question
        assert labeled.comparison.responses == case.responses
        assert picture.pixels.tobytes() == draw(case.scene).tobytes()
        assert case.picture().tobytes() == draw(case.scene).tobytes()


def test_pictures_have_the_same_identity_exactly_when_their_scenes_are_equal():
    drawn = [*fresh_cases(None, 15, seed=1), *fresh_cases(None, 15, seed=1)]
    identities = [case.labeled().comparison.images[0].identity for case in drawn]
    for one, two in itertools.combinations(range(30), 2):
        assert (identities[one] == identities[two]) == (drawn[one].scene == drawn[two].scene)
