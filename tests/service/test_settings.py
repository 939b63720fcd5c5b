from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.settings import CONFIG_VARIABLE, Settings, unknown_variables


def test_the_defaults_listen_on_loopback_and_serve_the_shipped_release():
    settings = Settings()
    assert (settings.host, settings.port, settings.release) == ("127.0.0.1", 8000, "tiny")
    assert settings.engine == "vllm"
    assert settings.redis_url is None
    assert settings.on_loopback


def test_the_environment_sets_sections_with_two_underscores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_ENGINE", "scripted")
    monkeypatch.setenv("PROXY_GRM_ADMISSION__RUNNING", "7")
    monkeypatch.setenv("PROXY_GRM_LIMITS__IMAGE_PIXELS", "1000000")
    settings = Settings()
    assert settings.engine == "scripted"
    assert settings.admission.running == 7
    assert settings.admission.waiting == 1024
    assert settings.limits.image_pixels == 1_000_000


def test_arguments_stand_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text('port = 1001\ndrain_s = 1.5\nlog_level = "error"\n[admission]\nrunning = 3\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("PROXY_GRM_PORT", "1002")
    monkeypatch.setenv("PROXY_GRM_DRAIN_S", "2.5")
    settings = Settings(port=1003)
    assert settings.port == 1003
    assert settings.drain_s == 2.5
    assert settings.log_level == "error"
    assert settings.admission.running == 3


def test_a_section_may_come_from_the_file_and_the_environment_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text("[admission]\nrunning = 3\nwaiting = 4\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("PROXY_GRM_ADMISSION__WAITING", "5")
    admission = Settings().admission
    assert (admission.running, admission.waiting) == (3, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        "prot = 8000\n",
        "[limits]\nbody_byte = 5000\n",
        "[admision]\nrunning = 3\n",
        "[admission]\nrunning = 0\n",
        'engine = "torch"\n',
        "port = 70000\n",
    ],
)
def test_a_file_with_a_wrong_name_or_value_is_refused(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text(wrong)
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROXY_GRM_ADMISSION__RUNING", "3"),
        ("PROXY_GRM_ADMISSION__RUNNING", "0"),
        ("PROXY_GRM_ADMISSION__WAITING", "-1"),
        ("PROXY_GRM_LIMITS__BODY_BYTES", "lots"),
        ("PROXY_GRM_DRAIN_S", "-1"),
        ("PROXY_GRM_VLLM__MEMORY_SHARE", "1.5"),
        ("PROXY_GRM_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_variables_that_no_setting_answers_to_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_PORT", "8000")
    monkeypatch.setenv("PROXY_GRM_LIMITS__BODY_BYTES", "5000")
    monkeypatch.setenv(CONFIG_VARIABLE, "settings.toml")
    monkeypatch.setenv("PROXY_GRM_URL", "http://127.0.0.1:8000")  # the client's
    assert unknown_variables() == []
    monkeypatch.setenv("PROXY_GRM_PROT", "8000")
    monkeypatch.setenv("PROXY_GRM_LIMIT__BODY_BYTES", "5000")
    assert unknown_variables() == [
        "no setting is called PROXY_GRM_LIMIT__BODY_BYTES (did you mean PROXY_GRM_LIMITS?)",
        "no setting is called PROXY_GRM_PROT (did you mean PROXY_GRM_PORT?)",
    ]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("127.evil.example", False),
        ("", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, loopback: bool):
    assert Settings(host=host).on_loopback is loopback


def test_the_redis_url_is_a_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_REDIS_URL", "redis://:hunter2@redis:6379/0")
    settings = Settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:hunter2@redis:6379/0"
    assert "hunter2" not in settings.model_dump_json()
    assert "hunter2" not in repr(settings)


def test_settings_do_not_change_once_read():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 9000  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError):
        settings.admission.running = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_every_setting_says_what_it_is():
    undocumented = [
        f"{name}.{inner}"
        for name, section in Settings.model_fields.items()
        if hasattr(section.annotation, "model_fields")
        for inner, found in section.annotation.model_fields.items()  # pyright: ignore
        if not found.description
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ("judge", ("judge",)),
        ("judge,proxy", ("judge", "proxy")),
        ("proxy", ("judge", "proxy")),
        (" proxy , judge,", ("judge", "proxy")),
        ("", ("judge",)),
    ],
)
def test_the_roles_to_preload_are_names_in_a_row_and_the_judge_is_always_one(
    value: str, roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    assert Settings().preload == ("judge",)
    monkeypatch.setenv("PROXY_GRM_PRELOAD", value)
    assert Settings().preload == roles
    assert unknown_variables() == []


@pytest.mark.parametrize("line", ['preload = ["judge", "proxy"]', 'preload = "judge,proxy"'])
def test_a_file_may_list_the_roles_to_preload(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text(f"{line}\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert Settings().preload == ("judge", "proxy")


@pytest.mark.parametrize("value", ["judges", "judge;proxy", '["judge"]'])
def test_an_unknown_role_to_preload_is_refused(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_PRELOAD", value)
    with pytest.raises(ValidationError, match="preload"):
        Settings()


def test_image_hosts_are_a_row_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_IMAGE_HOSTS", "Images.example, http://minio.example:9000 ,")
    assert Settings().image_hosts == ("images.example", "http://minio.example:9000")


@pytest.mark.parametrize("host", ["https://a.example/path", "*", "a b", "ftp://a", "a:b", "-"])
def test_an_image_host_that_is_no_host_is_refused(host: str):
    with pytest.raises(ValidationError):
        Settings(image_hosts=(host,))


EVALUATOR = """
[evaluators.gpt]
kind = "mine:Judge"
weight = 2.5
[evaluators.gpt.options]
url = "http://127.0.0.1:9000"
"""


def test_an_evaluator_is_in_the_file_and_its_key_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text(EVALUATOR)
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("PROXY_GRM_EVALUATORS__GPT__API_KEY", "hunter2")
    found = Settings().evaluators["gpt"]
    assert (found.kind, found.weight) == ("mine:Judge", 2.5)
    assert found.options == {"url": "http://127.0.0.1:9000"}
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in Settings().model_dump_json()


def test_a_key_in_the_file_is_refused_with_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "settings.toml"
    file.write_text('[evaluators.gpt]\nkind = "self"\napi_key = "hunter2"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(SettingsError, match="set PROXY_GRM_EVALUATORS__GPT__API_KEY") as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "evaluators",
    [
        {"GPT": {"kind": "self"}},
        {"my-gpt": {"kind": "self"}},
        {"a__b": {"kind": "self"}},
        {"": {"kind": "self"}},
        {"x": {}},
        {"x": {"kind": "self", "weight": -1}},
        {"x": {"kind": "self", "options": {"api_key": "hunter2"}}},
    ],
)
def test_an_evaluator_that_no_variable_could_name_or_that_is_wrong_is_refused(
    evaluators: dict[str, object],
):
    with pytest.raises(ValidationError):
        Settings(evaluators=evaluators)  # pyright: ignore[reportArgumentType]


def test_servers_of_a_remote_engine_stand_in_a_row_a_role(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_ENGINE", "remote")
    monkeypatch.setenv("PROXY_GRM_ENGINE_URLS", "judge=http://a:8000, http://b:8000;proxy=http://c")
    assert Settings().engine_urls == {
        "judge": ("http://a:8000", "http://b:8000"),
        "proxy": ("http://c",),
    }


@pytest.mark.parametrize(
    "urls",
    [
        "",
        "proxy=http://a",
        "judge=",
        "judge=a:8000",
        "jugde=http://a",
        "http://a",
        "judge=http://a/v1",
    ],
)
def test_a_remote_engine_without_a_judges_server_is_refused(
    urls: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROXY_GRM_ENGINE", "remote")
    monkeypatch.setenv("PROXY_GRM_ENGINE_URLS", urls)
    with pytest.raises(ValidationError):
        Settings()


def test_a_second_release_has_servers_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_ENGINE", "remote")
    monkeypatch.setenv("PROXY_GRM_ENGINE_URLS", "judge=http://a")
    monkeypatch.setenv("PROXY_GRM_ROLLOUT__RELEASE", "/releases/next")
    with pytest.raises(ValidationError, match=r"rollout\.engine_urls"):
        Settings()
    monkeypatch.setenv("PROXY_GRM_ROLLOUT__ENGINE_URLS", "judge=http://b,http://c")
    monkeypatch.setenv("PROXY_GRM_ROLLOUT__PERCENT", "5")
    rollout = Settings().rollout
    assert (rollout.release, rollout.percent) == ("/releases/next", 5)
    assert rollout.engine_urls == {"judge": ("http://b", "http://c")}


def test_a_second_release_does_not_fit_beside_an_engine_in_process(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PROXY_GRM_ROLLOUT__RELEASE", "/releases/next")
    with pytest.raises(ValidationError, match="need engine remote"):
        Settings()


def test_places_that_jobs_may_be_read_from_are_prefixes_in_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_JOB_SOURCES", "file:///data/pairs, s3://bucket/pairs")
    assert Settings().job_sources == ("file:///data/pairs", "s3://bucket/pairs")


@pytest.mark.parametrize("place", ["/data", "http://host/", "file://", "file:///a*", "memory://x"])
def test_a_place_that_is_no_plain_prefix_is_refused(place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_JOB_SOURCES", place)
    with pytest.raises(ValidationError):
        Settings()
