from __future__ import annotations

from collections import Counter

from PIL import Image

from models.comparison import JudgeImage
from models.prompts import FilledPrompt
from service.engines.affinity import overloaded, prefix_key, ranked

FOUR = ["a", "b", "c", "d"]


def prompt(picture: str | None, text: str = "q") -> FilledPrompt:
    image = (JudgeImage(Image.new("RGB", (28, 28)), picture),) if picture else ()
    return FilledPrompt("system", (*image, text))


def test_what_is_asked_about_the_same_pictures_has_the_same_key_whatever_is_asked():
    assert prefix_key(prompt("p", "one")) == prefix_key(prompt("p", "two"))
    assert prefix_key(prompt("p")) != prefix_key(prompt("other"))
    assert prefix_key(prompt(None, "one")) != prefix_key(prompt(None, "two"))


def test_keys_spread_over_the_replicas():
    firsts = Counter(ranked(f"key {n}", FOUR, str)[0] for n in range(4000))
    assert set(firsts) == set(FOUR)
    assert all(800 < count < 1200 for count in firsts.values())


def test_the_order_of_the_list_does_not_matter():
    assert ranked("key", FOUR, str) == ranked("key", FOUR[::-1], str)


def test_when_a_replica_goes_only_its_own_keys_move_and_to_their_second_choice():
    for number in range(1000):
        key = f"key {number}"
        first, second, *_ = ranked(key, FOUR, str)
        left = ranked(key, [one for one in FOUR if one != "c"], str)
        assert left[0] == (second if first == "c" else first)


def test_a_replica_is_overloaded_when_it_has_much_more_to_do_than_the_others():
    assert not overloaded(8, [8, 0, 0, 0])
    assert not overloaded(50, [50, 40, 40])
    assert overloaded(40, [40, 1, 1, 1])
    assert not overloaded(1000, [1000])
