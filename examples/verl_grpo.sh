#!/usr/bin/env bash
# GRPO with verl, rewarded by a service: no file of your own is needed.
#
#   pip install verl ./clients/python
#   PROXY_GRM_URL=http://judge:8000 examples/verl_grpo.sh data.train_files=train.parquet …
#
# `extra_info` of each row holds `question`, `images` and `reference`. verl logs `abstained`, the share of
# rollouts without a judgement; their score is `abstained_score` and says nothing.
set -euo pipefail
exec python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct \
    actor_rollout_ref.rollout.n=8 \
    reward.custom_reward_function.path=pkg://proxy_grm_client.trainers.verl \
    reward.custom_reward_function.name=compute_score_async \
    +reward.custom_reward_function.reward_kwargs.order=both \
    "$@"
