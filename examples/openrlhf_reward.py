"""A reward for OpenRLHF: how much better than its reference is a rollout?

    pip install openrlhf ./clients/python
    python -m openrlhf.cli.train_ppo_ray --reward.remote_url examples/openrlhf_reward.py \
        --data.label_key label …

`label` of each row is a JSON text: ``{"question", "images", "reference"}``, images as paths, URLs
or ``{"data": base64}``. The service's address is ``PROXY_GRM_URL``, or http://127.0.0.1:8000.
OpenRLHF logs ``failed``, the share of rollouts without a judgement.
"""

from proxy_grm_client.trainers.openrlhf import RewardFunction

reward_func = RewardFunction(order="both")
