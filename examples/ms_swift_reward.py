"""A reward for ms-swift: ranks each prompt's rollouts in one call.

    pip install ms-swift ./clients/python
    swift rlhf --rlhf_type grpo --model Qwen/Qwen2.5-VL-7B-Instruct \
        --external_plugins examples/ms_swift_reward.py --reward_funcs proxy_grm \
        --dataset my_prompts.jsonl --num_generations 8

Lines of the data set are ms-swift's: `messages`, `images`, and whatever else they have. The
service's address is ``PROXY_GRM_URL``, or http://127.0.0.1:8000.
"""

from proxy_grm_client.trainers.ms_swift import register

register("proxy_grm", order="both")
