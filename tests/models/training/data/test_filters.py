from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.training.data.drops import DropReason
from models.training.data.filters import (
    Difficulty,
    DifficultyOptions,
    Quality,
    QualityOptions,
    apply,
    better_and_worse,
    is_refusal,
    teacher_right,
)
from models.training.data.images import look_in
from models.training.data.records import ImageRef
from models.training.data.similarity import Similarity, SimilarityOptions


@pytest.fixture
def folder(tmp_path, make_image):
    (tmp_path / "a.jpg").write_bytes(make_image(1))
    (tmp_path / "tiny.png").write_bytes(make_image(1, (20, 60), "PNG"))
    (tmp_path / "broken.jpg").write_bytes(make_image(1)[:300])
    return tmp_path


@pytest.fixture
def quality(folder):
    return lambda **options: Quality(QualityOptions(**options), look_in(folder))


def image(path):
    return (ImageRef(path=path),)


# --- quality


def test_a_good_pair_stays(quality, record):
    assert quality().check(record(images=image("a.jpg"))) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": " \n"}, "empty_question"),
        ({"responses": ("Yes.", "\t")}, "empty_response"),
        ({"responses": ("A  red\ncircle", " a red Circle ")}, "identical_responses"),
        ({"question": "x" * 101}, "question_too_long"),
        ({"responses": ("x" * 201, "yes")}, "response_too_long"),
        ({"responses": ("Yes", "I")}, "response_too_short"),
        ({"responses": ("Yes.", "I'm sorry, but I can't help with that.")}, "refusal"),
        ({"images": ()}, "no_image"),
        ({"images": image("absent.jpg")}, "image_missing"),
        ({"images": image("../a.jpg")}, "image_refused"),
        ({"images": image("http://127.0.0.1/a.jpg")}, "image_refused"),
        ({"images": image("broken.jpg")}, "image_damaged"),
        ({"images": image("tiny.png")}, "image_too_small"),
        ({"images": image("a.jpg") + image("absent.jpg")}, "image_missing"),
        ({"images": (ImageRef(data="%"),)}, "image_damaged"),
    ],
)
def test_each_fault_has_its_reason(quality, record, fields, reason):
    one = record(**({"images": image("a.jpg")} | fields))
    checks = quality(question_characters=100, response_characters=200, fewest_characters=2)
    drop = checks.check(one)
    assert (drop.id, drop.reason) == ("r0", reason)


def test_pairs_without_images_and_refusals_can_be_wanted(quality, record):
    one = record(responses=("Yes.", "Sorry, no."))
    assert quality(needs_image=False, drop_refusals=False).check(one) is None


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I cannot assist with that.", "I’m very sorry.", "Sorry, no.",
     "As an AI language model, I have no eyes.", "I am unable to view images.",
     "I cannot provide that.", '"I can\'t see the image."'],
)  # fmt: skip
def test_boilerplate_is_a_refusal(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    ["The sign says: I'm sorry.", "I can see two cats.", "I am able to see it.",
     "As an aid, use a ruler.", "Sorry about that! " + "Here is the answer. " * 30],
)  # fmt: skip
def test_an_answer_is_no_refusal(text):
    assert not is_refusal(text)


def test_what_is_kept_and_what_is_not_are_in_the_order_of_the_input(quality, record):
    wanted = [record(number, images=image("a.jpg")) for number in range(4)]
    faulty = [record(number) for number in range(4, 8)]
    mixed = [one for pair in zip(faulty, wanted, strict=True) for one in pair]
    found = apply(mixed, [quality()])
    assert found.kept == wanted
    assert [drop.id for drop in found.drops] == ["r4", "r5", "r6", "r7"]


def test_the_first_filter_that_objects_gives_the_reason(quality, record):
    one = record(responses=("x" * 50, "y"), images=())
    length = Difficulty(DifficultyOptions(longest_ratio=2))
    assert apply([one], [quality(), length]).drops[0].reason == DropReason.NO_IMAGE
    assert apply([one], [length, quality()]).drops[0].reason == DropReason.TOLD_BY_LENGTH


# --- difficulty


def test_nothing_is_dropped_by_default(judged):
    records = [judged(number, right=number % 2 == 0) for number in range(4)]
    assert apply(records, [Difficulty(DifficultyOptions())]).kept == records


def test_samples_that_all_agree_with_the_label_are_easy_and_the_opposite_hard(judged):
    options = DifficultyOptions(drop_all_right=True, drop_all_wrong=True)
    votes = {0: [1, 1, 1], 1: [2, 2], 2: [1, 2, 1], 3: [1], 4: []}
    records = [judged(n, meta={"teacher_verdicts": verdicts}) for n, verdicts in votes.items()]
    found = apply(records, [Difficulty(options)])
    assert [one.id for one in found.kept] == ["r2", "r3", "r4"]
    assert [(drop.id, drop.reason) for drop in found.drops] == [
        ("r0", "too_easy"), ("r1", "too_hard"),
    ]  # fmt: skip
    assert found.drops[0].detail == "the teacher was right 3 times of 3"


def test_one_judgement_is_enough_when_one_is_asked_for(judged):
    options = DifficultyOptions(drop_all_right=True, fewest_samples=1)
    found = apply([judged(0), judged(1, right=False)], [Difficulty(options)])
    assert [one.id for one in found.kept] == ["r1"]


def test_verdicts_of_a_record_that_is_not_judged_do_not_count(record):
    one = record(meta={"teacher_verdicts": [1, 1, 1]})
    assert teacher_right(one) == teacher_right(one.swap()) == ()


def test_a_better_response_that_is_told_by_its_length_is_dropped(record):
    longest = Difficulty(DifficultyOptions(longest_ratio=3))
    assert longest.check(record(responses=("x" * 31, "y" * 10), label=1)) is not None
    assert longest.check(record(responses=("x" * 30, "y" * 10), label=1)) is None
    assert longest.check(record(responses=("x" * 31, "y" * 10), label=2)) is None


def test_the_better_response_is_the_labeled_one(record):
    one = record(responses=("a", "b"), label=2)
    assert better_and_worse(one) == better_and_worse(one.swap()) == ("b", "a")


# --- similarity


@pytest.fixture
def similar(folder, make_image):
    """A filter, and images that look alike or do not."""
    contents = {
        "one": make_image(5, (320, 240)),
        "alike": make_image(5, (320, 240), "PNG"),
        "other": make_image(6, (320, 240)),
    }
    refs = {
        name: (ImageRef(data=base64.b64encode(content).decode()),)
        for name, content in contents.items()
    }
    return Similarity(SimilarityOptions(), look_in(folder)), refs


LONG = "What is shown in the left half of this picture, and how does it differ from the right?"
ANSWER = "On the left stands a red barn with three windows; the right half shows a boat at sea."


def test_a_pair_near_in_image_and_text_is_dropped_for_the_first(similar, record):
    filter_, refs = similar
    first = record(1, question=LONG, responses=(ANSWER, "Nothing."), images=refs["one"])
    again = record(2, question=LONG.upper(), responses=(ANSWER, "Nothing"), images=refs["alike"])
    found = apply([first, again, record(3, images=refs["one"])], [filter_])
    assert [one.id for one in found.kept] == ["r1", "r3"]
    assert [(drop.id, drop.reason, drop.duplicate_of) for drop in found.drops] == [
        ("r2", "near_duplicate", "r1")
    ]


def test_near_in_one_alone_is_no_duplicate(similar, record):
    filter_, refs = similar
    records = [
        record(1, question=LONG, responses=(ANSWER, "Nothing."), images=refs["one"]),
        record(1, question=LONG, responses=(ANSWER, "Nothing."), images=refs["other"]),
        record(1, question=LONG, responses=(ANSWER, "Nothing."), images=refs["one"] * 2),
        record(1, question=LONG, responses=(ANSWER, "Nothing.")),
        record(1, question="Where?", responses=("Here.", "There."), images=refs["one"]),
    ]
    assert apply(records, [filter_]).kept == records


def test_short_answers_that_differ_under_a_long_question_are_no_duplicates(similar, record):
    filter_, refs = similar
    records = [
        record(1, question=LONG * 3, responses=("Two.", "Three."), images=refs["one"]),
        record(2, question=LONG * 3, responses=("Four.", "Five."), images=refs["one"]),
    ]
    assert apply(records, [filter_]).kept == records


def test_the_order_of_the_responses_does_not_matter(similar, record):
    filter_, refs = similar
    one = record(1, images=refs["one"])
    assert apply([one, one.swap()], [filter_]).kept == [one]


def test_texts_without_words_or_spaces_are_compared_too(similar, record):
    filter_, _ = similar
    texts = [("?!", "…"), ("图里有什么?", "一只猫在桌子上")]
    records = [record(n, question=q, responses=(a, "!!!")) for n, (q, a) in enumerate(texts)]
    assert [one.id for one in apply([*records, *records], [filter_]).kept] == ["r0", "r1"]


def test_an_image_that_cannot_be_read_is_told_and_not_remembered(similar, record):
    filter_, _ = similar
    found = apply([record(images=image("absent.jpg")), record()], [filter_])
    assert [drop.reason for drop in found.drops] == ["image_missing"]
    assert len(found.kept) == 1


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text("ab ", min_size=1), st.text("ab ", min_size=1)), max_size=8))
def test_everything_is_either_kept_or_told_and_twice_the_same(record, folder, texts):
    records = [record(n, question=q, responses=(a, "c")) for n, (q, a) in enumerate(texts)]
    runs = [
        apply(records, [Similarity(SimilarityOptions(permutations=16), look_in(folder))])
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    kept = [one.id for one in runs[0].kept]
    assert sorted(kept + [drop.id for drop in runs[0].drops]) == [one.id for one in records]
    assert all(drop.duplicate_of in kept for drop in runs[0].drops)
