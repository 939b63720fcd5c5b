from __future__ import annotations

import json
import random
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.training.data.card import read_card
from models.training.data.files import RecordsInvalid, read_records, write_records
from models.training.data.filters import DifficultyOptions
from models.training.data.records import ImageRef, JudgedRecord
from models.training.data.split import SPLITS, Budget, SplitOptions, split, split_file

PAPER = Budget()
TENTH = Budget(proxy_sft=50, proxy_rl=100, grm_sft=100, grm_rl=350)


def sizes(found):
    return {name: len(found.sets[name]) for name in SPLITS}


def ids(records):
    return {one.id for one in records}


def shown(records):
    return {ref.path or ref.data for one in records for ref in one.images}


@pytest.fixture
def many(judged):
    """So many correct and hard records, on so many pictures (None: none at all)."""

    def make(correct, hard, pictures=None):
        def images(number):
            return () if pictures is None else (ImageRef(path=f"{number % pictures}.jpg"),)

        return [
            judged(number, right=number < correct, images=images(number))
            for number in range(correct + hard)
        ]

    return make


def test_the_budget_is_that_of_the_paper():
    assert PAPER.model_dump() == {
        "proxy_sft": 5_000, "proxy_rl": 10_000, "grm_sft": 10_000, "grm_rl": 35_000,
    }  # fmt: skip


def test_enough_records_fill_the_budget_and_the_rest_is_left_over(many):
    found = split(many(300, 400), TENTH, seed=0)
    assert sizes(found) == TENTH.model_dump()
    assert (found.left_over, found.notes) == (100, [])


def test_correct_ones_teach_and_hard_ones_are_left_for_the_grm(many):
    found = split(many(300, 400), TENTH, seed=0)
    for name in SPLITS:
        assert all(one.teacher_is_right is (name != "grm_rl") for one in found.sets[name])


def test_too_few_are_divided_in_proportion_and_that_is_said(many):
    found = split(many(25, 30), TENTH, seed=0)
    assert sizes(found) == {"proxy_sft": 5, "proxy_rl": 10, "grm_sft": 10, "grm_rl": 30}
    assert found.notes == [
        "25 correct pairs for a budget of 250: scaled down to proxy_sft 5, proxy_rl 10, grm_sft 10",
        "30 hard pairs for a budget of 350: all are taken",
    ]


def test_nothing_gives_empty_sets():
    found = split([], TENTH, seed=0)
    assert set(sizes(found).values()) == {0}
    assert len(found.notes) == 2


@pytest.mark.parametrize("correct", range(1, 7))
def test_no_set_gets_more_than_its_budget_by_rounding(many, correct):
    budget = Budget(proxy_sft=2, proxy_rl=2, grm_sft=2, grm_rl=0)
    found = split(many(correct, 0), budget, seed=0)
    assert sum(sizes(found).values()) == correct
    assert max(sizes(found).values()) <= 2


def test_a_set_can_be_left_out(many):
    found = split(many(40, 5), Budget(proxy_sft=10, proxy_rl=0, grm_sft=0, grm_rl=0), seed=0)
    assert sizes(found) == {"proxy_sft": 10, "proxy_rl": 0, "grm_sft": 0, "grm_rl": 0}


def test_the_seed_decides_and_the_order_of_the_records_does_not(many):
    records = many(60, 40, pictures=30)
    shuffled = random.Random(1).sample(records, len(records))
    assert split(records, TENTH, seed=3) == split(shuffled, TENTH, seed=3)
    assert split(records, TENTH, seed=3).sets != split(records, TENTH, seed=4).sets


def test_an_id_counts_once(many):
    records = many(30, 10)
    found = split([*records, *records], TENTH, seed=0)
    assert sum(sizes(found).values()) == 40
    assert "40 records with an id that was there already left out" in found.notes


def test_proxy_and_grm_see_different_pictures(judged):
    records = [
        judged(number, right=number % 4 != 0, images=(ImageRef(path=f"{number // 4}.jpg"),))
        if number >= 400
        else judged(number, images=(ImageRef(path=f"{number // 4}.jpg"),))
        for number in range(800)
    ]
    found = split(records, TENTH, seed=0)
    proxy = shown(found.sets["proxy_sft"] + found.sets["proxy_rl"])
    grm = shown(found.sets["grm_sft"] + found.sets["grm_rl"])
    assert proxy.isdisjoint(grm)
    assert found.shared_images == 0
    assert sizes(found)["proxy_sft"] == 50
    assert sizes(found)["grm_sft"] == 100


def test_a_group_at_the_border_is_not_torn(many):
    records = many(250, 0, pictures=83)  # three or four pairs a picture
    for seed in range(10):
        found = split(records, TENTH, seed)
        assert found.shared_images == 0
        assert sum(sizes(found).values()) + found.left_over == 250
        assert found.left_over <= 3


def test_one_picture_for_all_is_shared_and_that_is_said(many):
    found = split(many(250, 50, pictures=1), TENTH, seed=0)
    assert sizes(found) == {"proxy_sft": 50, "proxy_rl": 100, "grm_sft": 100, "grm_rl": 50}
    assert "1 images are in sets of the proxy and of the GRM" in found.notes


def test_pictures_inline_are_told_apart_by_content(judged):
    first, second = ImageRef(data="AAAA"), ImageRef(data="BBBB")
    records = [judged(number, images=(first if number < 20 else second,)) for number in range(40)]
    budget = Budget(proxy_sft=10, proxy_rl=10, grm_sft=20, grm_rl=0)
    found = split(records, budget, seed=0)
    assert found.shared_images == 0
    assert sizes(found)["grm_sft"] == 20


def test_records_that_share_a_picture_through_others_belong_together(judged):
    chain = [
        judged(number, images=(ImageRef(path=f"{number}.jpg"), ImageRef(path=f"{number + 1}.jpg")))
        for number in range(10)
    ]
    alone = [judged(number, images=(ImageRef(path=f"{number}.png"),)) for number in range(10, 20)]
    budget = Budget(proxy_sft=5, proxy_rl=5, grm_sft=10, grm_rl=0)
    for seed in range(5):
        found = split(chain + alone, budget, seed)
        proxy = ids(found.sets["proxy_sft"] + found.sets["proxy_rl"])
        if found.shared_images == 0:
            assert ids(chain) <= proxy or ids(chain).isdisjoint(proxy)
        else:
            assert found.notes


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 5), max_size=2)), max_size=40),
    st.lists(st.integers(0, 15), min_size=4, max_size=4),
    st.integers(0, 3),
)
def test_no_record_is_in_two_sets_and_none_is_lost(judged, drawn, budget, seed):
    records = [
        judged(number, right=right, images=tuple(ImageRef(path=f"{one}") for one in sorted(seen)))
        for number, (right, seen) in enumerate(drawn)
    ]
    limits = Budget(**dict(zip(SPLITS, budget, strict=True)))
    found = split(records, limits, seed)
    for one, two in combinations(SPLITS, 2):
        assert ids(found.sets[one]).isdisjoint(ids(found.sets[two]))
    assert sum(sizes(found).values()) + found.left_over == len(records)
    assert all(sizes(found)[name] <= getattr(limits, name) for name in SPLITS)
    proxy = shown(found.sets["proxy_sft"] + found.sets["proxy_rl"])
    grm = shown(found.sets["grm_sft"] + found.sets["grm_rl"])
    assert found.shared_images == len(proxy & grm)


# --- files


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_judged_file_is_divided_beside_itself_with_cards(tmp_path, many, suffix):
    judged_file = tmp_path / f"judged{suffix}"
    write_records(judged_file, many(30, 10), JudgedRecord)
    options = SplitOptions(judged=judged_file, budget=TENTH, seed=5)
    found = split_file(options, command="python -m models.training data")
    for name in SPLITS:
        file = tmp_path / f"{name}{suffix}"
        assert list(read_records(file, JudgedRecord)) == found.sets[name]
        card = read_card(file)
        assert card.statistics.records == len(found.sets[name])
        assert card.notes == found.notes
        assert card.sources[0].rows == 40
        assert card.command == "python -m models.training data"
        assert card.options["seed"] == 5
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    split_file(options, command="python -m models.training data")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_bad_lines_and_easy_pairs_are_left_out_and_told(tmp_path, judged):
    file = tmp_path / "judged.jsonl"
    easy = judged(0, meta={"teacher_verdicts": [1, 1]})
    lines = [easy.model_dump_json(), "{", judged(1).model_dump_json(), json.dumps({"id": "x"})]
    file.write_text("\n".join(lines))
    difficulty = DifficultyOptions(drop_all_right=True)
    found = split_file(SplitOptions(judged=file, difficulty=difficulty))
    assert sum(sizes(found).values()) == 1
    assert found.notes[-1].startswith(f"2 bad lines left out, the first: {file}:2: not JSON")
    card = read_card(tmp_path / "grm_sft.jsonl")
    assert card.filtered == {"too_easy": 1}
    assert card.sources[0].dropped == {"unreadable": 2}


@pytest.mark.parametrize("content", ["", "{}\n", "no json\n"])
def test_a_file_without_judged_records_leaves_the_sets_as_they_are(tmp_path, many, content):
    judged = tmp_path / "judged.jsonl"
    write_records(judged, many(20, 20), JudgedRecord)
    split_file(SplitOptions(judged=judged))
    before = {name: (tmp_path / f"{name}.jsonl").read_bytes() for name in SPLITS}
    judged.write_text(content)
    with pytest.raises(RecordsInvalid, match="no judged record is left"):
        split_file(SplitOptions(judged=judged))
    assert {name: (tmp_path / f"{name}.jsonl").read_bytes() for name in SPLITS} == before


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecordsInvalid, match="run distil first"):
        split_file(SplitOptions(judged=tmp_path / "absent.jsonl"))
