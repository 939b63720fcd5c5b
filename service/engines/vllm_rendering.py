"""Prompts to tokens, by vLLM's own renderer: chat template, tokenizer, picture placeholders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from models.comparison import JudgeImage
from models.prompts import FilledPrompt
from service.tenancy import current_tenant

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.renderers import BaseRenderer


class PromptRenderer:
    """What the model will see of a prompt (`models.release_checks.Renderer`)."""

    def __init__(self, renderer: BaseRenderer[Any], config: VllmConfig) -> None:
        self._renderer = renderer
        self._model_config = config.model_config
        self.context_tokens: int = config.model_config.max_model_len

    @classmethod
    def without_engine(cls, config: VllmConfig) -> Self:
        """A renderer alone, to look at prompts without starting an engine."""
        from vllm.renderers import renderer_from_config

        return cls(renderer_from_config(config), config)

    async def render(self, prompt: FilledPrompt, prefill: str = "") -> Any:
        """The prompt as an input for the engine.

        Raises:
            vllm.exceptions.VLLMClientError: it is longer than the context.
        """
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        raw: dict[str, Any] = {"prompt": self._chat_text(prompt) + prefill}
        raw["cache_salt"] = current_tenant()  # else what is cached tells tenants of each other
        if prompt.images:
            raw["multi_modal_data"] = {"image": [image.pixels for image in prompt.images]}
            # Identities come from the bytes, never from a client: they key vLLM's caches.
            raw["multi_modal_uuids"] = {"image": [image.identity for image in prompt.images]}
        parsed = parse_model_prompt(self._model_config, raw)
        # Rendering without submitting (a caller gone in between) would leave the two halves of
        # the multimodal cache in disagreement; encoder and prefix caches apply without it.
        (rendered,) = await self._renderer.render_cmpl_async([parsed], skip_mm_cache=True)
        return rendered

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        """The prompt as token ids, pictures expanded to their placeholders."""
        return list((await self.render(prompt, prefill))["prompt_token_ids"])

    def _chat_text(self, prompt: FilledPrompt) -> str:
        messages = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": [_part(part) for part in prompt.user]},
        ]
        tokenizer: Any = self._renderer.get_tokenizer()
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text


def _part(part: str | JudgeImage) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
