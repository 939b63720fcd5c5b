"""What the data jobs hand to one another: preference pairs, and pairs that a teacher judged."""

from __future__ import annotations

import random
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.comparison import Position, other
from models.rubric import Rubric

Text = Annotated[str, Field(min_length=1)]


class ImageRef(BaseModel):
    """One image, by exactly one of two ways.

    Attributes:
        path: a file, relative to the folder of the record file.
        data: base64 of the encoded bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    data: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.path is None) == (self.data is None):
            raise ValueError("an image has either a path or data")
        return self


class PreferenceRecord(BaseModel):
    """One labeled pair, as a line of JSONL or a row of Parquet.

    Attributes:
        id: unique within a data set.
        source: the data set it came from.
        responses: in the order a judge will read them.
        label: which response is better, 1 or 2.
        meta: whatever else the source said; never shown to a judge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
    source: Text
    question: Text
    images: tuple[ImageRef, ...] = ()
    responses: tuple[Text, Text]
    label: Position
    meta: dict[str, Any] = {}

    def swap(self) -> Self:
        """The other order; the label moves with its response."""
        first, second = self.responses
        return self.model_copy(update={"responses": (second, first), "label": other(self.label)})

    def shuffle_order(self, seed: int) -> Self:
        """Either order with even odds, decided by the seed and the id alone.

        Most published sets put the better response first nearly always.
        """
        return self.swap() if random.Random(f"{seed}/order/{self.id}").random() < 0.5 else self


class TeacherJudgement(BaseModel):
    """What a teacher wrote about a pair, read by the judgement grammar.

    Attributes:
        verdict: the teacher's own, which may differ from the label.
        model: the teacher's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rubric: Text
    justification: str | None = None
    evaluation: str
    verdict: Position
    model: Text
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def as_rubric(self) -> Rubric:
        """The rubric as an evaluator is given it."""
        return Rubric(self.rubric, self.justification)


class JudgedRecord(PreferenceRecord):
    """A pair with its teacher's judgement of it."""

    teacher: TeacherJudgement

    @property
    def teacher_is_right(self) -> bool:
        """Whether the teacher's verdict is the label: such pairs teach, the others are hard."""
        return self.teacher.verdict == self.label

    def swap(self) -> Self:
        """Refused: the teacher's evaluation names the responses by their places.

        Raises:
            TypeError: always.
        """
        raise TypeError("a judged record keeps its order; swap before the teacher reads it")
