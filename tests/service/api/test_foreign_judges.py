"""A judge that was trained elsewhere, behind the same endpoints."""

from __future__ import annotations

import math

import pytest

from models.release import SHIPPED_DIR
from service.engines import Generation, LabelLogprobs

pytestmark = pytest.mark.anyio

RELEASE_TOML = """\
name = "foreign"
purpose = "production"
base_model = "somebody's"
output_format = "unified_reward_think"
context_tokens = 4096
"""


@pytest.fixture
def foreign_release(tmp_path) -> str:
    (tmp_path / "release.toml").write_text(RELEASE_TOML)
    (tmp_path / "judge").symlink_to(SHIPPED_DIR / "tiny" / "judge")
    return str(tmp_path)


def longer_is_better(request) -> Generation:
    """Answers in the published form."""
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    asked = text.rpartition("\nAnswer 1: [")[2]
    one, _, two = asked.partition("]\nAnswer 2: [")
    first = 0.9 if len(one) >= len(two) - 1 else 0.1
    verdict = "1" if first > 0.5 else "2"
    whole = f"<think>\nTotal score:\n</think>\n<answer>Answer {verdict} is better</answer>"
    return Generation(
        whole, False, 90, 9, labels=LabelLogprobs(math.log(first), math.log(1 - first))
    )


@pytest.fixture
async def gateway(start_gateway, foreign_release):
    return await start_gateway(longer_is_better, release=foreign_release)


async def test_it_judges(gateway):
    answer = (await gateway.score(responses=["Two.", "Three circles."], order="both")).json()
    assert (answer["status"], answer["preferred"]) == ("ok", 2)
    assert answer["probability"] == pytest.approx(0.1)
    assert (answer["rubric"], answer["evaluation"]) == (None, "Total score:")
    assert answer["order_consistent"] is True
    assert answer["release"]["name"] == "foreign"


async def test_its_judgement_is_given_again_from_the_cache(gateway):
    first, again = [(await gateway.score()).json() for _ in range(2)]
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["probability"] == first["probability"]


async def test_it_judges_by_a_given_rubric(gateway):
    answer = (await gateway.score(rubric={"text": "1. Length (100%)"})).json()
    assert answer["rubric"]["text"] == "1. Length (100%)"
    assert answer["status"] == "ok"


async def test_it_ranks_without_a_rubric(gateway):
    asked = {"question": "How many?", "responses": ["a", "aaa", "aa"]}
    answer = (await gateway.client.post("/rank", json=asked)).json()
    assert (answer["status"], answer["ranking"], answer["rubric"]) == ("ok", [1, 2, 0], None)
    assert answer["spent"]["comparisons"] == 3 == len(gateway.engine.requests)


async def test_it_has_no_rubric_to_give(gateway):
    asked = {"question": "How many?", "responses": ["a", "aaa"]}
    answer = await gateway.client.post("/rubric", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "writes no rubric" in answer.json()["detail"]


@pytest.mark.parametrize("options", [{"depth": "verdict"}, {"order": "adaptive"}])
async def test_a_verdict_without_an_evaluation_is_a_request_to_change(gateway, options):
    answer = await gateway.score(**options)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "depth full and order given or both" in answer.json()["detail"]
