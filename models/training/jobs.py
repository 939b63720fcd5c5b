"""The training jobs: a recipe in, a finished run folder out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import SaveStrategy
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig

from models.prompts import read_prompts
from models.toyworld.words import LABEL_WORDS
from models.training.callbacks import KeepCurves, MarkComplete, ShowProgress, StopWhenDiverged
from models.training.collate import ExampleCollator
from models.training.errors import RecipeInvalid
from models.training.examples import Example
from models.training.grpo import AsksProxy, JudgementReward, ServedProxy, lazy_tasks
from models.training.processes import is_first_process, spread_by_accelerate
from models.training.recipe import RECIPES_DIR, GrpoRecipe, LookRecipe, SftRecipe
from models.training.resuming import LoadsWeightsByTheirNames
from models.training.rewards import AGGREGATIONS
from models.training.run_folder import RunFolder
from models.training.sources import example_maker, task_maker
from models.training.supervised import WeightedSftTrainer, lazy_examples


class _Grpo(LoadsWeightsByTheirNames, GRPOTrainer):
    pass


A = TypeVar("A", SFTConfig, GRPOConfig)


def sft(recipe: SftRecipe) -> Path:
    """Fine-tunes a judge or a proxy on examples; returns the finished model's folder."""
    folder = RunFolder(recipe.run)
    folder.claim(recipe)
    if folder.is_finished:
        return folder.model
    processor = _processor(recipe)
    control_tokens = processor.tokenizer.get_added_vocab()
    number, make = example_maker(recipe.data, recipe.role, control_tokens)
    arguments = sft_arguments(recipe)
    model = _network(recipe, arguments)
    stop = StopWhenDiverged(recipe.watch)
    collated = (processor, LABEL_WORDS, recipe.label_weight, arguments.max_length)
    others: dict[str, Any] = {
        "lengths": _lengths(recipe, number, make),
        "muon": recipe.muon,
        "callbacks": _watched(recipe, f"sft {recipe.role}", stop),
    }
    examples = lazy_examples(number, make)
    if recipe.hint_weight:
        from models.training.tiny.hints import HintCollator, HintedSftTrainer

        others["hint_weight"] = recipe.hint_weight
        trainer = HintedSftTrainer(model, arguments, HintCollator(*collated), examples, **others)
    else:
        collate = ExampleCollator(*collated)
        trainer = WeightedSftTrainer(model, arguments, collate, examples, **others)
    trainer.remove_callback(PrinterCallback)
    folder.train(trainer, stop)
    trainer.discard_probes()
    return folder.finish(trainer)


def look(recipe: LookRecipe) -> Path:
    """Builds the embedded network and teaches it to see; returns the finished model's folder."""
    from models.training.tiny import network
    from models.training.tiny.look import LookCollator, LookTrainer, look_examples

    folder = RunFolder(recipe.run)
    folder.claim(recipe)
    if folder.is_finished:
        return folder.model
    torch.manual_seed(recipe.seed)
    tokenizer = network.build_tokenizer(read_prompts(recipe.prompts), recipe.seed)
    processor, model = network.build_processor(tokenizer), network.build_model(tokenizer)
    stop = StopWhenDiverged(recipe.watch)
    trainer = LookTrainer(
        model,
        sft_arguments(recipe),
        LookCollator(processor, LABEL_WORDS, recipe.label_weight),
        look_examples(recipe.scenes, recipe.seed, recipe.facts),
        recipe.probe_weight,
        muon=recipe.muon,
        callbacks=_watched(recipe, "look", stop),
    )
    trainer.remove_callback(PrinterCallback)
    folder.train(trainer, stop)
    trainer.discard_probes()
    return folder.finish(trainer)


def grpo(recipe: GrpoRecipe, proxy: AsksProxy | None = None) -> Path:
    """Improves a judge or a proxy by its rollouts; returns the finished model's folder.

    Args:
        recipe: what to do.
        proxy: asked instead of the service at `recipe.proxy_url`.
    """
    folder = RunFolder(recipe.run)
    folder.claim(recipe)
    if folder.is_finished:
        return folder.model
    processor = _processor(recipe)
    processor.tokenizer.padding_side = "left"  # TRL lays its prompts beside what this pads
    control_tokens = processor.tokenizer.get_added_vocab()
    tasks = lazy_tasks(*task_maker(recipe.data, recipe.role, control_tokens))
    arguments = grpo_arguments(recipe)
    model = _network(recipe, arguments)
    if proxy is None and recipe.proxy_url is not None:
        proxy = ServedProxy(recipe.proxy_url, recipe.proxy_concurrency)
    stop = StopWhenDiverged(recipe.watch)
    reward: Any = JudgementReward(AGGREGATIONS[recipe.aggregation], proxy)
    trainer = _Grpo(
        model,
        reward_funcs=[reward],
        args=_without_pictures(arguments, processor),
        train_dataset=tasks,
        processing_class=processor,
        callbacks=_watched(recipe, f"grpo {recipe.role}", stop),
    )
    trainer.remove_callback(PrinterCallback)
    folder.train(trainer, stop)
    return folder.finish(trainer)


def grpo_arguments(recipe: GrpoRecipe) -> GRPOConfig:
    """The trainer's own arguments.

    Raises:
        RecipeInvalid: the trainer refuses one of them, or checkpoints would fall between two
            generations.
    """
    arguments = _built(GRPOConfig, _shared(recipe.run) | recipe.train)
    boundary = (arguments.steps_per_generation or 1) * arguments.num_iterations
    # Both in passes of the network, of which an update has several.
    boundary //= math.gcd(boundary, arguments.gradient_accumulation_steps)
    saves = arguments.save_strategy != SaveStrategy.NO
    if saves and arguments.save_steps % boundary:
        raise RecipeInvalid(
            f"train.save_steps is {arguments.save_steps}: it must be a multiple of {boundary}, "
            "because rollouts are not checkpointed and a run goes on from a generation's start"
        )
    return arguments


def sft_arguments(recipe: SftRecipe | LookRecipe) -> SFTConfig:
    """The trainer's own arguments: the recipe's over a few that every run shares.

    Raises:
        RecipeInvalid: the trainer does not know one of them, or refuses it.
    """
    return _built(SFTConfig, _shared(recipe.run) | {"max_length": None} | recipe.train)


def _processor(recipe: SftRecipe | GrpoRecipe) -> Qwen2_5_VLProcessor:
    try:
        return Qwen2_5_VLProcessor.from_pretrained(recipe.model)
    except (OSError, ValueError) as cause:  # of a folder that is not there, or no such hub id
        raise RecipeInvalid(f"model: {recipe.model} cannot be read: {cause}") from cause


def _network(
    recipe: SftRecipe | GrpoRecipe, arguments: SFTConfig | GRPOConfig
) -> Qwen2_5_VLForConditionalGeneration:
    """The model to train, in float32 unless the optimizer keeps float32 weights of its own.

    Steps of 5e-6 and less are lost in bfloat16; `train.bf16` computes in it all the same.
    """
    its_own = arguments.deepspeed or arguments.fsdp or spread_by_accelerate()
    kind = "auto" if its_own else torch.float32
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(recipe.model, dtype=kind)


def _without_pictures(arguments: GRPOConfig, processor: Qwen2_5_VLProcessor) -> GRPOConfig:
    """Forbids rollouts the tokens that stand for pictures.

    A rollout with one of them has a picture too many for the network, and the run would end.
    """
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    forbidden: list[int] = processor.tokenizer.convert_tokens_to_ids(list(names))
    given: Any = arguments.generation_kwargs or {}
    asked: dict[str, Any] = {**given}
    if arguments.use_vllm:
        asked["logit_bias"] = asked.get("logit_bias", {}) | dict.fromkeys(forbidden, -100.0)
    else:
        asked["suppress_tokens"] = [*asked.get("suppress_tokens", ()), *forbidden]
    arguments.generation_kwargs = asked
    return arguments


def _built(kind: type[A], arguments: dict[str, Any]) -> A:
    shipped = RECIPES_DIR / "deepspeed" / f"{arguments.get('deepspeed')}.json"
    if shipped.is_file():
        arguments = arguments | {"deepspeed": str(shipped)}
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as cause:
        raise RecipeInvalid(f"[train]: {cause}") from cause
    except ImportError as cause:
        hint = "DeepSpeed is installed from requirements/deepspeed.txt"
        raise RecipeInvalid(f"[train]: {str(cause).strip()} {hint}") from cause


def _lengths(recipe: SftRecipe, number: int, make: Callable[[int], Example]) -> list[int] | None:
    # Of drawn cases all lengths are known in a minute; of records each picture would be decoded.
    drawn = recipe.data.source == "toyworld"
    return [make(index).length for index in range(number)] if drawn else None


def _shared(run: Path) -> dict[str, Any]:
    return {
        "output_dir": str(run),
        "report_to": "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # a loss that is no number has to be seen
        "save_total_limit": 2,
    }


def _watched(
    recipe: SftRecipe | LookRecipe | GrpoRecipe, title: str, stop: StopWhenDiverged
) -> list[Any]:
    if not is_first_process():
        return [MarkComplete(), stop]
    # TensorBoard's callback comes with a writer of its own, so that the events lie in the run.
    board = TensorBoardCallback(SummaryWriter(str(recipe.run / "logs")))
    return [MarkComplete(), ShowProgress(title), stop, board, KeepCurves()]
