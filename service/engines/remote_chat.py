"""Generation requests as vLLM's chat completions, and back.

The server renders with the same chat template and the same picture processor as the engine in
process does, so that the model reads the same tokens.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from models.comparison import JudgeImage
from models.prompts import FilledPrompt
from service.engines.contract import Generation, GenerationRequest, LabelLogprobs
from service.engines.vllm_common import PRIORITIES, surprisal
from service.tenancy import current_tenant

# A server would take these from the model's generation_config.json; an engine in process does not.
_PLAIN_SAMPLING = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_TOKEN_ID = "token_id:"


class ReplicaLost(Exception):
    """A server went away, gave up or has too much to do before it had an answer.

    Attributes:
        busy: it is well, and said that it has too much to do; another may have room.
    """

    def __init__(self, reason: str, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy


def conversation(prompt: FilledPrompt, prefill: str = "") -> dict[str, Any]:
    """The prompt as messages. It encodes pictures: not for the event loop."""
    parts = [_part(part) for part in prompt.user]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": parts or ""},
    ]
    if prefill:
        messages.append({"role": "assistant", "content": prefill})
    return {
        "messages": messages,
        "add_generation_prompt": not prefill,
        "continue_final_message": bool(prefill),
    }


def completion(request: GenerationRequest, labels: tuple[int, int] | None) -> dict[str, Any]:
    """The body of a chat completion without its messages."""
    body: dict[str, Any] = {
        "max_completion_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed if request.temperature > 0 else None,
        "stop": list(request.stop),
        "include_stop_str_in_output": True,
        "priority": PRIORITIES[request.priority],
        "cache_salt": current_tenant(),  # else what is cached tells tenants of each other
        **_PLAIN_SAMPLING,
    }
    if request.grammar is not None:
        body["structured_outputs"] = {"regex": request.grammar}
    if labels is not None:
        body |= {
            "logprobs": True,
            "logprob_token_ids": list(labels),
            "return_tokens_as_token_ids": True,
        }
    return body


def generation(
    answer: dict[str, Any], request: GenerationRequest, labels: tuple[int, int] | None
) -> Generation:
    """What came out.

    Raises:
        ReplicaLost: the server gave up on this request.
    """
    (choice,) = answer["choices"]
    if choice["finish_reason"] not in ("stop", "length"):
        raise ReplicaLost(f"it ended the request: {choice['finish_reason']}")
    usage = answer["usage"]
    tokens = (choice.get("logprobs") or {}).get("content") or []
    names = [f"{_TOKEN_ID}{label}" for label in labels or ()]
    at = _verdict_place(tokens, names) if request.read_labels else None
    return Generation(
        text=choice["message"]["content"] or "",
        truncated=choice["finish_reason"] == "length" and request.max_tokens > 1,
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        labels=None if at is None else _labels(tokens[at], names),
        surprisal=surprisal(token["logprob"] for token in tokens[:at]),
    )


def _verdict_place(tokens: list[dict[str, Any]], names: list[str]) -> int | None:
    """The last label token: nothing but the closing tag follows the verdict."""
    places = range(len(tokens) - 1, -1, -1)
    return next((place for place in places if tokens[place]["token"] in names), None)


def _labels(verdict: dict[str, Any], names: list[str]) -> LabelLogprobs:
    found = {one["token"]: one["logprob"] for one in verdict["top_logprobs"]}
    return LabelLogprobs(*(found[name] for name in names))


def _part(part: str | JudgeImage) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    png = io.BytesIO()
    part.pixels.save(png, "PNG", compress_level=1)
    encoded = base64.b64encode(png.getvalue()).decode()
    # The identity comes from the bytes, never from a client: it keys vLLM's caches.
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{encoded}"},
        "uuid": part.identity,
    }
