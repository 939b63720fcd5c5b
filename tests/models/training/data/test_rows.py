from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training.data.rows import Problem, Row, read_rows

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4)


def read(file, content, **limits):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(file, **limits))


def fields(found):
    return [row.fields for row in found if isinstance(row, Row)]


def problems(found):
    return [(one.number, one.reason) for one in found if isinstance(one, Problem)]


@settings(deadline=None)
@given(st.lists(OBJECTS, max_size=5), st.sampled_from([None, 2]), st.booleans())
def test_an_array_and_lines_hold_the_same(tmp_path_factory, objects, indent, mark):
    folder = tmp_path_factory.mktemp("rows")
    array = json.dumps(objects, indent=indent, ensure_ascii=mark)
    lines = "".join(json.dumps(one, ensure_ascii=mark) + "\n" for one in objects)
    bom = "\ufeff" if mark else ""
    assert fields(read(folder / "a.json", bom + array)) == objects
    assert fields(read(folder / "a.jsonl", bom + lines)) == objects
    assert fields(read(folder / "b.json", lines)) == objects


def test_a_bad_line_is_told_by_its_number_and_loses_no_other(tmp_path):
    content = b'{"a": 1}\n\n{"a": \n[1]\n"text"\n\xff\xfe\n{"a": "\\ud800"}\n{"a": 2}'
    found = read(tmp_path / "x.jsonl", content)
    assert fields(found) == [{"a": 1}, {"a": 2}]
    assert [number for number, _ in problems(found)] == [3, 4, 5, 6, 7]
    assert problems(found)[1] == (4, "not a JSON object")


def test_a_line_nested_too_deeply_is_a_bad_line(tmp_path):
    found = read(tmp_path / "x.jsonl", '{"a": ' + "[" * 200_000 + '\n{"a": 2}\n')
    assert fields(found) == [{"a": 2}]
    assert len(problems(found)) == 1


def test_a_line_without_an_end_is_not_loaded_whole(tmp_path):
    content = '{"a": 1}\n' + "x" * 5_000_000 + '\n{"a": 2}\n'
    found = read(tmp_path / "x.jsonl", content, longest=100)
    assert fields(found) == [{"a": 1}, {"a": 2}]
    assert problems(found) == [(2, "longer than 100 bytes")]


@pytest.mark.parametrize("size", [10, 2**20 - 5, 3 * 2**20])
def test_an_array_is_read_across_the_borders_of_its_pieces(tmp_path, size):
    objects = [{"a": "é" * size}, {"b": 123456}, {"c": "]},{"}]
    assert fields(read(tmp_path / "x.json", json.dumps(objects, ensure_ascii=False))) == objects


def test_an_element_that_is_no_object_is_told(tmp_path):
    found = read(tmp_path / "x.json", '[{"a": 1}, 12, "text", null, {"a": 2}]')
    assert fields(found) == [{"a": 1}, {"a": 2}]
    assert [number for number, _ in problems(found)] == [2, 3, 4]


@pytest.mark.parametrize("end", ["", ",", '{"a":', "nonsense]", "[" * 100_000, '{"a": "\\q"}]'])
def test_an_array_that_breaks_off_keeps_what_came_before(tmp_path, end):
    content = ('[{"a": 1}, {"a": 2}, ' + end).encode(errors="surrogateescape")
    found = read(tmp_path / "x.json", content)
    assert fields(found) == [{"a": 1}, {"a": 2}]
    assert [number for number, _ in problems(found)] == [3]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_an_empty_file_holds_nothing(tmp_path, name):
    assert read(tmp_path / name, b"") == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100])
def test_a_file_that_is_no_parquet_is_one_problem(tmp_path, content):
    assert [number for number, _ in problems(read(tmp_path / "x.parquet", content))] == [0]


def test_a_file_that_is_gone_is_one_problem(tmp_path):
    (found,) = read_rows(tmp_path / "gone.jsonl")
    assert str(found) == f"{tmp_path / 'gone.jsonl'}:0: cannot be read: No such file or directory"


def test_an_element_that_is_too_long_ends_an_array(tmp_path):
    content = '[{"a": 1}, {"b": "' + "x" * 5_000_000 + '"}]'
    found = read(tmp_path / "x.json", content, longest=100)
    assert fields(found) == [{"a": 1}]
    assert problems(found) == [(2, "the array is cut off or damaged from here on")]


def test_an_element_that_is_not_utf_8_loses_no_other(tmp_path):
    found = read(tmp_path / "x.json", b'[{"a": 1}, {"a": "\xff"}, {"a": "\\ud800"}, {"a": 2}]')
    assert fields(found) == [{"a": 1}, {"a": 2}]
    assert [number for number, _ in problems(found)] == [2, 3]
