from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from proxy_grm_client import Client, Run
from proxy_grm_client.answers import ImageReliance, Rate, Release
from proxy_grm_client.cli import main
from proxy_grm_client.cli.shown import show_run

ASKED = ["-q", "How many cats?", "-a", "There is one.", "-b", "There are two."]
RANKED = ["-q", "How many cats?", "-r", "One.", "-r", "Two.", "-r", "Three."]


@pytest.fixture
def cat(tmp_path: Path) -> str:
    file = tmp_path / "cat.jpg"
    Image.new("RGB", (64, 48), "teal").save(file)
    return str(file)


def test_a_judgement_is_shown_so_that_a_person_enjoys_it(service_url, cat, capsys):
    assert main(["score", cat, *ASKED, "--order", "both", "--url", service_url]) == 0
    said = capsys.readouterr().out
    for word in (
        "How many cats?",
        "rubric",
        "Accuracy",
        "70%",
        "evaluation",
        "is better",
        "orders",
    ):
        assert word in said
    assert "P(response 1 is better)" in said
    assert "demonstration" in said
    assert "\x1b[" not in said  # no colours where no terminal is


def test_an_answer_is_printed_as_it_is_on_demand(service_url, cat, capsys):
    assert main(["score", cat, *ASKED, "--json", "--depth", "verdict", "--url", service_url]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["evaluation"]) == ("ok", None)
    assert main(["rubric", *ASKED, "--json", "--url", service_url]) == 0
    rubric = json.loads(capsys.readouterr().out)["rubric"]
    given = [*ASKED, "--json", "--rubric", rubric["text"], "--url", service_url]
    assert main(["score", *given]) == 0
    assert json.loads(capsys.readouterr().out)["rubric"]["text"] == rubric["text"]


def test_a_rubric_and_a_ranking_are_shown(service_url, capsys):
    assert main(["rubric", *ASKED, "--url", service_url]) == 0
    said = capsys.readouterr().out
    assert "Accuracy" in said
    assert "--rubric rub_" in said
    assert main(["rank", *RANKED, "--url", service_url]) == 0
    said = capsys.readouterr().out
    for response in ("One.", "Two.", "Three."):
        assert response in said
    assert "3 comparisons" in said


def test_an_abstention_is_said_and_is_no_success(service_url, capsys):
    mumbled = ["-q", "unreadable", *ASKED[2:], "--url", service_url]
    assert main(["score", *mumbled]) == 1
    assert "no verdict: unreadable" in capsys.readouterr().out
    assert main(["rubric", *mumbled]) == 1
    assert "no rubric: unreadable" in capsys.readouterr().out
    assert main(["rank", "-q", "unreadable", *RANKED[2:], "--url", service_url]) == 1
    assert "no ranking: unreadable" in capsys.readouterr().out


def test_what_the_service_refuses_is_told_with_its_code(service_url, capsys):
    assert main(["score", "-q", "How?", "-a", " ", "-b", "x", "--url", service_url]) == 1
    assert "proxy-grm: invalid_request: responses.0" in capsys.readouterr().err


def test_a_picture_that_is_not_there_is_told(service_url, capsys):
    assert main(["score", "absent.jpg", *ASKED, "--url", service_url]) == 1
    assert "absent.jpg" in capsys.readouterr().err


def test_an_address_that_is_none_is_told(capsys):
    assert main(["score", *ASKED, "--url", "judge:8000"]) == 1
    assert "http://127.0.0.1:8000" in capsys.readouterr().err


def test_a_run_is_shown_and_printed(jobs_url, capsys):
    with Client(jobs_url) as client:
        for number in range(3):
            client.score(f"How many ({number})?", ["One.", "Two cats."], run_id="grpo 17/b")
        while client.run("grpo 17/b").judgements < 3:  # counted after the answers
            time.sleep(0.02)
    assert main(["run", "grpo 17/b", "--url", jobs_url]) == 0
    said = capsys.readouterr().out
    assert "grpo 17/b: 3 judgements" in said
    assert "longer preferred" in said
    assert "No judgement was made again" in said
    assert main(["run", "grpo 17/b", "--json", "--url", jobs_url]) == 0
    assert json.loads(capsys.readouterr().out)["first_position"]["n"] == 3
    assert main(["run", "nobody", "--url", jobs_url]) == 1
    assert "proxy-grm: not_found" in capsys.readouterr().err


def test_what_a_run_was_probed_for_is_shown(capsys):
    some, none = Rate(n=4, rate=0.25), Rate(n=0, rate=None)
    run = Run(
        id="r",
        judgements=4,
        abstained=some,
        abstentions={"unreadable": 1, "truncated": 0},
        injection_attempts=some,
        first_position=some,
        longer_wins=none,
        longer_wins_baseline=some,
        image_reliance=ImageReliance(n=4, changed=some, mean_shift=0.3, abstained=0),
        release=Release(name="tiny", fingerprint="f" * 32, purpose="demo"),
    )
    show_run(run)
    said = capsys.readouterr().out
    for shown in ("1 unreadable", "elsewhere 25.0%", "–", "P shifts by 0.30"):
        assert shown in said
    assert "truncated" not in said


@pytest.mark.parametrize("command", ["score", "rubric", "rank", "run", "batch", "doctor"])
def test_every_command_shows_an_example(command: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"  proxy-grm {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["score", "cat.jpg"], "-q"),
        (["score", *ASKED, "--order", "sideways"], "sideways"),
        (["rank", "-q", "x"], "-r"),
        (["batch", "in.jsonl"], "output"),
        (["skore"], "skore"),
        ([], "COMMAND"),
    ],
)
def test_wrong_arguments_are_told_with_where_to_look(wrong: list[str], told: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "--help shows an example" in said


_WITHOUT_RICH = """
import sys
sys.modules["rich"] = None
from proxy_grm_client.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_rich_it_says_how_to_get_it_and_json_goes_on(service_url):
    def ran(*more: str) -> subprocess.CompletedProcess[str]:
        asked = ["score", *ASKED, "--url", service_url, *more]
        return subprocess.run(
            [sys.executable, "-c", _WITHOUT_RICH, *asked],
            capture_output=True,
            text=True,
            check=False,
        )

    bare = ran()
    assert bare.returncode == 1
    assert "pip install 'proxy-grm-client[cli]'" in bare.stderr
    assert json.loads(ran("--json").stdout)["status"] == "ok"
