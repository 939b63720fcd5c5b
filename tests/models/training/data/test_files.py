from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.data.files import (
    RecordsInvalid,
    read_records,
    replacing,
    sha256_of,
    write_records,
)
from models.training.data.records import (
    ImageRef,
    JudgedRecord,
    PreferenceRecord,
    TeacherJudgement,
)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
META = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | TEXTS,
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)  # fmt: skip
IMAGES = st.builds(ImageRef, path=TEXTS) | st.builds(ImageRef, data=TEXTS)
RECORDS = st.builds(
    PreferenceRecord,
    id=TEXTS, source=TEXTS, question=TEXTS, images=st.lists(IMAGES, max_size=3).map(tuple),
    responses=st.tuples(TEXTS, TEXTS), label=st.sampled_from([1, 2]), meta=META,
)  # fmt: skip
TEACHERS = st.builds(
    TeacherJudgement,
    rubric=TEXTS, justification=st.none() | TEXTS, evaluation=st.just("") | TEXTS,
    verdict=st.sampled_from([1, 2]), model=TEXTS,
    prompt_tokens=st.integers(0, 2**40), completion_tokens=st.integers(0, 2**40),
)  # fmt: skip
SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@SUFFIXES
@settings(deadline=None)
@given(records=st.lists(RECORDS, max_size=5))
def test_records_come_back_as_they_were_written(tmp_path_factory, suffix, records):
    file = tmp_path_factory.mktemp("files") / f"x{suffix}"
    assert write_records(file, records, PreferenceRecord) == len(records)
    assert list(read_records(file, PreferenceRecord)) == records


@SUFFIXES
@settings(deadline=None)
@given(plain=RECORDS, teacher=TEACHERS)
def test_judged_records_keep_their_judgement(tmp_path_factory, suffix, plain, teacher):
    file = tmp_path_factory.mktemp("files") / f"x{suffix}"
    record = JudgedRecord(**dict(plain), teacher=teacher)
    write_records(file, [record], JudgedRecord)
    assert list(read_records(file, JudgedRecord)) == [record]


@settings(deadline=None)
@given(RECORDS, st.integers())
def test_the_label_moves_with_its_response(record, seed):
    assert record.swap().swap() == record
    shuffled = record.shuffle_order(seed)
    assert shuffled in (record, record.swap())
    assert shuffled == record.shuffle_order(seed)
    assert shuffled.responses[shuffled.label - 1] == record.responses[record.label - 1]


def test_the_order_comes_out_even(record):
    first = sum(record(number).shuffle_order(7).label == 1 for number in range(2000))
    assert first == pytest.approx(1000, abs=100)


@SUFFIXES
def test_the_same_records_give_the_same_bytes(tmp_path, record, suffix):
    records = [record(number) for number in range(2500)]
    for name in ("a", "b"):
        write_records(tmp_path / f"{name}{suffix}", iter(records), PreferenceRecord)
    assert sha256_of(tmp_path / f"a{suffix}") == sha256_of(tmp_path / f"b{suffix}")
    assert list(read_records(tmp_path / f"a{suffix}", PreferenceRecord)) == records


def test_parquet_has_a_column_for_every_field(tmp_path, judged):
    file = tmp_path / "x.parquet"
    write_records(file, [judged()], JudgedRecord)
    schema = pq.read_schema(file)
    assert set(schema.names) == set(JudgedRecord.model_fields)
    assert {field.name for field in schema.field("teacher").type} == set(
        TeacherJudgement.model_fields
    )
    assert {field.name for field in schema.field("images").type.value_type} == set(
        ImageRef.model_fields
    )


def test_a_bad_line_is_told_and_loses_no_other(tmp_path, record):
    file = tmp_path / "x.jsonl"
    good = record().model_dump(mode="json")
    lines = [
        json.dumps(good),
        "{",
        json.dumps(good | {"label": 3}),
        json.dumps(good | {"extra": 1}),
        json.dumps(good | {"responses": ["one"]}),
        json.dumps(good | {"images": [{"path": "a", "data": "b"}]}),
        json.dumps(good | {"id": "last"}),
    ]
    file.write_text("\n".join(lines))
    problems = []
    found = list(read_records(file, PreferenceRecord, problems.append))
    assert [one.id for one in found] == ["r0", "last"]
    assert [one.number for one in problems] == [2, 3, 4, 5, 6]
    assert "label: Input should be 1 or 2" in problems[1].reason
    assert problems[4].reason == "images.0: Value error, an image has either a path or data"


def test_without_a_listener_the_first_bad_line_ends_the_reading(tmp_path, record):
    file = tmp_path / "x.jsonl"
    file.write_text(record().model_dump_json() + '\n{"id": 5}\n')
    records = read_records(file, PreferenceRecord)
    assert next(records) == record()
    with pytest.raises(RecordsInvalid, match=r"x\.jsonl:2: id: Input should be a valid string"):
        next(records)


def test_a_judged_file_is_not_taken_for_a_plain_one(tmp_path, judged):
    write_records(tmp_path / "x.jsonl", [judged()], JudgedRecord)
    with pytest.raises(RecordsInvalid, match="teacher: Extra inputs"):
        list(read_records(tmp_path / "x.jsonl", PreferenceRecord))


def test_another_ending_is_refused(tmp_path, record):
    with pytest.raises(RecordsInvalid, match=r"ends in \.jsonl or \.parquet"):
        write_records(tmp_path / "x.csv", [record()], PreferenceRecord)
    with pytest.raises(RecordsInvalid, match=r"ends in \.jsonl or \.parquet"):
        list(read_records(tmp_path / "x.csv", PreferenceRecord))


@SUFFIXES
def test_a_failed_writing_leaves_the_older_file(tmp_path, record, suffix):
    def failing():
        yield record(1)
        raise RuntimeError("the source is gone")

    file = tmp_path / f"x{suffix}"
    write_records(file, [record()], PreferenceRecord)
    with pytest.raises(RuntimeError, match="the source is gone"):
        write_records(file, failing(), PreferenceRecord)
    assert list(read_records(file, PreferenceRecord)) == [record()]
    assert os.listdir(tmp_path) == [file.name]


def test_a_killed_writing_leaves_the_older_file_and_the_next_one_succeeds(tmp_path, record):
    file = tmp_path / "x.jsonl"
    write_records(file, [record()], PreferenceRecord)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from models.training.data.files import write_records\n"
        "from models.training.data.records import PreferenceRecord\n"
        f"record = PreferenceRecord.model_validate_json({record(1).model_dump_json()!r})\n"
        "def endless():\n"
        "    yield record\n"
        "    print('half', flush=True); time.sleep(600)\n"
        f"write_records(Path({str(file)!r}), endless(), PreferenceRecord)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    assert list(read_records(file, PreferenceRecord)) == [record()]
    write_records(file, [record(2)], PreferenceRecord)
    assert list(read_records(file, PreferenceRecord)) == [record(2)]
    assert os.listdir(tmp_path) == ["x.jsonl"]


def test_folders_are_made_on_the_way(tmp_path):
    with replacing(tmp_path / "a" / "b" / "c.txt") as partial:
        partial.write_text("done")
        assert not (tmp_path / "a" / "b" / "c.txt").exists()
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "done"
