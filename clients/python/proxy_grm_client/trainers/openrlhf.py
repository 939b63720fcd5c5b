r"""A reward for OpenRLHF, as the file that ``--reward.remote_url`` names.

    from proxy_grm_client.trainers.openrlhf import RewardFunction
    reward_func = RewardFunction(url="http://judge:8000")

`label` of each row is a JSON text: ``{"question", "images", "reference"}``. The reward is
2 P(rollout better than the reference) - 1.

>>> from proxy_grm_client.trainers.openrlhf import RewardFunction
>>> reward_func = RewardFunction(allow_demo=True)
>>> label = '{"question": "How many cats are there?", "reference": "There is one."}'
>>> prompt = "<|im_start|>user\nHow many cats are there?<|im_end|>\n<|im_start|>assistant\n"
>>> answer = reward_func([prompt + "There are two.<|im_end|>"], [prompt], [label])
>>> -1 <= answer["rewards"].item() <= 1, answer["extra_logs"]["failed"].item()
(True, 0.0)
>>> reward_func.close()
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from proxy_grm_client.calls import RewardOptions
from proxy_grm_client.trainers.rewards import Rewards
from proxy_grm_client.trainers.rollouts import Rollout, as_images

_MARKS = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|</s>|\s)+\Z")
_ASSISTANT = re.compile(
    r"<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
)


class RewardFunction:
    """OpenRLHF's `reward_func(queries, prompts, labels)`.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        allow_demo: be rewarded even by a release that is a demonstration.
        abstained_reward: the number where there is no judgement; OpenRLHF takes nothing else.
        timeout_s: of one comparison.
        client: further arguments of `AsyncClient`.
        **options: of every call; see `proxy_grm_client.calls.RewardOptions`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        allow_demo: bool = False,
        abstained_reward: float = 0.0,
        timeout_s: float = 300.0,
        client: Mapping[str, Any] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._rewards = Rewards(
            url, "reference", allow_demo, timeout_s, {**options}, {**(client or {})}
        )
        self._abstained_reward = abstained_reward

    def close(self) -> None:
        """Gives the connections back."""
        self._rewards.close()

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
    ) -> dict[str, Any]:
        """Rewards in OpenRLHF's form.

        Args:
            queries: prompt and response in the chat template.
            prompts: the prompts alone.
            labels: JSON texts with `question`, `images` and `reference`.

        Returns:
            Tensors: ``rewards``, -1..1; ``scores``, 0..1, by which OpenRLHF filters; and, among
            ``extra_logs``, ``failed``: 1 where a reward is `abstained_reward` and says nothing.

        Raises:
            DemoRelease: a demonstration answered, and that is not allowed.
            ProxyGrmError, ValueError: an error of the set-up.
        """
        import torch  # OpenRLHF's own

        given = zip(queries, prompts, labels, strict=True)
        found = [reward.value for reward in self._rewards.of([_rollout(*one) for one in given])]
        rewards = torch.tensor(
            [self._abstained_reward if value is None else value for value in found]
        )
        failed = torch.tensor([float(value is None) for value in found])
        return {"rewards": rewards, "scores": (rewards + 1) / 2, "extra_logs": {"failed": failed}}


def response_in(query: str, prompt: str) -> str:
    """What the model said, without the marks that end it.

    Raises:
        ValueError: the query neither begins with the prompt nor has an assistant's turn.
    """
    if query.startswith(prompt):
        said = query[len(prompt) :]
    else:  # pictures take more room in the query than in the prompt
        *_, last = [None, *_ASSISTANT.finditer(query)]
        if last is None:
            raise ValueError("the query holds neither its prompt nor an assistant's turn")
        said = query[last.end() :]
    return _MARKS.sub("", said)


def _rollout(query: str, prompt: str, label: Any) -> Rollout:
    try:
        asked = json.loads(label) if isinstance(label, str) else label
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, Mapping) or not isinstance(asked.get("question"), str):
        raise ValueError('a label is a JSON text: {"question": …, "images": […], "reference": …}')
    return Rollout(
        asked["question"],
        response_in(query, prompt),
        as_images(asked.get("images")),
        asked.get("reference"),
    )
