"""The command line, as far as it needs no process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.release import SHIPPED_DIR
from service.__main__ import main
from service.keys import Keyring


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must be refused and returns what it says."""
    assert main([*arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    return printed.err


def test_check_config_prints_the_settings_in_force_with_secrets_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PROXY_GRM_REDIS_URL", "redis://:hunter2@redis:6379/0")
    monkeypatch.setenv("PROXY_GRM_ADMISSION__RUNNING", "9")
    assert main(["check-config"]) == 0
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err
    shown = json.loads(printed.out)
    assert shown["redis_url"] == "**********"
    assert (shown["admission"]["running"], shown["admission"]["waiting"]) == (9, 1024)
    assert shown["port"] == 8000


def test_a_misspelt_variable_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PROXY_GRM_RELAESE", "tiny")
    assert "PROXY_GRM_RELAESE" in refusal(capsys, "check-config")


def test_a_misspelt_variable_inside_a_section_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PROXY_GRM_ADMISSION__RUNING", "9")
    assert "admission.runing" in refusal(capsys, "check-config")


def test_a_wrong_value_is_refused_without_showing_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PROXY_GRM_REDIS_URL", "redis://:hunter2@redis:6379/0")
    monkeypatch.setenv("PROXY_GRM_PORT", "eighty")
    said = refusal(capsys, "check-config")
    assert "port: " in said
    assert "hunter2" not in said


def test_a_section_that_is_not_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PROXY_GRM_LIMITS", "{oops")
    assert "limits" in refusal(capsys, "check-config").lower()


def test_a_settings_file_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("PROXY_GRM_CONFIG", str(tmp_path / "absent.toml"))
    assert "PROXY_GRM_CONFIG" in refusal(capsys, "check-config")


def test_a_settings_file_that_is_no_toml_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text("port: 8000\n")
    monkeypatch.setenv("PROXY_GRM_CONFIG", str(file))
    assert "PROXY_GRM_CONFIG" in refusal(capsys, "check-config")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_address_that_others_can_reach_is_refused_with_advice(
    host: str, capsys: pytest.CaptureFixture[str]
):
    said = refusal(capsys, "gateway", "--host", host)
    assert f"refusing to listen on {host}" in said
    assert "127.0.0.1" in said


def test_an_engine_that_others_can_reach_needs_a_key_of_its_own(
    capsys: pytest.CaptureFixture[str],
):
    said = refusal(capsys, "engine", "--host", "0.0.0.0")
    assert "PROXY_GRM_ENGINE_API_KEY" in said


def test_an_engine_for_a_proxy_that_the_release_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    shutil.copytree(SHIPPED_DIR / "tiny" / "judge", tmp_path / "alone")
    monkeypatch.setenv("PROXY_GRM_RELEASE", str(tmp_path / "alone"))
    assert "'alone' has no proxy" in refusal(capsys, "engine", "--role", "proxy")


@pytest.mark.parametrize("arguments", [[], ["gatewya"], ["gateway", "--port", "x"]])
def test_a_wrong_command_line_ends_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m service" in capsys.readouterr().err


def test_a_new_key_is_printed_once_and_is_known_afterwards(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "keys.toml"
    assert main(["new-key", "ci", "--tenant", "team-a", "--file", str(file)]) == 0
    secret = capsys.readouterr().out.strip()
    holder = Keyring(file).holder(secret)
    assert holder is not None
    assert (holder.name, holder.tenant, holder.role) == ("ci", "team-a", "score")
    assert "has a key named ci already" in refusal(capsys, "new-key", "ci", "--file", str(file))


def test_a_key_needs_a_file_to_go_to(capsys: pytest.CaptureFixture[str]):
    assert "PROXY_GRM_API_KEYS_FILE" in refusal(capsys, "new-key", "ci")


def test_a_file_of_keys_that_is_none_stops_the_gateway_from_starting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("PROXY_GRM_API_KEYS_FILE", str(tmp_path / "absent.toml"))
    said = refusal(capsys, "gateway", "--host", "0.0.0.0", "--port", "0")
    assert "absent.toml" in said
