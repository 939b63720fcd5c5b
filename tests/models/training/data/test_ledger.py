from __future__ import annotations

import json
import subprocess
import sys

import pytest

from models.training.data.ledger import (
    DistilInvalid,
    Entry,
    Failure,
    Ledger,
    Spent,
    shown_digest,
)
from models.training.data.records import ImageRef, PreferenceRecord, TeacherJudgement

SETTINGS = {"model": "t", "samples": 1}
JUDGEMENT = TeacherJudgement(rubric="1. A\u2028B (100%)", evaluation="é\n", verdict=1, model="t")


def record(name="a", **changes):
    fields = {"id": name, "source": "set", "question": "Why?", "responses": ("x", "y"), "label": 1}
    return PreferenceRecord.model_validate(fields | changes)


def judged(of, verdict=1):
    return Entry(
        source=of.source,
        id=of.id,
        digest=shown_digest(of),
        judgement=JUDGEMENT.model_copy(update={"verdict": verdict}),
        verdicts=(verdict,),
        spent=Spent(requests=1, prompt_tokens=10, completion_tokens=3),
    )


def failed(of, kind="unreadable"):
    failure = Failure(kind=kind, detail="x")
    return judged(of).model_copy(update={"judgement": None, "verdicts": (), "failure": failure})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "out.jsonl.ledger"


def test_entries_come_back_now_and_from_the_file(path):
    a, b, c = record("a"), record("b"), record("c")
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(judged(a, 2))
        ledger.append(failed(b))
        before = [ledger.find(each) for each in (a, b, c)]
    with Ledger(path, SETTINGS) as ledger:
        assert [ledger.find(each) for each in (a, b, c)] == before
        assert before == [judged(a, 2), failed(b), None]
        assert [ledger.is_judged(each) for each in (a, b, c)] == [True, False, False]
        assert [ledger.failure(each) for each in (a, b, c)] == [None, "unreadable", None]
        assert ledger.spent == Spent(requests=2, prompt_tokens=20, completion_tokens=6)


def test_the_last_entry_about_a_record_counts_and_what_all_have_cost_adds_up(path):
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(failed(record(), "timeout"))
        ledger.append(judged(record()))
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.find(record()) == judged(record())
        assert ledger.spent.requests == 2


def test_a_record_that_was_changed_is_not_the_one_that_was_judged(path):
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(judged(record()))
        assert ledger.find(record(label=2, meta={"a": 1})) == judged(record()), "never shown"
        for changed in (
            record().swap(),
            record(question="Why not?"),
            record(images=[{"path": "a.png"}]),
            record(source="other set"),
        ):
            assert ledger.find(changed) is None
            assert not ledger.is_judged(changed)


def test_a_file_cut_off_anywhere_keeps_its_complete_lines_and_goes_on(path):
    first, second = record("a"), record("b")
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(judged(first))
        ledger.append(judged(second))
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Ledger(path, SETTINGS) as ledger:
            assert ledger.damaged_lines == 0
            found = [ledger.is_judged(each) for each in (first, second)]
            assert found == [cut >= ends[1], cut >= ends[2]]
            for each in (first, second):
                if not ledger.is_judged(each):
                    ledger.append(judged(each))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"\n", b"{}\n", b"\x00" * 50 + b"\n", b"\xff\n", b"[" * 999])
def test_a_damaged_line_costs_only_itself(damage, path):
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(judged(record("a")))
    with path.open("ab") as file:
        file.write(damage.rstrip(b"\n") + b"\n")
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.damaged_lines == 1
        ledger.append(judged(record("b")))
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.is_judged(record("a"))
        assert ledger.find(record("b")) == judged(record("b"))


@pytest.mark.parametrize(
    "content", [b"x", b"x\n", b"\n", b'{"id": 1}\n', b"[]\n", b"\x00" * 9, b'{"ledger": 1}\n']
)
def test_another_file_is_refused_and_left_alone(content, path):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DistilInvalid, match="not the ledger of a distillation"):
        Ledger(path, SETTINGS)
    assert path.read_bytes() == content


def test_a_file_without_an_end_is_refused_too(path):
    path.parent.mkdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(DistilInvalid, match="not the ledger of a distillation"):
        Ledger(path, SETTINGS)


def test_other_settings_are_refused_by_name_and_nothing_is_lost(path):
    with Ledger(path, SETTINGS) as ledger:
        ledger.append(judged(record()))
    with path.open("ab") as file:
        file.write(b'{"torn')
    before = path.read_bytes()
    with pytest.raises(DistilInvalid, match=r"samples was 1 and is 4; top_p was None and is 0\.9"):
        Ledger(path, {"model": "t", "samples": 4, "top_p": 0.9})
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["rejected", "timeout", "unavailable", "bad_image"])
def test_settings_may_be_put_right_while_nothing_is_answered(kind, path):
    with Ledger(path, {"model": "misspelt"}) as ledger:
        ledger.append(failed(record(), kind))
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.find(record()) is None
    assert json.loads(path.read_bytes())["settings"] == SETTINGS


@pytest.mark.parametrize("kind", ["unreadable", "truncated", "refused"])
def test_a_failure_that_is_an_answer_holds_to_its_settings(kind, path):
    with Ledger(path, {"model": "other"}) as ledger:
        ledger.append(failed(record(), kind))
    with pytest.raises(DistilInvalid, match="model was 'other' and is 't'"):
        Ledger(path, SETTINGS)


def test_two_processes_do_not_write_one_ledger(path):
    opens = "import sys; from models.training.data.ledger import *; from pathlib import Path\n"
    opens += "try: Ledger(Path(sys.argv[1]), {'model': 't', 'samples': 1})\n"
    opens += "except DistilInvalid as error: print(error)"
    with Ledger(path, SETTINGS):
        other = subprocess.run(
            [sys.executable, "-c", opens, str(path)], capture_output=True, text=True, check=True
        )
    assert "another process is writing" in other.stdout
    with Ledger(path, SETTINGS):
        pass


def test_an_entry_is_a_judgement_or_a_failure(path):
    fields = judged(record()).model_dump()
    for changes in ({"judgement": None}, {"failure": {"kind": "timeout", "detail": ""}}):
        with pytest.raises(ValueError, match="either a judgement or a failure"):
            Entry.model_validate(fields | changes)


def test_what_a_server_says_is_kept_short_and_writable():
    failure = Failure(kind="rejected", detail="\ud800" + "x" * 100_000)
    assert failure.detail == "?" + "x" * 299


def test_the_images_of_a_record_are_told_apart_by_their_references():
    by_path, by_content = ImageRef(path="a.png"), ImageRef(data="a.png")
    assert shown_digest(record(images=[by_path])) != shown_digest(record(images=[by_content]))
