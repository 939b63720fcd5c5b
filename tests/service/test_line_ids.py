from __future__ import annotations

import pytest

from service.line_ids import MOST_CHARACTERS, line_id


@pytest.mark.parametrize("named", ["n7", "ä 猫 😀", "x" * MOST_CHARACTERS])
def test_a_text_is_an_id(named: str):
    assert line_id(named) == named


@pytest.mark.parametrize("named", ["", "x" * (MOST_CHARACTERS + 1), "\ud800", None, 7, ["n7"]])
def test_anything_else_is_none(named: object):
    assert line_id(named) is None
