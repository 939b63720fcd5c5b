from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from proxy_grm_client.cli import main

from loadtests.drills.site import free_port

from ..conftest import gateway_process

QUESTION = {"question": "How many?", "responses": ["One.", "Two."]}


def written(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [
        json.dumps(QUESTION | {"id": "a"}),
        "",
        json.dumps(QUESTION),
        "no json",
        json.dumps(QUESTION | {"id": "b", "responses": ["One.", " "]}),
        json.dumps(QUESTION | {"id": "c", "question": "unreadable"}),
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def run(service_url: str, source: Path, tmp_path: Path):
    return lambda *more: main(
        ["batch", str(source), str(tmp_path / "out.jsonl"), "--url", service_url, *more]
    )


def test_every_line_has_one_result(run, tmp_path, capsys):
    assert run("--depth", "verdict") == 1
    results = {line["id"]: line for line in written(tmp_path / "out.jsonl")}
    assert {name: line["status"] for name, line in results.items()} == {
        "a": "ok",
        "line-3": "ok",
        "line-4": "error",
        "b": "error",
        "c": "abstain",
    }
    assert results["a"]["evaluation"] is None
    assert (results["b"]["line"], results["b"]["error"]["code"]) == (5, "invalid_request")
    assert results["line-4"]["error"]["detail"] == "the line is no JSON object"
    assert "5 lines (1 abstain, 2 error, 2 ok)" in capsys.readouterr().err


def test_what_is_done_is_not_done_again(run, tmp_path, capsys):
    run()
    before = written(tmp_path / "out.jsonl")
    capsys.readouterr()
    assert run() == 0
    assert written(tmp_path / "out.jsonl") == before
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_line_that_was_cut_off_is_judged_again(cut, run, tmp_path):
    run()
    out = tmp_path / "out.jsonl"
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    run()
    assert sorted(line["id"] for line in written(out)) == ["a", "b", "c", "line-3", "line-4"]


def test_an_id_that_stands_twice_counts_once_and_is_told(run, source, tmp_path, capsys):
    with source.open("a") as file:
        file.write(json.dumps(QUESTION | {"id": "a", "responses": ["Two.", "One."]}) + "\n")
    assert run() == 1
    assert [line["id"] for line in written(tmp_path / "out.jsonl")].count("a") == 1
    assert "in.jsonl:7: 'a' stands further up too" in capsys.readouterr().err


def test_another_file_is_not_written_over(run, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    out.write_text("dear diary\n")
    assert run() == 1
    assert out.read_text() == "dear diary\n"
    assert "out.jsonl:1 is not a judgement; name another file" in capsys.readouterr().err


def test_an_input_that_is_not_there_leaves_nothing_behind(service_url, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(tmp_path / "no.jsonl"), str(out), "--url", service_url]) == 1
    assert "no.jsonl" in capsys.readouterr().err
    assert not out.exists()


def test_server_and_client_may_be_killed_in_the_middle(tmp_path: Path):
    """The server is killed and started again, then the client, who is run again."""
    many = int(os.environ.get("PROXY_GRM_TEST_LINES", "500"))  # 2,000 is the full thing
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        "".join(json.dumps(QUESTION | {"id": f"line {n}"}) + "\n" for n in range(many))
    )
    port = free_port()

    def serve() -> subprocess.Popen[bytes]:
        slowly = {"PROXY_GRM_LIMITS__BATCH_IN_WORK": "4"}  # there is a middle to be killed in
        return gateway_process(port, tmp_path / "state", **slowly)

    def ask() -> subprocess.Popen[bytes]:
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "proxy_grm_client.cli", "batch", source, out]
        return subprocess.Popen([*command, "--url", url, "--depth", "verdict"])

    def until(number: int) -> None:
        while not out.exists() or out.read_bytes().count(b"\n") < number:
            time.sleep(0.01)

    server, client = serve(), ask()
    try:
        until(many // 10)
        server.kill()
        server.wait()
        server = serve()
        until(many // 10 * 4)
        client.send_signal(signal.SIGKILL)
        client.wait()
        assert out.read_bytes().count(b"\n") < many
        client = ask()
        assert client.wait() == 0
    finally:
        for process in (client, server):
            process.terminate()
            process.wait()
    results = written(out)
    assert sorted(line["id"] for line in results) == sorted(f"line {n}" for n in range(many))
    assert {line["status"] for line in results} == {"ok"}


@pytest.mark.parametrize(
    "content",
    [
        b"dear diary",
        b"",
        b'{"question": "How many?"',
        b'{"id": "a"}\nhalf a diary',
        b"\xff\xd8\xff",
    ],
)
def test_a_file_that_is_something_else_keeps_every_byte(content, run, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    out.write_bytes(content)
    finished = run()
    if content:
        assert finished == 1
        assert out.read_bytes() == content
        assert "is not a judgement" in capsys.readouterr().err
    else:
        assert len(written(out)) == 5


def test_the_input_is_never_the_output(service_url, source, capsys):
    before = source.read_bytes()
    assert main(["batch", str(source), str(source), "--url", service_url]) == 1
    assert source.read_bytes() == before
    assert "is the input; name another file" in capsys.readouterr().err


def test_errors_may_be_tried_again_and_nothing_else_is(run, source, tmp_path):
    run()
    out = tmp_path / "out.jsonl"
    before = {line["id"]: line for line in written(out)}
    source.write_text(source.read_text().replace('["One.", " "]', '["One.", "Two."]'))
    assert run("--retry-errors") == 1  # one line is still no JSON
    after = {line["id"]: line for line in written(out)}
    assert after["b"]["status"] == "ok"
    assert after["line-4"]["status"] == "error"
    assert {name: after[name] for name in ("a", "line-3", "c")} == {
        name: before[name] for name in ("a", "line-3", "c")
    }
    assert list(tmp_path.glob("*.retrying")) == []


def test_an_empty_object_has_an_error_and_a_number_is_an_id(service_url, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("{}\n" + json.dumps(QUESTION | {"id": 7}) + "\n")
    assert main(["batch", str(source), str(out), "--url", service_url]) == 1
    assert {line["id"]: line["status"] for line in written(out)} == {"line-1": "error", "7": "ok"}


def test_whoever_waits_for_a_service_is_told(source, tmp_path, capsys):
    url = f"http://127.0.0.1:{free_port()}"
    out = str(tmp_path / "out.jsonl")
    assert main(["batch", str(source), out, "--url", url, "--timeout", "0.2"]) == 1
    assert f"nobody answers at {url} yet; asking again for 0.2 s" in capsys.readouterr().err
