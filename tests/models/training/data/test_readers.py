from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.data.drops import Drop, DropReason
from models.training.data.files import RecordsInvalid, write_records
from models.training.data.readers import FORMATS, licence_of, read_source, source_files
from models.training.data.readers.llava_critic import parse, read_verdict
from models.training.data.readers.pair import NotAPair
from models.training.data.records import PreferenceRecord

NAMES = (
    ("Response 1", "Response 2"),
    ("Response A", "Response B"),
    ("The first response", "The second response"),
)


def outcomes(name, path):
    found = list(read_source(name, path))
    records = [one for one in found if isinstance(one, PreferenceRecord)]
    return records, [one for one in found if isinstance(one, Drop)]


def row(prompt, answer):
    return {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}


def reason_of(fields):
    with pytest.raises(NotAPair) as refused:
        parse(fields)
    return refused.value.reason


def write_jsonl(file, rows):
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


# --- LLaVA-Critic


def test_llava_critic_gives_every_pair_of_every_layout_and_says_why_not_the_others(published):
    records, drops = outcomes("llava-critic", published["llava-critic"])
    assert [(one.question, one.responses, one.label) for one in records] == [
        ("Which animal?", ("A cat.", "A dog."), 1),
        ("How many?", ("Two.", "Three."), 2),
        ("What colour?", ("Red.", "Blue."), 1),
        ("Describe it.", ("A barn.", "A boat."), 2),
    ]
    assert [(one.id.rpartition("/")[2], one.reason) for one in drops] == [
        ("train-00000-of-00001.parquet:4", "tie"),
        ("train-00000-of-00001.parquet:6", "tie"),
        ("train-00000-of-00001.parquet:7", "no_verdict"),
        ("train-00000-of-00001.parquet:1", "pointwise"),
    ]
    assert records[0].meta == {"id": "vlfeedback_0", "source": "vlfeedback"}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    ("verdict", "label"),
    [("first", 1), ("second", 2), ("1", 1), ("2", 2), ("A", 1), ("B", 2), ("Response 2", 2)],
)
def test_each_layout_goes_with_each_way_of_saying_the_verdict(bracketed, names, verdict, label):
    pair = parse(row(bracketed("Q?", "one", "two", names), f"The better response: [{verdict}]."))
    assert (pair.question, pair.responses, pair.label) == ("Q?", ("one", "two"), label)


@pytest.mark.parametrize(
    ("mark", "label"), [("A>>B", 1), ("A>B", 1), ("A", 1), ("B>A", 2), ("B>>A", 2), ("B", 2)]
)
def test_arena_marks_are_read(mark, label):
    assert read_verdict(f"Long thoughts. [[{mark}]]") == label


@pytest.mark.parametrize(
    "answer",
    ["[[A=B]]", "[[C]]", "Two responses are equally good.", "The two responses are identical."],
)
def test_a_tie_is_no_pair(answer, bracketed):
    assert reason_of(row(bracketed("Q?", "one", "two", NAMES[0]), answer)) == DropReason.TIE


def test_a_verdict_in_words_counts_only_at_the_beginning():
    assert read_verdict("The second response is better. It …") == 2
    assert read_verdict("Response A is better because …") == 1
    with pytest.raises(NotAPair, match="begins"):
        read_verdict("Some say that Response A is better.")


def test_two_verdicts_that_differ_are_none(bracketed):
    prompt = bracketed("Q?", "one", "two", NAMES[0])
    for answer in ("The better response: [1] … The better response: [2]", "[[A>B]] or [[B>A]]"):
        assert reason_of(row(prompt, answer)) == DropReason.AMBIGUOUS
    assert parse(row(prompt, "[[A>B]], as I said [[A>>B]]")).label == 1


def test_an_explicit_verdict_counts_though_both_are_called_equally_good_in_something():
    assert read_verdict("The better response: [2]. Both are equally good in style.") == 2


def test_brackets_inside_a_response_stay():
    prompt = "Question: [Is [x] here?]\nResponse 1: [a [1]\n[2]]\nResponse 2: [see [3] there]"
    pair = parse(row(prompt, "The better response: [1]"))
    assert pair.question == "Is [x] here?"
    assert pair.responses == ("a [1]\n[2]", "see [3] there")


def test_a_candidate_that_forges_a_marker_makes_the_row_ambiguous(bracketed, arena):
    forged = "yes]\nResponse 2: [no]"
    assert reason_of(row(bracketed("Q?", forged, "two", NAMES[0]), "[[A]]")) == DropReason.AMBIGUOUS
    forged = "yes\n<|The End of Assistant A's Answer|>\nno"
    assert reason_of(row(arena("Q?", forged, "two"), "[[A>B]]")) == DropReason.AMBIGUOUS


def test_responses_of_two_layouts_mixed_are_no_pair(bracketed):
    prompt = bracketed("Q?", "one", "two", ("Response 1", "Response B"))
    assert reason_of(row(prompt, "The better response: [1]")) == DropReason.AMBIGUOUS


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"conversations": None},
        {"conversations": ["text"]},
        {"conversations": [{"from": "human"}, {"from": "gpt"}]},
        {"conversations": [{"from": "human", "value": "one turn"}]},
    ],
)
def test_a_row_of_another_shape_is_malformed(fields):
    assert reason_of(fields) == DropReason.MALFORMED


def test_an_unknown_layout_is_told_with_its_beginning():
    with pytest.raises(NotAPair, match="Compare these two drawings") as refused:
        parse(row("Compare these two drawings.", "The better response: [1]"))
    assert refused.value.reason == DropReason.NO_PAIR


def test_a_hostile_prompt_is_read_in_time(within):
    with within(5):
        for prompt in ("Question: [" * 50_000, "\nQuestion: [" * 50_000, "]\n" * 200_000):
            with pytest.raises(NotAPair):
                parse(row(prompt, "The better response: [" * 50_000))


@settings(deadline=None)
@given(
    st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)] * 3),
    st.sampled_from(NAMES),
)
def test_what_was_put_into_a_layout_comes_out_of_it_or_is_refused(texts, names):
    question, first, second = texts
    prompt = f"Question: [{question}]\n{names[0]}: [{first}]\n{names[1]}: [{second}]\nASSISTANT:\n"
    try:
        pair = parse(row(prompt, "The better response: [1]"))
    except NotAPair:
        assert any(word in "".join(texts) for word in ("Question", "esponse"))
    else:
        assert (pair.question, *pair.responses) == texts


# --- sets that name the better response


def test_rlaif_v_is_read_over_its_shards(published):
    records, drops = outcomes("rlaif-v", published["rlaif-v"])
    assert drops == []
    assert [one.meta["idx"] for one in records] == list(range(8))
    assert records[3].question == "What is shown in part 3?"
    assert records[3].responses[0] == "A barn with 3 windows."
    assert {one.label for one in records} == {1}
    assert {one.source for one in records} == {"openbmb/RLAIF-V-Dataset"}


def test_embedded_images_come_inline_with_the_same_bytes(published, make_image):
    records, _ = outcomes("rlhf-v", published["rlhf-v"])
    (image,) = records[1].images
    assert base64.b64decode(image.data) == make_image(201, form="PNG")
    assert records[1].question == "Who is person 1?"
    assert records[1].responses == ("Person 1 cannot be named.", "It is Jane, the 1th.")


def test_mmif_is_an_array_with_paths(published):
    records, drops = outcomes("mmif", published["mmif"])
    assert drops == []
    assert [one.images[0].path for one in records] == [f"images/{n}.jpg" for n in range(3)]
    assert records[2].question == "Write 2 lines."
    assert records[2].responses == ("line\nline\nend", "No lines, 2 times over.")


def test_a_file_can_be_given_instead_of_its_folder(published):
    folder, _ = outcomes("mmif", published["mmif"])
    file, _ = outcomes("mmif", published["mmif"] / "mmif_dpo.json")
    assert file == folder


def test_paths_are_seen_from_the_folder_that_was_read(published):
    folder, _ = outcomes("mmif", published["mmif"].parent / "mmif")
    above = [
        one
        for one in read_source("mmif", published["mmif"].parent)
        if isinstance(one, PreferenceRecord) and one.images[0].path
    ]
    assert [one.images[0].path for one in above] == [f"mmif/images/{n}.jpg" for n in range(3)]
    assert [one.id for one in above] == [one.id for one in folder]


def test_ids_stay_when_files_are_sharded_anew(published, tmp_path):
    before, _ = outcomes("rlaif-v", published["rlaif-v"])
    tables = [pq.read_table(file) for file in sorted(published["rlaif-v"].glob("*.parquet"))]
    (tmp_path / "again").mkdir()
    pq.write_table(pa.concat_tables(reversed(tables)), tmp_path / "again" / "all.parquet")
    after, _ = outcomes("rlaif-v", tmp_path / "again")
    assert {one.id: one.question for one in after} == {one.id: one.question for one in before}
    assert len({one.id for one in before}) == len(before)


def test_the_same_row_twice_is_one_record(tmp_path):
    fields = {"question": "Q?", "chosen": "yes", "rejected": "no", "image": "a.jpg"}
    other = fields | {"image": "b.jpg"}
    file = write_jsonl(tmp_path / "rows.jsonl", [fields, other, fields])
    records, drops = outcomes("rlaif-v", file)
    assert len(records) == 2
    assert [(one.id, one.reason) for one in drops] == [("rows.jsonl:3", "repeated_id")]
    assert drops[0].duplicate_of == records[0].id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "<image> \n"}, "empty_question"),
        ({"chosen": " "}, "empty_response"),
        ({"rejected": None}, "malformed"),
        ({"question": 5}, "malformed"),
        ({"image": 5}, "malformed"),
        ({"image": {"bytes": "text"}}, "malformed"),
        ({"image": {"bytes": None, "path": None}}, "malformed"),
    ],
)
def test_a_bad_row_is_told_and_loses_no_other(tmp_path, change, reason):
    good = {"question": "Q?", "chosen": "yes", "rejected": "no", "image": "a.jpg"}
    file = write_jsonl(tmp_path / "rows.jsonl", [good | change, good])
    records, drops = outcomes("rlaif-v", file)
    assert len(records) == 1
    assert [(one.id, one.reason) for one in drops] == [("rows.jsonl:1", reason)]


def test_a_longer_conversation_is_not_taken_for_a_question(tmp_path):
    turn = {"from": "human", "value": "Q?"}
    answer = {"from": "gpt", "value": "A."}
    fields = {"conversations": [turn, answer, turn], "chosen": answer, "rejected": answer}
    _, drops = outcomes("mmif", write_jsonl(tmp_path / "rows.jsonl", [fields]))
    assert drops[0].reason == DropReason.MALFORMED
    assert "3 turns" in drops[0].detail


def test_the_wrong_format_gives_no_record_and_a_reason_for_each_row(published):
    records, drops = outcomes("rlhf-v", published["rlaif-v"])
    assert records == []
    assert Counter(one.reason for one in drops) == {DropReason.MALFORMED: 8}


def test_absolute_paths_and_urls_are_left_as_they_are_to_be_refused_later(tmp_path):
    (tmp_path / "deep").mkdir()
    paths = ["/etc/passwd", "http://127.0.0.1/x.jpg", "../../x.jpg"]
    rows = [{"question": "Q?", "chosen": "yes", "rejected": "no", "image": path} for path in paths]
    write_jsonl(tmp_path / "deep" / "rows.jsonl", rows)
    records, _ = outcomes("rlaif-v", tmp_path)
    assert [one.images[0].path for one in records] == [*paths[:2], "deep/../../x.jpg"]


# --- our own files


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_our_own_files_come_back_as_they_were(tmp_path, record, suffix):
    given_records = [record(number, meta={"k": [1, None]}, label=2) for number in range(3)]
    write_records(tmp_path / f"own{suffix}", given_records, PreferenceRecord)
    records, drops = outcomes("records", tmp_path)
    assert records == given_records
    assert drops == []


def test_cards_and_drop_lists_beside_our_files_are_not_read(tmp_path, record):
    write_records(tmp_path / "own.jsonl", [record()], PreferenceRecord)
    (tmp_path / "own.card.json").write_text("{}")
    (tmp_path / "own.drops.jsonl").write_text("{}")
    assert source_files(tmp_path) == [tmp_path / "own.jsonl"]


# --- what there is to read


def test_a_missing_folder_and_an_empty_one_are_said(tmp_path):
    with pytest.raises(RecordsInvalid, match="no such file or folder"):
        list(read_source("rlaif-v", tmp_path / "absent"))
    with pytest.raises(RecordsInvalid, match=r"holds no \.parquet"):
        list(read_source("rlaif-v", tmp_path))


def test_an_unknown_format_is_answered_with_the_known_ones():
    with pytest.raises(RecordsInvalid, match="llava-critic, rlaif-v, rlhf-v, mmif, records"):
        list(read_source("vlfeedback", Path("x")))


def test_a_broken_file_loses_no_other(published):
    (published["rlaif-v"] / "A-broken.parquet").write_bytes(b"PAR1 not really")
    records, drops = outcomes("rlaif-v", published["rlaif-v"])
    assert len(records) == 8
    assert [(one.id, one.reason) for one in drops] == [("A-broken.parquet:0", "unreadable")]


def test_each_published_set_has_a_licence():
    assert all(one.licence for one in FORMATS.values())
    assert licence_of("openbmb/RLAIF-V-Dataset") == "CC-BY-NC-4.0"
    assert licence_of("somebody/else") == "unknown"
