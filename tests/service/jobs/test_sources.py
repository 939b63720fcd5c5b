from __future__ import annotations

import base64
import json
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidRequest, PayloadTooLarge
from service.jobs.sources import open_source, source_chunks

pytestmark = pytest.mark.anyio

ALLOWED = "jobs are not read from there"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A place that jobs may be read from, with a secret beside it."""
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (tmp_path / "pairs-evil").mkdir()
    (tmp_path / "pairs-evil" / "a.jsonl").write_text("{}\n")
    folder = tmp_path / "pairs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"n": 1}\n\n{"n": 2}')
    (folder / "deep" / "b.ndjson").write_text('{"n": 3}\n')
    return folder


def opened(url: str, place: Path) -> Any:
    return open_source(url, (f"file://{place}",))


async def lines(url: str, place: Path, **limits: int) -> list[tuple[int, Any]]:
    source = opened(url, place)
    most = {"line_bytes": 100_000, "most_lines": 10**6} | limits
    async with aclosing(source_chunks(source, **most)) as chunks:
        with source.file:
            return [
                (line.number, json.loads(line.body) if line.body else None)
                async for chunk in chunks
                for line in chunk
            ]


async def test_lines_are_read_as_an_upload_would_be(place: Path):
    assert await lines(f"file://{place}/a.jsonl", place) == [(1, {"n": 1}), (3, {"n": 2})]
    assert await lines(f"file://{place}/deep/b.ndjson", place) == [(1, {"n": 3})]


@pytest.mark.parametrize(
    "url",
    [
        "file://{place}/../secret.jsonl",
        "file://{place}/deep/../../secret.jsonl",
        "file://{place}/./a.jsonl",
        "file://{place}//a.jsonl",
        "file://{place}-evil/a.jsonl",
        "file://{place}",
        "file:///etc/passwd",
        "{place}/a.jsonl",
        "a.jsonl",
        "",
        "FILE://{place}/a.jsonl",
        "local://{place}/a.jsonl",
        "http://127.0.0.1/a.jsonl",
        "https://example.com/a.jsonl",
        "ftp://example.com/a.jsonl",
        "memory://a.jsonl",
        "reference://{place}/a.jsonl",
        "s3://bucket/a.jsonl",
        "simplecache::file://{place}/a.jsonl",
        "file://{place}/a.jsonl::file:///etc/passwd",
        "zip://a.jsonl::file://{place}/a.zip",
        "file://{place}/*.jsonl",
        "file://{place}/[a].jsonl",
        "file://{place}/a.jsonl?x",
        "file://{place}/a.jsonl#x",
        "file://{place}/a\0.jsonl",
        "file://{place}/a\n.jsonl",
        "file://{place}\\..\\secret.jsonl",
    ],
)
def test_whatever_is_not_plainly_under_the_prefix_is_refused_alike(url: str, place: Path):
    with pytest.raises(InvalidRequest, match=ALLOWED):
        opened(url.format(place=place), place)


@pytest.mark.parametrize("url", ["file://{place}/%2e%2e/secret.jsonl", "file://{place}/no.jsonl"])
def test_what_is_not_there_cannot_be_read(url: str, place: Path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        opened(url.format(place=place), place)


def test_links_out_of_the_place_and_inside_it_are_not_followed(place: Path):
    (place / "link.jsonl").symlink_to(place.parent / "secret.jsonl")
    (place / "inner.jsonl").symlink_to(place / "a.jsonl")
    (place / "folder").symlink_to(place.parent)
    for name in ("link.jsonl", "inner.jsonl", "folder/secret.jsonl", "folder/pairs/a.jsonl"):
        with pytest.raises(InvalidRequest):
            opened(f"file://{place}/{name}", place)


def test_a_pipe_and_a_folder_are_no_sources(place: Path):
    os.mkfifo(place / "pipe.jsonl")
    (place / "folder.jsonl").mkdir()
    for name in ("pipe.jsonl", "folder.jsonl"):
        with pytest.raises(InvalidRequest):
            opened(f"file://{place}/{name}", place)


def test_the_place_itself_may_be_a_link_which_is_the_operators_choice(place: Path, tmp_path: Path):
    (tmp_path / "alias").symlink_to(place)
    opened(f"file://{tmp_path}/alias/a.jsonl", tmp_path / "alias").file.close()


def test_without_a_listed_place_nothing_is_read(place: Path):
    with pytest.raises(InvalidRequest, match=ALLOWED):
        open_source(f"file://{place}/a.jsonl", ())


@pytest.mark.parametrize("name", ["a.json", "a", "a.jsonl.gz", "a.csv"])
def test_a_name_that_does_not_say_what_it_is_is_refused(name: str, place: Path):
    (place / name).write_text("{}")
    with pytest.raises(InvalidRequest, match=r"\.parquet"):
        opened(f"file://{place}/{name}", place)


def test_a_file_that_was_changed_has_another_version(place: Path):
    url = f"file://{place}/a.jsonl"
    first, again = opened(url, place), opened(url, place)
    (place / "a.jsonl").write_text("{}")
    changed = opened(url, place)
    assert first.version == again.version != changed.version
    for one in (first, again, changed):
        one.file.close()


async def test_rows_of_parquet_become_bodies(place: Path):
    rows = [
        {
            "question": "Zwei\nZeilen?",
            "responses": ["a", "b"],
            "images": [{"bytes": b"\x89PNG", "path": "x.png"}],
            "rubric": {"text": "1. R (100%): r.", "id": None},
            "depth": None,
        },
        {"question": "q", "responses": ["c", "d"], "images": None, "rubric": None, "depth": "full"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), place / "rows.parquet")
    assert await lines(f"file://{place}/rows.parquet", place) == [
        (
            1,
            {
                "question": "Zwei\nZeilen?",
                "responses": ["a", "b"],
                "images": [{"data": base64.b64encode(b"\x89PNG").decode()}],
                "rubric": {"text": "1. R (100%): r."},
            },
        ),
        (2, {"question": "q", "responses": ["c", "d"], "depth": "full"}),
    ]


@pytest.mark.parametrize(
    ("column", "image"),
    [
        ([b"raw"], {"data": base64.b64encode(b"raw").decode()}),
        (["cmF3"], {"data": "cmF3"}),
        ([{"data": "cmF3", "url": None}], {"data": "cmF3"}),
        ([{"data": None, "url": "https://a/b"}], {"url": "https://a/b"}),
    ],
    ids=["bytes", "base64", "data", "url"],
)
async def test_pictures_may_stand_in_a_column_in_several_ways(
    column: list[Any], image: dict[str, str], place: Path
):
    pq.write_table(pa.Table.from_pylist([{"images": column}]), place / "rows.parquet")
    assert await lines(f"file://{place}/rows.parquet", place) == [(1, {"images": [image]})]


async def test_many_rows_are_cut_as_many_lines_are(place: Path):
    table = pa.table({"question": [f"q{n}" for n in range(1000)]})
    pq.write_table(table, place / "rows.parquet", row_group_size=333)
    found = await lines(f"file://{place}/rows.parquet", place)
    assert [number for number, _ in found] == list(range(1, 1001))
    assert [body["question"] for _, body in found] == [f"q{n}" for n in range(1000)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string()),
        pa.array([0, 2**62], pa.timestamp("us")),
    ],
    ids=["no utf-8", "no date"],
)
async def test_values_that_cannot_be_had_make_the_source_unreadable(column: pa.Array, place: Path):
    pq.write_table(pa.table({"question": column}), place / "rows.parquet")
    with pytest.raises(InvalidRequest, match="as Parquet"):
        await lines(f"file://{place}/rows.parquet", place)


async def test_what_only_calls_itself_parquet_is_refused(place: Path):
    (place / "rows.parquet").write_bytes(b"PAR1 it is not PAR1")
    with pytest.raises(InvalidRequest, match="as Parquet"):
        await lines(f"file://{place}/rows.parquet", place)


async def test_limits_hold_for_sources_too(place: Path):
    (place / "long.jsonl").write_text('"short"\n"' + "x" * 200 + '"\n"short"\n')
    url = f"file://{place}/long.jsonl"
    assert await lines(url, place, line_bytes=100) == [(1, "short"), (2, None), (3, "short")]
    with pytest.raises(PayloadTooLarge):
        await lines(url, place, most_lines=2)
