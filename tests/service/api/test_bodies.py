from __future__ import annotations

import pytest

from service.api.bodies import Bodies
from service.errors import Overloaded
from service.settings import AdmissionSettings


@pytest.fixture
def bodies() -> Bodies:
    return Bodies(AdmissionSettings(running=1, waiting=1, bodies_bytes=2048, uploads=1))


def test_bodies_share_the_bytes_that_there_are(bodies: Bodies):
    first, second = bodies.hold(), bodies.hold()
    first.grow(2000)
    with pytest.raises(Overloaded):
        second.grow(49)
    second.grow(48)
    first.release()
    second.grow(2000)


def test_no_more_requests_are_read_than_can_be_admitted_or_wait(bodies: Bodies):
    held = [bodies.hold(), bodies.hold()]
    with pytest.raises(Overloaded):
        bodies.hold()
    held[0].release()
    held[0].release()  # once is enough
    bodies.hold()
    with pytest.raises(Overloaded):
        bodies.hold()


def test_uploads_are_counted_apart(bodies: Bodies):
    with bodies.upload():
        bodies.hold()
        with pytest.raises(Overloaded), bodies.upload():
            pass
    with bodies.upload():
        pass
