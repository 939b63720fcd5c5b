"""A drawn world with known answers: data for the embedded release, tests and load."""

from models.toyworld.cases import ToyCase, make_case
from models.toyworld.scene import Scene, SceneObject, draw, random_scene

__all__ = ["Scene", "SceneObject", "ToyCase", "draw", "make_case", "random_scene"]
