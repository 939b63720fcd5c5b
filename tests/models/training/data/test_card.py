from __future__ import annotations

import hashlib

import pytest

from models.training.data.card import (
    Card,
    FileEntry,
    Observer,
    SourceEntry,
    as_markdown,
    card_files,
    read_card,
    write_card,
)
from models.training.data.records import ImageRef


def observed(records):
    observer = Observer()
    assert list(observer.watch(records)) == records
    return observer.statistics()


@pytest.fixture
def card(record):
    return Card(
        title="Preference pairs: x.jsonl",
        fingerprint="f",
        command="python -m models.training data recipe.toml",
        options={"seed": 3},
        sources=[
            SourceEntry(
                name="rlaif-v", data_set="openbmb/RLAIF-V-Dataset", licence="CC-BY-NC-4.0",
                rows=10, records=8, dropped={"tie": 2}, kept=5,
                files=[FileEntry(name="a|b.parquet", size_bytes=3, sha256="00ff")],
            )
        ],
        filtered={"refusal": 3},
        statistics=observed([record()]),
        files=[FileEntry(name="x.jsonl", size_bytes=9, sha256="abcd")],
        notes=["Half of it is missing."],
    )  # fmt: skip


def test_labels_lengths_and_the_longer_response_are_counted(record):
    responses = [("x" * 10, "y" * 4), ("x" * 4, "y" * 10), ("x" * 6, "y" * 6), ("x" * 2, "y" * 4)]
    records = [
        record(number, responses=one, label=label)
        for number, (one, label) in enumerate(zip(responses, (1, 1, 2, 2), strict=True))
    ]
    found = observed(records)
    assert found.records == 4
    assert found.label_1_share == 0.5
    assert found.longer_is_better_share == (1 + 0 + 0.5 + 1) / 4
    assert (found.better.mean, found.better.median) == (6.0, 5.0)
    assert (found.worse.p5, found.worse.p95) == (2, 10)


def test_the_order_of_the_responses_changes_only_the_label_balance(record):
    records = [record(number, label=number % 2 + 1) for number in range(5)]
    swapped = observed([one.swap() for one in records])
    assert swapped.label_1_share == pytest.approx(1 - observed(records).label_1_share)
    assert swapped.model_copy(update={"label_1_share": None}) == observed(records).model_copy(
        update={"label_1_share": None}
    )


def test_images_and_sources_are_counted(record):
    path, inline = ImageRef(path="a.jpg"), ImageRef(data="AAAA")
    found = observed([
        record(1, images=(path, inline)), record(2, images=(path,)), record(3, source="b"),
    ])  # fmt: skip
    assert (found.images, found.inline_images) == (1, 1)
    assert found.by_source == {"b": 1, "toy": 2}


def test_no_records_have_no_shares():
    found = observed([])
    assert (found.records, found.label_1_share, found.better) == (0, None, None)


def test_a_card_comes_back_as_it_was_written(tmp_path, card):
    write_card(tmp_path / "x.jsonl", card)
    assert read_card(tmp_path / "x.jsonl") == card
    markdown, machine = card_files(tmp_path / "x.jsonl")
    assert (markdown.name, machine.name) == ("x.card.md", "x.card.json")
    assert markdown.read_text() == as_markdown(card)


def test_a_card_that_is_absent_or_damaged_is_none(tmp_path):
    assert read_card(tmp_path / "x.jsonl") is None
    (tmp_path / "x.card.json").write_text('{"title": ')
    assert read_card(tmp_path / "x.jsonl") is None


def test_a_person_reads_sources_reasons_contents_and_how_it_was_made(card):
    text = as_markdown(card)
    for line in (
        "# Preference pairs: x.jsonl",
        "> Half of it is missing.",
        "| openbmb/RLAIF-V-Dataset | CC-BY-NC-4.0 | 10 | 8 | 5 |",
        "Not a record in openbmb/RLAIF-V-Dataset: tie 2.",
        "| refusal | 3 |",
        "| first response is the better one | 100.0% |",
        "| accuracy of choosing the longer one | 100.0% |",
        "| a\\|b.parquet | 3 | `00ff` |",
        "| x.jsonl | 9 | `abcd` |",
        "python -m models.training data recipe.toml",
    ):
        assert line in text.splitlines()
    assert '"seed": 3' in text


def test_a_file_is_known_by_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    entry = FileEntry.of(tmp_path / "x")
    assert (entry.name, entry.size_bytes) == ("x", 3)
    assert entry.sha256 == hashlib.sha256(b"abc").hexdigest()
