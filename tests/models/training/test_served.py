from __future__ import annotations

import contextlib

import httpx
import psutil
import pytest

from models.training.errors import ServiceFailed
from models.training.served import served


def services():
    """Gateways that are running as children of this process."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "gateway" in child.cmdline():
                found.add(child.pid)
    return found


def is_answering(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/livez", timeout=5).status_code == 200
    return False


def test_a_release_that_does_not_exist_names_the_log(tmp_path):
    before = services()
    workspace = tmp_path / "deep" / "work"
    with (
        pytest.raises(ServiceFailed, match=f"status 2: see {workspace / 'service.log'}"),
        served(tmp_path / "absent", workspace, ENGINE="scripted"),
    ):
        pytest.fail("it was ready")
    assert "no release" in (workspace / "service.log").read_text()
    assert services() == before


def test_a_setting_that_does_not_exist_is_told_in_the_log(tmp_path):
    with (
        pytest.raises(ServiceFailed, match="status 2"),
        served(tmp_path, tmp_path / "work", ENGIN="scripted"),
    ):
        pytest.fail("it was ready")
    assert "PROXY_GRM_ENGIN " in (tmp_path / "work" / "service.log").read_text()


def test_one_that_takes_too_long_is_ended(release_folder, tmp_path):
    before = services()
    with (
        pytest.raises(ServiceFailed, match=r"not ready after 0 s: see .*service\.log"),
        served(release_folder, tmp_path / "work", wait_s=0, ENGINE="scripted"),
    ):
        pytest.fail("it was ready")
    assert services() == before


def test_it_is_ready_inside_the_block_and_gone_after_it(release_folder, tmp_path):
    before = services()
    with served(release_folder, tmp_path / "work", ENGINE="scripted") as url:
        assert len(services() - before) == 1
        assert is_answering(url)
        asked = {"question": "Which?", "responses": ["One.", "Two."]}
        answer = httpx.post(f"{url}/score", json=asked, timeout=60).json()
        assert answer["release"]["name"] == "small"
    assert services() == before
    assert not is_answering(url)
    assert (tmp_path / "work" / "state").is_dir()


def test_an_error_of_the_job_ends_it_too_and_is_passed_on(release_folder, tmp_path):
    before = services()

    def job():
        with served(release_folder, tmp_path / "work", ENGINE="scripted"):
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        job()
    assert services() == before


def test_two_run_beside_each_other(release_folder, tmp_path):
    with (
        served(release_folder, tmp_path / "one", ENGINE="scripted") as one,
        served(release_folder, tmp_path / "two", ENGINE="scripted") as two,
    ):
        assert one != two
        assert is_answering(one)
        assert is_answering(two)
