"""What is asked: drawn cases, as ``/score`` takes them."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from typing import Any

from models.toyworld import make_case

RUBRIC = "1. Accuracy (100%): it says what the picture shows."


def drawn(count: int) -> list[dict[str, Any]]:
    """So many different comparisons, the same ones each time."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        case = make_case(random.Random(number))
        png = io.BytesIO()
        case.picture().save(png, format="PNG")
        found.append(
            {
                "question": case.question,
                "responses": list(case.responses),
                "images": [{"data": base64.b64encode(png.getvalue()).decode()}],
            }
        )
    return found


def encoded(bodies: Sequence[dict[str, Any]], **options: Any) -> list[bytes]:
    """As they are sent, with options of ``/score``; never answered from the cache unless asked."""
    return [json.dumps({"cache": "bypass"} | body | options).encode() for body in bodies]
