from __future__ import annotations

import json
from collections import Counter

from loadtests.drills.manifests.affinity import shared


def test_every_picture_is_asked_about_as_often_and_all_is_mixed_up():
    bodies = [json.loads(body) for body in shared(3)]
    pictures = [body["images"][0]["data"] for body in bodies]
    assert set(Counter(pictures).values()) == {3}
    assert len({body["question"] + body["images"][0]["data"] for body in bodies}) == len(bodies)
    assert pictures != sorted(pictures, key=pictures.index)
    assert {body["cache"] for body in bodies} == {"bypass"}
    assert shared(3) == shared(3)
