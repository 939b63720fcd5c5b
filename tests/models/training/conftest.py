"""Miniatures of the published sets, in every layout that they have."""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from models.prompts import read_prompts
from models.training.data.records import JudgedRecord, PreferenceRecord, TeacherJudgement
from models.training.tiny import PROMPTS_DIR

MakeImage = Callable[..., bytes]

INTRODUCTION = (
    "<image>\nGiven an image and a corresponding question, please serve as an unbiased and fair "
    "judge to evaluate the quality of the answers provided by a Large Multimodal Model (LMM). "
    "Determine which answer is better. Your task is provided as follows:\n"
)
ARENA = (
    "<image>\nPlease act as an impartial judge.\n\n<|User Prompt|>\n{question}\n\n"
    "<|The Start of Assistant A's Answer|>\n{first}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{second}\n<|The End of Assistant B's Answer|>"
)


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Draws a picture; each number gives another one."""

    def make(number: int, size: tuple[int, int] = (64, 48), form: str = "JPEG") -> bytes:
        rng = random.Random(number)
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        for _ in range(6):
            x, y = rng.randrange(size[0]), rng.randrange(size[1])
            colour = tuple(rng.randrange(256) for _ in range(3))
            draw.rectangle((x, y, x + rng.randrange(8, 30), y + rng.randrange(8, 30)), colour)
        file = io.BytesIO()
        image.save(file, form)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def bracketed() -> Callable[..., str]:
    """The prompt of a critic, with the responses called as asked."""

    def prompt(question: str, first: str, second: str, names: tuple[str, str]) -> str:
        return (
            f"{INTRODUCTION}Question: [{question}]\n{names[0]}: [{first}]\n"
            f"{names[1]}: [{second}]\nASSISTANT:\n"
        )

    return prompt


@pytest.fixture(scope="session")
def arena() -> Callable[[str, str, str], str]:
    """The prompt of an arena's judge."""
    return lambda question, first, second: ARENA.format(
        question=question, first=first, second=second
    )


@pytest.fixture
def record() -> Callable[..., PreferenceRecord]:
    """A record that passes every filter, but for what is given."""

    def make(number: int = 0, **fields: Any) -> PreferenceRecord:
        given: dict[str, Any] = {
            "id": f"r{number}",
            "source": "toy",
            "question": f"What stands in corner {number}?",
            "responses": (f"A red circle, number {number}.", f"Nothing at all, {number}."),
            "label": 1,
        }
        return PreferenceRecord.model_validate(given | fields)

    return make


@pytest.fixture
def judged(record: Callable[..., PreferenceRecord]) -> Callable[..., JudgedRecord]:
    """A record that a teacher judged, rightly or not."""

    def make(number: int = 0, right: bool = True, **fields: Any) -> JudgedRecord:
        plain = record(number, **fields)
        verdict = plain.label if right else 3 - plain.label
        teacher = TeacherJudgement.model_validate(
            {"rubric": "1. Truth (100%)", "evaluation": "…", "verdict": verdict, "model": "t"}
        )
        return JudgedRecord(**dict(plain), teacher=teacher)

    return make


@pytest.fixture
def published(
    tmp_path: Path, make_image: MakeImage, bracketed: Callable[..., str], arena: Callable[..., str]
) -> dict[str, Path]:
    """A folder for each published set, by the name of its format, as ``hf download`` leaves it."""
    root = tmp_path / "published"
    folders = {name: root / name for name in ("llava-critic", "rlaif-v", "rlhf-v", "mmif")}
    critic_pairs(folders["llava-critic"], make_image, bracketed, arena)
    rlaif_v(folders["rlaif-v"], make_image)
    rlhf_v(folders["rlhf-v"], make_image)
    mmif(folders["mmif"], make_image)
    return folders


def critic_pairs(folder: Path, make_image: MakeImage, bracketed: Any, arena: Any) -> None:
    names = ("The first response", "The second response")
    one, two = ("Response 1", "Response 2"), ("Response A", "Response B")
    rows = [
        (bracketed("Which animal?", "A cat.", "A dog.", names),
         "The better response: [first]. It names the cat."),
        (bracketed("How many?", "Two.", "Three.", one), "The better response: [2]. I see three."),
        (bracketed("What colour?", "Red.", "Blue.", two), "The better response: [A]. It is red."),
        (bracketed("Why?", "As.", "So.", one), "Two responses are equally good. Both fail."),
        (arena("Describe it.", "A barn.", "A boat."), "…\nMy final verdict is: [[B>>A]]"),
        (arena("Describe it now.", "A barn.", "A boat."), "…\nMy final verdict is: [[A=B]]"),
        (bracketed("Where?", "Here.", "There.", one), "I would rather not say."),
    ]  # fmt: skip
    write_critic(folder / "pairwise" / "train-00000-of-00001.parquet", rows, make_image)
    scored = f"{INTRODUCTION}Question: [What?]\nThe LMM response: [A cat.]\nASSISTANT:\n"
    write_critic(
        folder / "pointwise" / "train-00000-of-00001.parquet", [(scored, "80")], make_image
    )
    (folder / "README.md").write_text("# A set\n")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "seen.json").write_text("{}")


def write_critic(file: Path, rows: list[tuple[str, str]], make_image: MakeImage) -> None:
    write_parquet(file, [
        {
            "id": f"vlfeedback_{number}",
            "source": "vlfeedback",
            "conversations": [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}],
            "image": {"bytes": make_image(number), "path": None},
        }
        for number, (human, gpt) in enumerate(rows)
    ])  # fmt: skip


def rlaif_v(folder: Path, make_image: MakeImage) -> None:
    for shard in range(2):
        write_parquet(folder / f"RLAIF-V-Dataset_00{shard}.parquet", [
            {
                "ds_name": "RLAIF-V",
                "image": {"bytes": make_image(100 + number // 2), "path": f"{number}.jpg"},
                "question": f"What is shown in part {number}?",
                "chosen": f"A barn with {number} windows.",
                "rejected": f"A boat with {number} sails, far out at sea.",
                "origin_dataset": "COCO",
                "origin_split": json.dumps({"model": "x"}),
                "idx": number,
                "image_path": f"{number}.jpg",
            }
            for number in range(shard * 4, shard * 4 + 4)
        ])  # fmt: skip


def rlhf_v(folder: Path, make_image: MakeImage) -> None:
    write_parquet(folder / "rlhf-v.parquet", [
        {
            "conversations": [{"from": "human", "value": f"<image>Who is person {number}?"}],
            "chosen": {"from": "gpt", "value": f"Person {number} cannot be named."},
            "rejected": {"from": "gpt", "value": f"It is Jane, the {number}th."},
            "images": [{"bytes": make_image(200 + number, form="PNG"), "path": None}],
        }
        for number in range(3)
    ])  # fmt: skip


def mmif(folder: Path, make_image: MakeImage) -> None:
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number in range(3):
        (folder / "images" / f"{number}.jpg").write_bytes(make_image(300 + number))
        rows.append({
            "images": [f"images/{number}.jpg"],
            "conversations": [{"from": "human", "value": f"<image>\nWrite {number} lines."}],
            "chosen": {"from": "gpt", "value": "line\n" * number + "end"},
            "rejected": {"from": "gpt", "value": f"No lines, {number} times over."},
        })  # fmt: skip
    (folder / "mmif_dpo.json").write_text(json.dumps(rows, indent=2))


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.fixture(scope="session")
def tiny_prompts() -> Path:
    """The embedded release's prompt files."""
    return PROMPTS_DIR


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, tiny_prompts: Path) -> Path:
    """The embedded release's network before any training, with a tokenizer made of few cases."""
    import torch

    from models.training.tiny import network

    torch.set_num_threads(1)  # for runs that are compared bit by bit, and on busy machines
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    tokenizer = network.build_tokenizer(read_prompts(tiny_prompts), seed=0, cases=200)
    network.save(folder, network.build_model(tokenizer), network.build_processor(tokenizer))
    return folder


@pytest.fixture(scope="session")
def processor(untrained: Path) -> Any:
    """Of the untrained network."""
    from transformers import Qwen2_5_VLProcessor

    return Qwen2_5_VLProcessor.from_pretrained(untrained)


@pytest.fixture(scope="session")
def jobs() -> Any:
    """`models.training.jobs`, on one thread."""
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL imports vLLM, and both warn while they are imported
        from models.training import jobs
    return jobs
