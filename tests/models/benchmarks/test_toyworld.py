from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from proxy_grm_client import Judgement

from models.benchmarks.toyworld import Judged, Run, fresh_cases, judge_all, main, summary
from models.comparison import JudgeImage
from models.judgement import RUBRIC_END
from models.prompts import DEFAULT_DIR
from models.release import SHIPPED_DIR
from models.toyworld import CaseOptions, make_case
from models.toyworld.scene import SIDE
from service.app import Engines, create_app
from service.engines.scripted import ScriptedEngine, written_by_rote
from service.metrics import Metrics
from service.settings import Settings

BLANK = (SIDE, SIDE, {(224, 224, 224)})
SECTION = re.compile(r"<(question|response_[12])>\n(.*?)(?=\n</?\w+>|\Z)", re.DOTALL)
NOBODY = "http://127.0.0.1:9"


def case(label=1, stratum="image", family=None, held_out=False):
    rng = random.Random(0)
    options = CaseOptions(stratum, family, held_out)
    return next(c for c in iter(lambda: make_case(rng, options), None) if c.label == label)


def judgement(*passes, consistent=None, probability=None, tokens=3):
    """An answer with these passes: P(response 1 is better) each, None for an abstention."""
    verdicts = [
        {
            "order": order,
            "preferred": None if p is None else 1 if p >= 0.5 else 2,
            "probability": p,
            "text": "…",
        }
        for order, p in zip(("given", "swapped"), passes, strict=False)
    ]
    return Judgement.model_validate({
        "id": "x",
        "status": "abstain" if probability is None else "ok",
        "reason": None,
        "preferred": None if probability is None else 1 if probability >= 0.5 else 2,
        "probability": probability,
        "order_consistent": consistent,
        "rubric": None,
        "evaluation": None,
        "verdicts": verdicts,
        "release": {"name": "small", "fingerprint": "f1", "purpose": "demo"},
        "usage": {"prompt_tokens": 5, "completion_tokens": tokens},
        "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
        "cached": False,
    })  # fmt: skip


def judged(p, **asked):
    return Judged(case(**asked), judgement(p, probability=p))


# Summing up


def test_right_wrong_and_unreadable_are_told_apart():
    full = [
        Judged(case(1), judgement(0.9, 0.7, consistent=True, probability=0.8)),
        Judged(case(2), judgement(0.8, 0.3, consistent=False, probability=0.55)),
        Judged(case(2, "rubric"), judgement(0.3, 0.1, consistent=True, probability=0.2)),
        Judged(case(1, "text"), judgement(None, tokens=7)),
    ]
    figures = summary(full, [judged(0.9), judged(0.1)], [judged(0.9)], [judged(0.4)])
    assert figures["n"] == 4
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_image_decided"] == 0.5
    assert figures["accuracy_rubric_decided"] == 1.0
    assert figures["accuracy_text_decided"] == 0.0
    assert figures["accuracy_heldout_combinations"] == 0.5
    assert figures["verdict_depth_accuracy"] == 1.0
    assert figures["blank_image_accuracy_image_decided"] == 0.0
    assert figures["readable"] == 0.75
    assert figures["order_consistent"] == 0.5
    assert figures["completion_tokens"] == 16
    assert (figures["release"], figures["fingerprint"]) == ("small", "f1")
    # Confidences 0.9 (right), 0.8 (wrong), 0.7 (right), 0.5 (the abstention, wrong), a bin each.
    assert figures["ece"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.5) / 4)
    assert figures["auroc"] == 0.75
    assert figures["accuracy_at_80_coverage"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["both_orders"]["accuracy"] == 0.5
    assert figures["both_orders"]["ece"] == pytest.approx((0.2 + 0.55 + 0.2) / 3, abs=1e-4)
    assert figures["intervals_95"]["accuracy"] == [0.15, 0.85]


def test_an_abstention_counts_as_wrong_in_every_share():
    figures = summary(
        [judged(0.9), judged(None)], [judged(None)], [judged(None), judged(0.8)], [judged(None)]
    )
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_heldout_combinations"] == 0.0
    assert figures["verdict_depth_accuracy"] == 0.5
    assert figures["blank_image_accuracy_image_decided"] == 0.0
    assert figures["both_orders"]["accuracy"] == 0.5
    (family,) = figures["accuracy_by_family"].values()
    assert family == 0.5


def test_families_are_counted_apart_and_held_out_ones_too():
    full = [
        judged(0.9, family="count"),
        judged(0.2, family="count"),
        judged(0.9, label=2, family="colour"),
    ]
    held_out = [judged(0.9, family="digit", held_out=True), judged(0.2, family="count")]
    figures = summary(full, held_out, full, full)
    assert figures["accuracy_by_family"] == {"colour": 0.0, "count": 0.5}
    assert figures["accuracy_heldout_by_family"] == {"count": 0.0, "digit": 1.0}


def test_the_verdict_is_that_of_the_given_order_and_so_is_the_confidence():
    one = Judged(case(1), judgement(0.1, 0.95, consistent=False, probability=0.525))
    assert one.preferred == 2
    assert not one.is_right
    assert one.confidence == pytest.approx(0.9)
    assert Judged(case(1), judgement(None)).confidence == 0.5


def test_a_stratum_that_was_not_drawn_has_no_share():
    figures = summary([judged(0.9)], [judged(0.9)], [judged(0.9)], [])
    assert figures["accuracy_rubric_decided"] is None
    assert figures["blank_image_accuracy_image_decided"] is None
    assert figures["intervals_95"]["accuracy_rubric_decided"] == [0, 1]
    assert figures["auroc"] is None


def test_a_judge_that_always_abstains_still_gets_figures_that_are_json():
    never = [judged(None)] * 3
    figures = summary(never, never, never, never)
    assert figures["accuracy"] == figures["readable"] == 0.0
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


# Cases


def test_the_same_seed_draws_the_same_cases_and_another_one_others():
    assert fresh_cases(5, 1) == fresh_cases(5, 1) == fresh_cases(9, 1)[:5]
    assert fresh_cases(5, 1) != fresh_cases(5, 2)
    assert fresh_cases(5, 1) != fresh_cases(5, 1, held_out=True)
    assert fresh_cases(0, 1) == []


# Through a gateway


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self):
        """The signals belong to the test runner."""
        yield


class Oracle:
    """Knows the cases that it is told of, by their words and their very pixels.

    Of what it does not know it says that the response it reads first is better, and keeps what
    it was shown.
    """

    def __init__(self):
        self.forget()

    def forget(self):
        self.known, self.unknown, self.abstains = {}, [], False

    def learn(self, cases):
        for one in cases:
            pixels = one.picture().tobytes()
            first, second = one.responses
            self.known[one.question, first, second, pixels] = str(one.label)
            self.known[one.question, second, first, pixels] = str(3 - one.label)

    def __call__(self, request):
        if RUBRIC_END in request.stop:
            return written_by_rote(request)
        if self.abstains:
            return "I would rather not say."
        verdict = self._verdict(request)
        if request.max_tokens == 1:
            return verdict
        return re.sub(r"[12](?= is closer|</answer>)", verdict, written_by_rote(request))

    def _verdict(self, request):
        text = "".join(part for part in request.prompt.user if isinstance(part, str))
        (picture,) = (part for part in request.prompt.user if isinstance(part, JudgeImage))
        words = dict(SECTION.findall(text))
        names = ("question", "response_1", "response_2")
        key = (*map(words.get, names), picture.pixels.tobytes())
        if key not in self.known:
            self.unknown.append((words.get("question"), picture.pixels))
        return self.known.get(key, "1")


def plain_release(folder):
    """The shipped release without its calibration, with prompts whose parts the oracle can tell."""
    shipped = SHIPPED_DIR / "tiny"
    config, _, _ = (shipped / "release.toml").read_text().partition("\n[proxy]")
    (folder / "release.toml").write_text(config)
    (folder / "judge").symlink_to(shipped / "judge")
    (folder / "prompts").symlink_to(DEFAULT_DIR)
    return str(folder)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A real gateway on loopback, in a thread of its own, with an oracle for an engine."""
    oracle = Oracle()
    engine = ScriptedEngine(oracle)
    settings = Settings(
        engine="scripted",
        state_dir=tmp_path_factory.mktemp("state"),
        release=plain_release(tmp_path_factory.mktemp("release")),
    )
    started = threading.Event()
    found = SimpleNamespace(oracle=oracle, engine=engine)

    async def serve():
        metrics = Metrics(CollectorRegistry())
        app = create_app(settings, engines=Engines(engine), metrics=metrics)
        server = Server(uvicorn.Config(app, port=0, ws="none", log_config=None))
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            found.stop = lambda: setattr(server, "should_exit", True)
            found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            started.set()
        await serving

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait()
    yield found
    found.stop()
    thread.join()
    structlog.reset_defaults()


@pytest.fixture
def service(running):
    """The same, with an oracle that knows nothing yet."""
    running.oracle.forget()
    running.engine.requests.clear()
    return running


async def test_every_case_is_judged_in_its_place_with_its_drawing(service):
    cases = fresh_cases(12, 3)
    service.oracle.learn(cases)
    found = await judge_all(cases, service.url, Run("all", order="both"), concurrency=5)
    assert [one.case for one in found] == cases
    assert [one.preferred for one in found] == [one.label for one in cases]
    assert all(one.judgement.order_consistent for one in found)
    assert not service.oracle.unknown


async def test_a_blank_run_shows_an_empty_picture_and_nothing_else_changes(service):
    cases = fresh_cases(4, 3)
    service.oracle.learn(cases)
    found = await judge_all(cases, service.url, Run("blank", blank=True))
    shown = [
        (p.width, p.height, {color for _, color in p.getcolors()})
        for _, p in service.oracle.unknown
    ]
    assert shown == [BLANK] * 4
    assert sorted(q for q, _ in service.oracle.unknown) == sorted(c.question for c in cases)
    assert [one.preferred for one in found] == [1] * 4


async def test_verdict_depth_asks_for_one_token_at_the_verdict(service):
    (one,) = cases = fresh_cases(1, 3)
    service.oracle.learn(cases)
    (found,) = await judge_all(cases, service.url, Run("verdict", depth="verdict"))
    assert found.preferred == one.label
    assert [r.max_tokens == 1 for r in service.engine.requests] == [False, True]


async def test_of_no_cases_nothing_is_asked(service):
    assert await judge_all([], service.url, Run("none")) == []


def test_the_last_line_is_one_json_object_of_all_runs(service, capsys):
    cases, held_out = fresh_cases(20, 5), fresh_cases(20, 5, held_out=True)
    service.oracle.learn([*cases, *held_out])
    arguments = ["--url", service.url, "--cases", "20", "--seed", "5", "--concurrency", "8"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    looked_at = [one for one in cases if one.stratum == "image"]
    assert figures["n"] == 20
    for share in ("accuracy", "readable", "order_consistent", "verdict_depth_accuracy"):
        assert figures[share] == 1.0
    assert figures["accuracy_heldout_combinations"] == 1.0
    # Without the picture the oracle says 1 every time.
    first = sum(one.label == 1 for one in looked_at) / len(looked_at)
    assert figures["blank_image_accuracy_image_decided"] == round(first, 4)
    assert len(service.oracle.unknown) == len(looked_at)
    assert figures["release"] == "tiny"
    # Once in both orders, held out, at verdict depth (rubric and verdict) and blank.
    assert len(service.engine.requests) == 20 * (2 + 1 + 2) + len(looked_at)


def test_a_judge_that_always_abstains_is_measured_too(service, capsys):
    service.oracle.abstains = True
    assert main(["--url", service.url, "--cases", "2"]) == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    figures = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=refuse)
    assert figures["accuracy"] == figures["readable"] == figures["both_orders"]["accuracy"] == 0.0


# The command line


@pytest.mark.parametrize("url", [NOBODY, "http://[::1", "nowhere"])
def test_without_a_service_it_says_so_at_once(url, capsys):
    assert main(["--cases", "1", "--url", url]) == 1
    said = capsys.readouterr()
    assert f"Is a service running at {url}?" in said.err
    assert said.out == ""


@pytest.mark.parametrize("option", ["--cases", "--concurrency"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_less_than_one_is_refused(option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        main([option, value, "--url", NOBODY])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err
