from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import structlog

from service.keys import Keyring, KeysInvalid, digest_of, new_key, read_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_new_key_is_known_and_is_not_in_the_file(file: Path):
    secret = new_key(file, "ci", "team-a", "score", 60)
    [key] = read_keys(file)
    assert (key.name, key.tenant, key.role, key.per_minute) == ("ci", "team-a", "score", 60)
    assert key.sha256 == digest_of(secret)
    assert secret not in file.read_text()
    assert secret.removeprefix("pgrm_") not in file.read_text()
    assert len(secret) >= 48
    assert Keyring(file).holder(secret) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_key_is_another(file: Path):
    made = {new_key(file, f"k{n}", None, "score", None) for n in range(20)}
    assert len(made) == 20
    keyring = Keyring(file)
    holders = [keyring.holder(secret) for secret in made]
    assert {key.name for key in holders if key} == {f"k{n}" for n in range(20)}
    assert {key.tenant for key in holders if key} == {f"k{n}" for n in range(20)}


@pytest.mark.parametrize("presented", ["", " ", "pgrm_", "x" * 100_000, "ünï", "\udcff"])
def test_what_is_no_key_has_no_holder(presented: str, file: Path):
    new_key(file, "ci", None, "score", None)
    assert Keyring(file).holder(presented) is None
    assert Keyring(file).holder(read_keys(file)[0].sha256) is None  # the digest opens nothing


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, 'a"\n[[keys]]', "a:b", "ä"])
def test_a_name_that_is_none_makes_no_key(name: str, file: Path):
    with pytest.raises(KeysInvalid):
        new_key(file, name, None, "score", None)
    assert not file.exists()


def test_a_file_that_ends_in_the_middle_of_a_line_stays_whole(file: Path):
    new_key(file, "ci", None, "score", 3)
    file.write_text(file.read_text().rstrip("\n"))
    new_key(file, "more", None, "score", None)
    assert [key.name for key in read_keys(file)] == ["ci", "more"]


def test_a_file_that_cannot_be_is_told(tmp_path: Path):
    with pytest.raises(KeysInvalid, match="No such file or directory"):
        new_key(tmp_path / "nowhere" / "keys.toml", "ci", None, "score", None)


def test_a_name_is_given_once(file: Path):
    new_key(file, "ci", None, "score", None)
    before = file.read_text()
    with pytest.raises(KeysInvalid, match="has a key named ci already"):
        new_key(file, "ci", "other", "admin", None)
    assert file.read_text() == before


def test_a_key_that_is_taken_out_or_put_in_counts_at_once(file: Path):
    first = new_key(file, "first", None, "score", None)
    keyring = Keyring(file)
    second = new_key(file, "second", None, "score", None)
    touch(file, 1)
    assert keyring.holder(second) is not None
    file.write_text(file.read_text().split("\n\n")[1])
    touch(file, 2)
    assert keyring.holder(first) is None
    assert keyring.holder(second) is not None


def test_an_issued_key_is_in_no_file_and_outlives_changes_of_it(file: Path):
    new_key(file, "first", None, "score", None)
    before = file.read_text()
    keyring = Keyring(file)
    secret = keyring.issue("workers", "default")
    assert file.read_text() == before
    new_key(file, "second", None, "score", None)
    touch(file, 1)
    holder = keyring.holder(secret)
    assert holder is not None
    assert (holder.name, holder.role, holder.per_minute) == ("workers", "admin", None)
    assert Keyring(file).holder(secret) is None


@pytest.mark.parametrize("spoilt", ["no toml", "", 'keys = "x"', "[[keys]]\nname = 5"])
def test_a_file_that_is_spoilt_later_leaves_the_keys_as_they_were(spoilt: str, file: Path):
    secret = new_key(file, "ci", None, "score", None)
    keyring = Keyring(file)
    file.write_text(spoilt)
    touch(file, 1)
    assert keyring.holder(secret) is not None
    file.unlink()
    assert keyring.holder(secret) is not None


def test_a_key_that_was_taken_out_is_out_as_soon_as_the_file_can_be_read(file: Path):
    """Also where the file's time stays what it was when it could not be."""
    left = new_key(file, "left", None, "score", None)
    without = file.read_text()
    gone = new_key(file, "gone", None, "score", None)
    keyring = Keyring(file)
    file.write_text("no toml")
    touch(file, 1)
    changed = file.stat().st_mtime_ns
    assert keyring.holder(gone) is not None
    file.write_text(without)
    os.utime(file, ns=(changed, changed))
    assert keyring.holder(gone) is None
    assert keyring.holder(left) is not None


def test_a_file_that_cannot_be_read_is_told_of_and_not_with_every_request(file: Path):
    secret = new_key(file, "ci", None, "score", None)
    good = file.read_text()
    keyring = Keyring(file)
    structlog.reset_defaults()  # a gateway of another folder's tests may still keep logs quiet
    with structlog.testing.capture_logs() as logged:
        for seconds in (1, 2):
            file.write_text("no toml")
            touch(file, seconds)
            for _ in range(5):
                keyring.holder(secret)
            file.write_text(good)
            touch(file, seconds)
            keyring.holder(secret)
    events = [one["event"] for one in logged]
    assert events == ["keys not read again", "keys read again"] * 2


def touch(file: Path, seconds: int) -> None:
    """A change that the clock of a fast file system would not tell from the one before."""
    changed = file.stat().st_mtime + seconds
    os.utime(file, (changed, changed))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "keys: Field required"),
        ("keys = []", "at least 1 item"),
        ("[[keys", "is no TOML"),
        ('[[keys]]\nname = "a"\ntenant = "t"\nsha256 = "hunter2"', "keys.0.sha256"),
        ('[[keys]]\nname = "a"\ntenant = "t"\nkey = "hunter2"', "keys.0"),
        (('[[keys]]\nname = "a"\ntenant = "t"\nsha256 = "' + "0" * 64 + '"\n') * 2, "name twice"),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused_without_repeating_it(
    content: str | None, said: str, file: Path
):
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysInvalid, match=said) as refused:
        Keyring(file)
    assert "hunter2" not in str(refused.value)
