from __future__ import annotations

import json
from pathlib import Path

import pytest
from proxy_grm_client.cli import main

QUESTION = {"question": "How many?", "responses": ["One.", "Two."]}
NOBODY = "job_" + "f" * 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    rows = [QUESTION | {"id": "a"}, QUESTION, QUESTION | {"id": "b", "responses": ["One.", " "]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def run(jobs_url):
    return lambda *said: main(["jobs", *map(str, said), "--url", jobs_url])


def test_a_file_is_handed_over_waited_for_and_its_results_fetched(run, source, tmp_path, capsys):
    assert run("submit", source, "--depth", "verdict") == 0
    job = capsys.readouterr().out.strip()
    assert run("wait", job) == 1
    assert f"{job} done: 3 of 3 lines (2 ok, 1 error)" in capsys.readouterr().err
    assert run("status", job) == 0
    assert f"{job} done: 3 of 3 lines (2 ok, 1 error)\n" == capsys.readouterr().out
    assert run("status", job, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["ok"] == 2
    out = tmp_path / "out.jsonl"
    assert run("results", job, out) == 1
    assert f"{out}: 3 results (1 error, 2 ok)" in capsys.readouterr().err
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in written] == ["a", "line-2", "b"]
    assert [line["status"] for line in written] == ["ok", "ok", "error"]
    assert (written[2]["line"], written[2]["error"]["code"]) == (3, "invalid_request")
    assert written[0]["evaluation"] is None
    assert not out.with_name("out.jsonl.part").exists()
    assert run("results", job) == 1
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [
        "a",
        "line-2",
        "b",
    ]


def test_a_file_that_is_there_is_not_written_over(run, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    out.write_text("dear diary\n")
    assert run("results", NOBODY, out) == 1
    assert out.read_text() == "dear diary\n"
    assert "name another file" in capsys.readouterr().err


def test_lines_that_are_no_comparisons_are_told_and_left_out(run, source, capsys):
    with source.open("a") as file:
        file.write("no json\n" + json.dumps(QUESTION | {"id": "a"}) + "\n")
    assert run("submit", source, "--wait") == 1
    said = capsys.readouterr()
    assert said.out.startswith("job_")
    assert "in.jsonl:4: the line is no JSON object; left out" in said.err
    assert "in.jsonl:5: 'a' stands further up too; left out" in said.err
    assert "3 of 3 lines" in said.err


def test_a_source_is_handed_over(run, job_sources, capsys):
    file = job_sources / "rows.jsonl"
    file.write_text(json.dumps(QUESTION) + "\n")
    assert run("submit", "--source", f"file://{file}", "--wait") == 0
    assert "1 of 1 lines (1 ok)" in capsys.readouterr().err


def test_a_job_is_cancelled(run, source, capsys):
    run("submit", source)
    job = capsys.readouterr().out.strip()
    assert run("cancel", job) == 0
    assert capsys.readouterr().out.startswith(f"{job} ")


@pytest.mark.parametrize("what", ["status", "wait", "results", "cancel"])
def test_a_job_that_is_not_there_is_told(what: str, run, capsys):
    assert run(what, NOBODY) == 1
    assert "proxy-grm: not_found" in capsys.readouterr().err


def test_a_file_or_a_source_is_needed_and_not_both(run, source, capsys):
    for said in ((), (source, "--source", "file:///x.jsonl")):
        assert run("submit", *said) == 1
        assert "name a file, or --source" in capsys.readouterr().err


def test_the_commands_are_shown_with_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for what in ("submit", "status", "wait", "results", "cancel"):
        assert what in said
    assert "  proxy-grm jobs submit pairs.jsonl" in said
