"""What vLLM is started with for a role of a release, in this process or as a server."""

from __future__ import annotations

import os
from typing import Any

from models import torchvision_guard
from models.release import Release, Role
from service.engines import vllm_plugin
from service.settings import VllmSettings

_GPU_SHARE_OF_TWO = 0.45  # vLLM's own default, 0.92, leaves no room for a second engine


def engine_arguments(
    release: Release, role: Role, settings: VllmSettings, *, alone: bool = False
) -> dict[str, Any]:
    """Of `vllm.AsyncEngineArgs`; `settings.args` (and `proxy_args`) have the last word.

    Args:
        release: whose role it is.
        role: what is served.
        settings: what the operator wants of vLLM.
        alone: the other role is not served on this machine, or by somebody else.
    """
    from vllm.platforms import current_platform

    own: dict[str, Any] = {
        "model": str(role.folder),
        "max_model_len": role.config.context_tokens,
        "limit_mm_per_prompt": {"image": role.config.images.maximum, "video": 0},
        "scheduling_policy": "priority",
        "enable_prefix_caching": True,
        "enable_log_requests": False,
        # vLLM keeps one set of series a process: a second engine's would replace the judge's.
        "disable_log_stats": role.name != "judge" and not alone,
    }
    share = settings.memory_share
    if current_platform.is_cpu():
        # What an engine really takes on a CPU is VLLM_CPU_KVCACHE_SPACE; where that is set to
        # nothing, the share is of all RAM, and start-up fails when less is free.
        own |= {
            "dtype": "float32",
            "enforce_eager": True,
            # A partly prefilled request with a seed kills vLLM 0.32's CPU worker: it rewinds the
            # random generator, and "CPU Generator does not use offset". Whole prompts only.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(8192, role.config.context_tokens),
            # vLLM's own 4 GiB, in the gateway and in the engine, are for machines with a GPU.
            "mm_processor_cache_gb": 0.5,
        }
        share = share or 0.3
    elif release.proxy is not None and not alone:
        share = share or _GPU_SHARE_OF_TWO
    if share is not None:
        own["gpu_memory_utilization"] = share
    own |= settings.args
    return own | settings.proxy_args if role.name == "proxy" else own


def prepare_environment(settings: VllmSettings) -> None:
    """Sets what vLLM and its processes read from the environment, before vLLM is imported."""
    torchvision_guard.install_for_children()
    os.environ[vllm_plugin.OWNED] = "1"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
    # Batches differ in size, and oneDNN keeps compiled code for each: 1024 of them, its default,
    # took 0.6 GiB and made no judgement faster.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # whatever a release needs is in its folder
