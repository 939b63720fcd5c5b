"""Pictures in a terminal, where Pillow is installed."""

from __future__ import annotations

from rich.text import Text

_COLUMNS = 36  # characters; a character is as high as two are wide


def picture(file: str) -> Text | None:
    """The picture in half-block characters, two pixels each; None where it cannot be shown."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        return None
    if file.startswith(("http://", "https://", "data:")):
        return None
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    rows = max(2, round(_COLUMNS * image.height / image.width / 2) * 2)
    small = image.resize((_COLUMNS, rows), Image.Resampling.LANCZOS).tobytes()
    text = Text()
    for y in range(0, rows, 2):
        for x in range(_COLUMNS):
            upper, lower = (_color(small, (at * _COLUMNS + x) * 3) for at in (y, y + 1))
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n")
    return text


def _color(pixels: bytes, at: int) -> str:
    red, green, blue = pixels[at : at + 3]
    return f"rgb({red},{green},{blue})"
