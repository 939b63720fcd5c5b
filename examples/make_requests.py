"""Writes the ready-made request bodies of this folder: scene.json and cat.json.

Run from the repository root: ``.venv/bin/python examples/make_requests.py``
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from models.toyworld.scene import SceneObject, arrange, draw

HERE = Path(__file__).parent

SCENE = arrange(
    [
        SceneObject("circle", "red", "large", 0, 1),
        SceneObject("square", "green", "small", 1, 3),
        SceneObject("triangle", "black", "large", 2, 0),
        SceneObject("circle", "red", "small", 3, 2),
        SceneObject("star", "blue", "large", 3, 0),
        SceneObject("7", "purple", "large", 1, 0),
    ]
)


def write_request(name: str, picture: str, question: str, responses: list[str]) -> None:
    """One body for ``POST /score``, its picture inside."""
    data = base64.b64encode((HERE / picture).read_bytes()).decode()
    body = {"question": question, "images": [{"data": data}], "responses": responses}
    (HERE / name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Draws the scene and writes both bodies."""
    draw(SCENE).save(HERE / "scene.png", optimize=True)
    write_request(
        "scene.json",
        "scene.png",
        "How many red circles are there? Which digit is purple? "
        "I care more for the number than the digit.",
        ["There are 2. It is 1.", "There are 3. It is 7."],
    )
    write_request(
        "cat.json",
        "cat.jpg",
        "What animal is in the picture, and what is it doing?",
        [
            "A ginger cat looks past the camera.",
            "Two dogs are playing with a ball on the beach.",
        ],
    )


if __name__ == "__main__":
    main()
