from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.evaluators import Evaluator, EvaluatorInvalid, Surroundings
from service.evaluators.kinds import SHIPPED, build, find
from service.evaluators.proxy import ProxyEvaluator
from service.evaluators.scripted import ScriptedEvaluator
from service.evaluators.self_judge import SelfEvaluator

OTHERS = """
from service.evaluators import Evaluator, EvaluatorConfig, Opinion


class Config(EvaluatorConfig):
    url: str


class Mine(Evaluator):
    Config = Config

    def __init__(self, config):
        self.config = config

    @classmethod
    def build(cls, config, around):
        if config.url == "odd":
            raise KeyError("no such thing")
        return cls(config)

    async def evaluate(self, comparison, rubric, priority="interactive"):
        return Opinion.prefers(2)


class Unrelated:
    pass
"""


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of somebody else's, and one that cannot be imported."""
    (tmp_path / "others_evaluator.py").write_text(OTHERS)
    (tmp_path / "others_broken.py").write_text("raise RuntimeError('at import')")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("others_evaluator", None)


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_shipped_kind_is_an_evaluator(kind: str):
    assert issubclass(find(kind), Evaluator)


def test_the_shipped_ones_have_the_names_that_are_documented():
    assert find("proxy") is ProxyEvaluator
    assert find("self") is SelfEvaluator


def test_a_dotted_path_is_a_kind():
    assert find("service.evaluators.scripted:ScriptedEvaluator") is ScriptedEvaluator


def test_an_unknown_kind_is_told_which_there_are():
    with pytest.raises(EvaluatorInvalid, match=r"'prxy' \(did you mean 'proxy'\?\); there are "):
        find("prxy")
    with pytest.raises(EvaluatorInvalid, match=r"'qqq'; there are .*package\.module:Class"):
        find("qqq")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("others_absent:Mine", "are not at others_absent:Mine: No module named"),
        ("others_evaluator:Absent", "has no attribute 'Absent'"),
        ("others_broken:Mine", "at import"),
        ("others_evaluator:Unrelated", "no subclass of service.evaluators.Evaluator"),
        ("others_evaluator:Config", "no subclass of service.evaluators.Evaluator"),
        (":Mine", "are not at :Mine"),
    ],
)
def test_what_cannot_be_used_says_why(kind: str, said: str, others: None):
    with pytest.raises(EvaluatorInvalid, match=said):
        find(kind)


def test_options_and_key_become_the_kinds_own_config(others: None, around: Surroundings):
    made = build("gpt", "others_evaluator:Mine", {"url": "http://x"}, SecretStr("hunter2"), around)
    assert made.config.url == "http://x"
    assert made.config.api_key.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "evaluator 'gpt' of kind 'others_evaluator:Mine': url: Field required"),
        ({"url": "x", "uri": "y"}, "uri: Extra inputs are not permitted"),
        ({"url": "odd"}, "of kind 'others_evaluator:Mine': 'no such thing'"),
    ],
)
def test_options_that_it_does_not_take_are_refused(
    options: dict[str, str], said: str, others: None, around: Surroundings
):
    with pytest.raises(EvaluatorInvalid, match=said) as caught:
        build("gpt", "others_evaluator:Mine", options, SecretStr("hunter2"), around)
    assert "hunter2" not in str(caught.value)


def test_a_proxy_that_the_release_does_not_have_is_refused(around: Surroundings):
    with pytest.raises(EvaluatorInvalid, match="'tiny' has no proxy/ folder"):
        build("mine", "proxy", {}, None, around)
