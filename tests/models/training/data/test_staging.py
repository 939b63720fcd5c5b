from __future__ import annotations

import itertools

import pytest

from models.training.data.filters import QualityOptions
from models.training.data.staging import CheckOptions, SourceOptions, Stage


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "stage", tmp_path / "out")


@pytest.fixture
def rlaif_v(published):
    return SourceOptions(format="rlaif-v", path=published["rlaif-v"])


def test_a_source_is_staged_when_it_was_read_to_its_end(stage, rlaif_v):
    rows = list(itertools.islice(stage.fill("k", rlaif_v, CheckOptions()), 5))
    assert len(rows) == 5
    assert not stage.holds("k")
    rows = list(stage.fill("k", rlaif_v, CheckOptions()))
    assert stage.holds("k")
    assert list(stage.rows("k")) == rows


def test_what_is_staged_needs_its_source_no_more(stage, rlaif_v):
    rows = list(stage.fill("k", rlaif_v, CheckOptions()))
    for file in rlaif_v.path.iterdir():
        file.unlink()
    assert list(stage.rows("k")) == rows
    assert len([row for row in rows if row.record]) == 8


def test_images_wait_in_the_stage_until_a_kept_record_shows_them(stage, rlaif_v, tmp_path):
    rows = list(stage.fill("k", rlaif_v, CheckOptions()))
    assert not (tmp_path / "out").exists()
    first, same_image, other = (row.record for row in rows[:3])
    assert first.images == same_image.images
    stage.release(first)
    stage.release(same_image)
    assert (tmp_path / "out" / first.images[0].path).is_file()
    assert not (tmp_path / "out" / other.images[0].path).exists()


def test_a_row_tells_whether_it_was_a_record(stage, published):
    source = SourceOptions(format="llava-critic", path=published["llava-critic"])
    strict = CheckOptions(quality=QualityOptions(fewest_characters=7))
    rows = list(stage.fill("k", source, strict))
    told = [(row.drop.reason, row.was_record) for row in rows if row.drop]
    assert told == [
        ("response_too_short", True), ("response_too_short", True), ("response_too_short", True),
        ("tie", False), ("tie", False), ("no_verdict", False), ("pointwise", False),
    ]  # fmt: skip


def test_the_seed_decides_the_order_of_the_responses(stage, rlaif_v):
    def labels(seed):
        rows = stage.fill(f"k{seed}", rlaif_v, CheckOptions(seed=seed))
        return [row.record.label for row in rows if row.record]

    assert labels(1) == labels(1)
    assert len({tuple(labels(seed)) for seed in range(10)}) > 5
