"""Sets that name the better response: RLAIF-V, RLHF-V, MMIF-23k. It always comes first."""

from __future__ import annotations

from models.training.data.drops import DropReason
from models.training.data.readers.pair import Fields, NotAPair, Pair, kept, text, turns


def parse_rlaif_v(fields: Fields) -> Pair:
    """The pair of a row of openbmb/RLAIF-V-Dataset.

    Raises:
        NotAPair: a field is missing.
    """
    return Pair(
        text(fields, "question"),
        fields.get("image"),
        (text(fields, "chosen"), text(fields, "rejected")),
        label=1,
        meta=kept(fields, "ds_name", "idx", "origin_dataset", "origin_split", "image_path"),
    )


def parse_sharegpt(fields: Fields) -> Pair:
    """The pair of a row of llamafactory/RLHF-V or ChrisDing1105/MMIF-23k.

    Raises:
        NotAPair: a field is missing, or the question is a longer conversation.
    """
    conversation = turns(fields)
    if len(conversation) != 1:
        raise NotAPair(DropReason.MALFORMED, f"{len(conversation)} turns instead of one question")
    return Pair(
        text(conversation[0], "value"),
        fields.get("images"),
        (text(fields, "chosen.value"), text(fields, "rejected.value")),
        label=1,
        meta=kept(fields, "id", "idx"),
    )
