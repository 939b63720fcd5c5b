from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from pydantic import ValidationError
from rich.console import Console

from models.training.data.drops import Drop
from models.training.data.files import RecordsInvalid, read_records, write_records
from models.training.data.filters import QualityOptions
from models.training.data.images import load_image
from models.training.data.prepare import PrepareOptions, SourceOptions, drops_file, prepare
from models.training.data.records import ImageRef, PreferenceRecord

RUN = """
import sys
from models.training.data.prepare import PrepareOptions, prepare
prepare(PrepareOptions.model_validate_json(sys.argv[1]), command="data recipe.toml")
"""


def quiet():
    return Console(file=io.StringIO())


def run(options):
    return prepare(options, command="data recipe.toml", console=quiet())


def read(options):
    return list(read_records(options.output, PreferenceRecord))


def drops(options):
    lines = drops_file(options.output).read_text().splitlines()
    return [Drop.model_validate_json(line) for line in lines]


def tree(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def options(published, tmp_path):
    sources = tuple(SourceOptions(format=name, path=path) for name, path in published.items())
    return PrepareOptions(sources=sources, output=tmp_path / "out" / "pairs.jsonl", seed=1)


def test_all_published_sets_become_one_file(options):
    report = run(options)
    records = read(options)
    assert Counter(one.source for one in records) == {
        "lmms-lab/llava-critic-113k": 4, "openbmb/RLAIF-V-Dataset": 8,
        "llamafactory/RLHF-V": 3, "ChrisDing1105/MMIF-23k": 3,
    }  # fmt: skip
    assert len({one.id for one in records}) == 18
    assert [entry.name for entry in report.card.sources] == [
        "llava-critic", "rlaif-v", "rlhf-v", "mmif",
    ]  # fmt: skip
    assert report.card.statistics.records == 18
    assert not report.was_there


def test_the_label_stays_with_its_response_in_either_order(options):
    run(options)
    records = read(options)
    assert {one.label for one in records} == {1, 2}
    for one in records:
        if one.source == "openbmb/RLAIF-V-Dataset":
            assert one.responses[one.label - 1].startswith("A barn")


def test_the_output_holds_its_images_and_each_of_them_once(options, make_image):
    run(options)
    records = read(options)
    refs = [ref for one in records for ref in one.images]
    assert len(refs) == 18
    assert len({ref.path for ref in refs}) == 14  # RLAIF-V has two pairs an image
    for ref in refs:
        assert load_image(ref, options.output.parent).size == (64, 48)
    (mmif,) = [one for one in records if one.question == "Write 1 lines."]
    assert (options.output.parent / mmif.images[0].path).read_bytes() == make_image(301)


def test_what_was_left_out_is_listed_and_counted(options):
    report = run(options)
    listed = drops(options)
    assert {one.id: one.reason for one in listed} == {
        "llava-critic/pairwise/train-00000-of-00001.parquet:4": "tie",
        "llava-critic/pairwise/train-00000-of-00001.parquet:6": "tie",
        "llava-critic/pairwise/train-00000-of-00001.parquet:7": "no_verdict",
        "llava-critic/pointwise/train-00000-of-00001.parquet:1": "pointwise",
    }
    critic = report.card.sources[0]
    assert (critic.rows, critic.records, critic.kept) == (8, 4, 4)
    assert critic.dropped == {"pointwise": 1, "no_verdict": 1, "tie": 2}


def test_every_row_is_either_a_record_or_told(options):
    strict = options.model_copy(update={"quality": QualityOptions(fewest_characters=15)})
    report = run(strict)
    rows = sum(entry.rows for entry in report.card.sources)
    assert rows == len(read(strict)) + len(drops(strict))
    assert report.card.filtered == {"response_too_short": 7}


def test_licences_and_what_they_mean_are_on_the_card(options):
    card = run(options).card
    assert [entry.licence for entry in card.sources] == [
        "Apache-2.0", "CC-BY-NC-4.0", "CC-BY-NC-4.0", "unknown",
    ]  # fmt: skip
    assert card.notes == [
        "openbmb/RLAIF-V-Dataset is under CC-BY-NC-4.0: not for commercial use.",
        "llamafactory/RLHF-V is under CC-BY-NC-4.0: not for commercial use.",
        "The licence of ChrisDing1105/MMIF-23k is unknown.",
    ]
    assert card.command == "data recipe.toml"
    names = [file.name for entry in card.sources for file in entry.files]
    assert names[:2] == [
        f"{name}/train-00000-of-00001.parquet" for name in ("pairwise", "pointwise")
    ]


def test_the_same_run_again_does_nothing(options):
    first = run(options)
    before = {file: file.stat().st_mtime_ns for file in options.output.parent.rglob("*")}
    again = run(options)
    assert again.was_there
    assert again.card == first.card
    assert {file: file.stat().st_mtime_ns for file in options.output.parent.rglob("*")} == before


def test_parquet_holds_the_same_records(options):
    table = options.model_copy(update={"output": options.output.with_name("table.parquet")})
    run(options)
    run(table)
    assert read(table) == read(options)


def test_other_options_give_another_file_and_the_first_ones_the_first_again(options):
    run(options)
    before, other = read(options), options.model_copy(update={"seed": 2})
    assert not run(other).was_there
    assert read(other) != before
    assert {one.id for one in read(other)} == {one.id for one in before}
    run(options)
    assert read(options) == before


@pytest.mark.parametrize("harm", ["records", "drops", "image", "card", "source"])
def test_what_was_lost_or_changed_is_made_again(options, published, make_image, harm):
    run(options)
    before = tree(options.output.parent)
    if harm == "records":
        options.output.write_text("")
    elif harm == "drops":
        drops_file(options.output).unlink()
    elif harm == "image":
        next(options.output.parent.rglob("images/*/*.jpg")).unlink()
    elif harm == "card":
        options.output.with_suffix(".card.json").write_text("{}")
    else:
        (published["mmif"] / "more.jsonl").write_text("{}\n")
    assert not run(options).was_there
    changed = {
        name for name, digest in tree(options.output.parent).items() if before[name] != digest
    }
    cards = {"pairs.card.json", "pairs.card.md"}
    assert changed == (cards | {"pairs.drops.jsonl"} if harm == "source" else set())


def test_duplicates_are_found_across_sources(published, tmp_path, make_image):
    first = PrepareOptions(
        sources=(SourceOptions(format="rlaif-v", path=published["rlaif-v"]),),
        output=tmp_path / "first" / "pairs.jsonl",
    )
    run(first)
    own = read(first)[2].model_copy(update={"id": "copy"})
    write_records(tmp_path / "first" / "own.jsonl", [own, read(first)[3]], PreferenceRecord)
    both = PrepareOptions(
        sources=(
            *first.sources,
            SourceOptions(format="records", path=tmp_path / "first/own.jsonl"),
        ),
        output=tmp_path / "both" / "pairs.jsonl",
    )
    run(both)
    assert len(read(both)) == 8
    assert {(one.id, one.reason, one.duplicate_of) for one in drops(both)} == {
        ("copy", "near_duplicate", read(first)[2].id),
        (read(first)[3].id, "repeated_id", read(first)[3].id),
    }
    unlike = both.model_copy(update={"similarity": None, "output": tmp_path / "c" / "pairs.jsonl"})
    run(unlike)
    assert len(read(unlike)) == 9


def test_hostile_paths_in_a_source_reach_no_file(tmp_path, make_image):
    (tmp_path / "secret.jpg").write_bytes(make_image(1))
    source = tmp_path / "source"
    source.mkdir()
    paths = ["../secret.jpg", str(tmp_path / "secret.jpg"), "http://127.0.0.1:1/a.jpg", "gone.jpg"]
    rows = [
        {"question": f"Q{n}?", "chosen": "yes", "rejected": "no", "image": path}
        for n, path in enumerate(paths)
    ]
    (source / "rows.json").write_text(json.dumps(rows))
    options = PrepareOptions(
        sources=(SourceOptions(format="rlaif-v", path=source),), output=tmp_path / "out" / "x.jsonl"
    )
    card = run(options).card
    assert read(options) == []
    assert card.filtered == {"image_refused": 3, "image_missing": 1}
    assert card.notes == ["The filters left nothing of openbmb/RLAIF-V-Dataset."]
    assert not (options.output.parent / "images").exists()


def test_the_wrong_format_is_said_on_the_card(published, tmp_path):
    source = SourceOptions(format="rlhf-v", path=published["rlaif-v"])
    card = run(PrepareOptions(sources=(source,), output=tmp_path / "x" / "x.jsonl")).card
    assert card.notes == [
        "No record came from llamafactory/RLHF-V: is it really in the format 'rlhf-v'?"
    ]


def test_a_part_of_a_source_can_be_read(published, tmp_path):
    source = SourceOptions(format="rlaif-v", path=published["rlaif-v"], most_records=3, licence="x")
    options = PrepareOptions(sources=(source,), output=tmp_path / "x" / "x.jsonl")
    card = run(options).card
    assert len(read(options)) == 3
    assert card.sources[0].licence == "x"
    assert card.notes == ["Only the first 3 records of rlaif-v were read."]


def test_an_output_inside_a_source_is_refused(published):
    source = SourceOptions(format="mmif", path=published["mmif"])
    for output in (published["mmif"] / "pairs.jsonl", published["mmif"] / "deep" / "pairs.jsonl"):
        with pytest.raises(RecordsInvalid, match="choose another place"):
            run(PrepareOptions(sources=(source,), output=output))


def test_what_cannot_be_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(ValidationError, match="one of llava-critic, rlaif-v"):
        SourceOptions(format="vlfeedback", path=tmp_path)
    source = SourceOptions(format="rlaif-v", path=tmp_path / "absent")
    with pytest.raises(ValidationError, match=r"ends in \.jsonl or \.parquet"):
        PrepareOptions(sources=(source,), output=tmp_path / "x.csv")
    with pytest.raises(RecordsInvalid, match="no such file or folder"):
        run(PrepareOptions(sources=(source,), output=tmp_path / "x.jsonl"))


def test_two_runs_do_not_write_to_one_folder(options):
    options.output.parent.mkdir()
    handle = os.open(options.output.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(RecordsInvalid, match="another run is writing"):
            run(options)
    finally:
        os.close(handle)
    assert not run(options).was_there


def killed_when(options, there):
    """Starts a preparation and kills it as soon as such a file is there, or lets it end."""
    folder = options.output.parent
    arguments = [sys.executable, "-c", RUN, options.model_dump_json()]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and not any(folder.glob(there)):
            time.sleep(0.0005)
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    "there",
    [".pairs.jsonl.stage/.*.partial", ".pairs.jsonl.stage/images/*/*", ".pairs.jsonl.stage/*.jsonl",
     "images/*/*", ".pairs.drops.jsonl.partial", "pairs.jsonl", "pairs.card.md", "pairs.card.json"],
)  # fmt: skip
def test_a_killed_run_ends_with_the_same_bytes(options, tmp_path, there):
    run(options)
    unkilled = tree(options.output.parent)
    options.output.parent.rename(tmp_path / "unkilled")
    killed_when(options, there)
    run(options)
    assert tree(options.output.parent) == unkilled


def test_images_inline_of_our_own_records_become_files(tmp_path, record, make_image):
    inline = ImageRef(data=base64.b64encode(make_image(1)).decode())
    own = tmp_path / "in" / "own.parquet"
    write_records(own, [record(images=(inline,))], PreferenceRecord)
    options = PrepareOptions(
        sources=(SourceOptions(format="records", path=own),), output=tmp_path / "out" / "x.jsonl"
    )
    run(options)
    (one,) = read(options)
    digest = hashlib.sha256(make_image(1)).hexdigest()
    assert one.images == (ImageRef(path=f"images/{digest[:2]}/{digest}.jpg"),)
