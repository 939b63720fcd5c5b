from __future__ import annotations

import pytest

from models.release import Release
from service.engines.scripted import ScriptedEngine
from service.evaluators import Surroundings
from service.judging import Judge


@pytest.fixture
def engine() -> ScriptedEngine:
    """The judge's."""
    return ScriptedEngine()


@pytest.fixture
def around(release: Release, engine: ScriptedEngine) -> Surroundings:
    """What a gateway whose release has no proxy lends."""
    return Surroundings(release, Judge(release.judge, engine), None)
