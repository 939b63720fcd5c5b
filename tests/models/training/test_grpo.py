from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from PIL import Image
from pydantic import BaseModel

from models.comparison import Comparison, JudgeImage, LabeledComparison
from models.neutralise import Neutraliser
from models.prompts import DEFAULT_DIR, JUDGE_LAYOUTS, PROXY_LAYOUTS, FilledPrompt, read_prompts
from models.rubric import Rubric
from models.toyworld import CaseOptions, make_case
from models.training.collate import chat_messages
from models.training.errors import ProxySilent
from models.training.examples import Example
from models.training.grpo import JudgementReward, ServedProxy, Task, lazy_tasks, toy_task
from models.training.rewards import AGGREGATIONS, Opinion

JUDGE = read_prompts(DEFAULT_DIR, JUDGE_LAYOUTS)
PROXY = read_prompts(DEFAULT_DIR, PROXY_LAYOUTS)
neutralise = Neutraliser(("<|im_end|>", "<|image_pad|>"))


def rollout(criterion, verdict=1):
    return (
        f"<rubric>\n{criterion}\n<justify>{verdict} is best</justify>\n</rubric>\n"
        f"<eval>e</eval>\n<answer>{verdict}</answer>"
    )


def task(label=1, question="q", begins_with="rubric"):
    comparison = Comparison(question, ("a", "b"))
    return Task(FilledPrompt("s", ("u",)), LabeledComparison(comparison, label), begins_with)


class FakeProxy:
    """Answers by the rubric's text and keeps what it was asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    async def opinions(self, asked):
        self.asked.append([(comparison.question, rubric.text) for comparison, rubric in asked])
        return [self.answers[rubric.text] for _, rubric in asked]


def rewarded(completions, tasks, proxy=None, aggregation="implicit"):
    """The totals, and what was logged."""
    logged = {}
    reward = JudgementReward(AGGREGATIONS[aggregation], proxy)
    totals = reward(
        prompts=[[]] * len(tasks),
        completions=completions,
        task=tasks,
        log_metric=lambda name, value: logged.update({name: value}),
        completion_ids=[[1]] * len(tasks),
        trainer_state=None,
    )
    return totals, logged


# The reward


def test_without_a_proxy_verdict_and_form_are_rewarded():
    completions = [rollout("1. Count"), rollout("1. Count", verdict=2), "nonsense"]
    totals, logged = rewarded(completions, [task()] * 3, aggregation="none")
    assert totals == [1.5, -0.5, -1.0]
    assert logged == {
        "rewards/accuracy/mean": pytest.approx(-1 / 3),
        "rewards/format/mean": pytest.approx(2 / 3),
        "unreadable": pytest.approx(1 / 3),
    }


def test_every_rollout_is_rewarded_by_what_the_proxy_made_of_its_own_rubric():
    proxy = FakeProxy({"one": Opinion(1, 0.9), "two": Opinion(2, 0.2), "three": None})
    completions = [rollout(c) for c in ("two", "one", "three", "one")]
    tasks = [task(question=str(n)) for n in range(4)]
    totals, logged = rewarded(completions, tasks, proxy)
    assert totals == [0.5, 2.5, 1.5, 2.5]
    assert proxy.asked == [[("0", "two"), ("1", "one"), ("2", "three"), ("3", "one")]]
    assert logged == {
        "rewards/accuracy/mean": 1.0,
        "rewards/format/mean": 1.0,
        "unreadable": 0.0,
        "proxy_abstained": 0.25,
        "rewards/proxy/mean": pytest.approx(1 / 3),
    }


def test_a_rollout_without_a_rubric_is_not_shown_to_the_proxy():
    proxy = FakeProxy({"one": Opinion(1, 0.9), "two": Opinion(2, 0.2)})
    unclosed = rollout("one").replace("</rubric>", "")
    completions = ["nonsense", rollout("two"), unclosed, rollout("one")]
    tasks = [task(question=str(n)) for n in range(4)]
    totals, logged = rewarded(completions, tasks, proxy)
    assert proxy.asked == [[("1", "two"), ("3", "one")]]
    assert totals == [-1.0, 0.5, -1.0, 2.5]
    assert logged["proxy_abstained"] == 0.5
    assert logged["unreadable"] == 0.5
    assert logged["rewards/proxy/mean"] == 0.0


def test_where_no_rollout_has_a_rubric_the_proxy_gets_no_question():
    proxy = FakeProxy({})
    totals, logged = rewarded(["", "<rubric>"], [task(), task(2)], proxy)
    assert totals == [-1.0, -1.0]
    assert [question for call in proxy.asked for question in call] == []
    assert logged["proxy_abstained"] == 1.0
    assert "rewards/proxy/mean" not in logged


def test_a_proxy_that_only_abstains_has_no_mean():
    totals, logged = rewarded([rollout("x")], [task()], FakeProxy({"x": None}))
    assert totals == [1.5]
    assert logged["proxy_abstained"] == 1.0
    assert "rewards/proxy/mean" not in logged


@pytest.mark.parametrize("aggregation", [name for name in AGGREGATIONS if name != "none"])
def test_the_aggregation_that_is_asked_for_adds_up(aggregation):
    answers = {"one": Opinion(1, 1.0), "two": Opinion(2, 0.0)}
    completions = [rollout(c, v) for c in answers for v in (1, 2)]
    totals, _ = rewarded(completions, [task()] * 4, FakeProxy(answers), aggregation)
    agrees_right, agrees_wrong, disagrees_right, disagrees_wrong = totals
    assert agrees_right > max(disagrees_right, agrees_wrong, disagrees_wrong)
    assert aggregation in ("explicit-1", "explicit-2") or len({*totals}) > 2


class SilentProxy:
    """Gives opinions only in the calls it is told to."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    async def opinions(self, asked):
        return [next(self.answers)] * len(asked) if asked else []


def generations(proxy, completions):
    reward = JudgementReward(AGGREGATIONS["implicit"], proxy)
    for completion in completions:
        reward([[]], [completion], [task()], lambda *_: None)


def test_a_run_whose_proxy_is_gone_is_ended():
    with pytest.raises(ProxySilent, match="look whether the service at proxy_url is up"):
        generations(SilentProxy(*[None] * 5), [rollout("a")] * 5)


def test_a_proxy_that_comes_back_has_not_gone():
    answers = [None] * 4 + [Opinion(1, 0.9)] + [None] * 4
    generations(SilentProxy(*answers), [rollout("a")] * len(answers))


def test_a_proxy_that_is_not_asked_is_not_silent():
    generations(SilentProxy(*[None] * 4), [rollout("a")] * 4 + ["no rubric at all"] * 9)


def test_the_proxy_sees_neither_verdict_nor_justification():
    proxy = FakeProxy({"one": Opinion(1, 0.9)})
    rewarded([rollout("one", verdict=2)], [task()], proxy)
    assert proxy.asked == [[("q", "one")]]


def test_chat_completions_are_read_like_text():
    chat = [[{"role": "assistant", "content": rollout("one")}], rollout("one")]
    assert rewarded(chat, [task()] * 2, aggregation="none")[0] == [1.5, 1.5]


def test_a_proxy_in_training_is_rewarded_from_its_evaluation_on():
    rest = rollout("one").partition("</rubric>\n")[2]
    tasks = [task(begins_with="evaluation")] * 2
    assert rewarded([rest, rollout("one")], tasks, aggregation="none")[0] == [1.5, -1.0]


# Prompts to roll out


def whole_text(prompt):
    return prompt.system + "".join(part for part in prompt.user if isinstance(part, str))


@pytest.mark.parametrize("stratum", ["image", "rubric", "text"])
def test_a_judge_is_asked_to_write_a_rubric_for_the_case_as_it_is(stratum):
    for seed in range(10):
        case = make_case(random.Random(seed), CaseOptions(stratum=stratum))
        asked = toy_task(case, JUDGE, neutralise, random.Random(seed))
        comparison = case.labeled().comparison
        served = JUDGE["write_rubric"].fill(comparison, neutralise)
        assert whole_text(asked.prompt) == whole_text(served)
        assert asked.labeled.label == case.label
        assert asked.labeled.comparison.question == case.question
        assert asked.begins_with == "rubric"


def test_a_proxy_is_given_the_rubric_that_its_label_follows():
    case = make_case(random.Random(5), CaseOptions(stratum="rubric"))
    rubrics = {}
    for seed in range(60):
        asked = toy_task(case, PROXY, neutralise, random.Random(seed))
        deciding = re.findall(
            r"^\d\. ([^\n(]+) \([678]0%\)", whole_text(asked.prompt), re.MULTILINE
        )
        rubrics.setdefault(*deciding, set()).add(asked.labeled.label)
        assert asked.begins_with == "evaluation"
    assert rubrics == {
        case.priorities[0].topic.capitalize(): {case.label},
        case.priorities[1].topic.capitalize(): {3 - case.label},
    }


def test_where_no_priority_decides_the_proxys_label_stays():
    case = make_case(random.Random(5), CaseOptions(stratum="image"))
    tasks = [toy_task(case, PROXY, neutralise, random.Random(s)) for s in range(20)]
    assert {t.labeled.label for t in tasks} == {case.label}


def test_prompts_to_roll_out_are_made_when_they_are_read_and_always_alike():
    made = Counter()

    def make(index):
        made[index] += 1
        case = make_case(random.Random(index))
        return toy_task(case, JUDGE, neutralise, random.Random(index))

    tasks = lazy_tasks(1_000, make)
    assert len(tasks) == 1_000
    assert made == {}
    row = tasks[7]
    assert made == {7: 1}
    asked = row["task"]
    assert asked.labeled.label == make_case(random.Random(7)).label
    assert row["prompt"] == chat_messages(Example(asked.prompt.system, asked.prompt.user, ()))
    again = tasks[[7, 8, 7]]
    assert [t.prompt.user[-1] for t in again["task"]][::2] == [asked.prompt.user[-1]] * 2


# A proxy that is served


class _Body(BaseModel):
    question: str
    rubric: dict[str, str]


ANSWER = {
    "id": "x", "status": "ok", "reason": None, "preferred": 1, "probability": 0.9, "reward": None,
    "release": {"name": "tiny", "fingerprint": "f", "purpose": "demo"},
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    "timing": {"queue_s": 0.0, "image_s": 0.0, "engine_s": 0.0, "total_s": 0.0},
}  # fmt: skip
ABSTAINED = {"status": "abstain", "reason": "unreadable", "preferred": None, "probability": None}


class _Handler(BaseHTTPRequestHandler):
    """`POST /verify`, answered by the rubric's text."""

    def do_POST(self):
        body = _Body.model_validate_json(self.rfile.read(int(self.headers["content-length"])))
        text = body.rubric.get("text", "an id")
        seen = self.server.seen
        with seen.lock:
            seen.asked.append((self.path, body.question, text))
            seen.running += 1
            seen.most_running = max(seen.most_running, seen.running)
        seen.together.wait(0.05)  # time for others to arrive
        with seen.lock:
            seen.running -= 1  # before the answer: who has it may ask again at once
        self.answer(text)

    def answer(self, text):
        replies = {
            "second": (200, json.dumps(ANSWER | {"preferred": 2, "probability": 0.25})),
            "abstains": (200, json.dumps(ANSWER | ABSTAINED)),
            "garbage": (200, "no json"),
            "refused": (422, json.dumps({"code": "invalid_request", "detail": "no"})),
            "no proxy": (404, json.dumps({"code": "not_found", "detail": "no proxy"})),
            "no key": (401, json.dumps({"code": "unauthenticated", "detail": "no key"})),
            "drains": (503, json.dumps({"code": "draining", "detail": "no"})),
            "broken": (500, "oops"),
        }
        status, reply = replies.get(text, (200, json.dumps(ANSWER)))
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.send_header("retry-after", "3600")  # longer than anybody waits
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    block_on_close = True
    request_queue_size = 128


@contextmanager
def serving():
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.seen = SimpleNamespace(
            lock=threading.Lock(), together=threading.Event(), asked=[], running=0, most_running=0
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield SimpleNamespace(
                url=f"http://127.0.0.1:{server.server_address[1]}", seen=server.seen
            )
        finally:
            server.shutdown()
            thread.join()


PICTURE = JudgeImage(Image.new("RGB", (28, 28), "white"), "white")


def questions(*texts):
    return [
        (Comparison(f"q{n}", ("a", "b"), (PICTURE,)), Rubric(text)) for n, text in enumerate(texts)
    ]


async def test_opinions_come_in_the_order_of_the_questions():
    with serving() as service:
        texts = [text for _ in range(10) for text in ("first", "second", "abstains")]
        found = await ServedProxy(service.url).opinions(questions(*texts))
        assert found == [Opinion(1, 0.9), Opinion(2, 0.25), None] * 10
        assert {path for path, _, _ in service.seen.asked} == {"/verify"}
        asked = Counter((question, text) for _, question, text in service.seen.asked)
        assert asked == Counter((f"q{n}", text) for n, text in enumerate(texts))


@pytest.mark.parametrize("failure", ["garbage", "refused", "drains", "broken"])
async def test_a_failure_is_no_opinion_and_costs_the_others_nothing(failure):
    with serving() as service:
        found = await ServedProxy(service.url).opinions(questions("first", failure, "second"))
        assert found == [Opinion(1, 0.9), None, Opinion(2, 0.25)]


@pytest.mark.parametrize(
    ("failure", "said"),
    [("no key", "put one in PROXY_GRM_API_KEY"), ("no proxy", "no proxy to ask")],
)
async def test_a_service_that_will_never_answer_ends_the_run_at_once(failure, said):
    with serving() as service, pytest.raises(ProxySilent, match=said):
        await ServedProxy(service.url).opinions(questions("first", failure, *["second"] * 200))


async def test_where_nobody_listens_there_is_no_opinion():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = await ServedProxy(f"http://127.0.0.1:{port}", timeout_s=0.5).opinions(questions("x"))
    assert found == [None]


async def test_the_same_question_is_asked_once():
    with serving() as service:
        (question,) = questions("second")
        found = await ServedProxy(service.url).opinions([question] * 8)
        assert found == [Opinion(2, 0.25)] * 8
        assert len(service.seen.asked) == 1


async def test_no_more_are_asked_at_a_time_than_allowed():
    with serving() as service:
        found = await ServedProxy(service.url, concurrency=2).opinions(questions(*["x"] * 12))
        assert found == [Opinion(1, 0.9)] * 12
        assert 1 <= service.seen.most_running <= 2


async def test_without_questions_nobody_is_asked():
    with serving() as service:
        assert await ServedProxy(service.url).opinions([]) == []
        assert service.seen.asked == []


async def test_a_rubric_that_looks_like_an_id_is_still_a_text():
    with serving() as service:
        hostile = "rub_" + "0" * 24
        await ServedProxy(service.url).opinions(questions(hostile))
        assert [text for _, _, text in service.seen.asked] == [hostile]
