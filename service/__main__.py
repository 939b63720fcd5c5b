"""``python -m service gateway | worker | engine | new-key | check-config``."""

from __future__ import annotations

from models import torchvision_guard

torchvision_guard.install()  # before anything imports torch

import argparse  # noqa: E402
import sys  # noqa: E402
import tomllib  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from pydantic import ValidationError  # noqa: E402
from pydantic_settings import SettingsError  # noqa: E402

from models.errors import ReleaseInvalid  # noqa: E402
from models.release import load_release  # noqa: E402
from service.keys import KeysInvalid, new_key, read_keys  # noqa: E402
from service.settings import Settings, unknown_variables  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and runs one of the processes."""
    options = vars(_parser().parse_args(argv))
    command = options.pop("command")
    try:
        if command == "new-key":
            return _new_key(options)
        if command == "engine":
            return _serve_engine(options)
        settings = _settings(options)
        _refuse_strangers(
            settings,
            settings.api_keys_file is not None,
            "Make one (python -m service new-key NAME --file keys.toml) and set "
            "PROXY_GRM_API_KEYS_FILE",
        )
        if settings.api_keys_file is not None:
            read_keys(settings.api_keys_file)  # now, and not when the port is taken already
        if command == "check-config":
            print(settings.model_dump_json(indent=2))
            return 0
        if command == "worker":
            from service.worker import run_worker

            run_worker(settings)
            return 0
        from service.gateway_process import PortTaken, run_gateway

        try:
            run_gateway(settings)
        except PortTaken as error:
            raise _Misconfigured(str(error)) from error
    except (ReleaseInvalid, KeysInvalid, _Misconfigured) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve judgements: which of two answers about an image is better, and why.",
        epilog=(
            "examples:\n"
            "  python -m service gateway\n"
            "  PROXY_GRM_RELEASE=/releases/grm-7b python -m service gateway --port 9000\n"
            "  PROXY_GRM_RELEASE=/releases/grm-7b python -m service engine --role proxy\n"
            "  PROXY_GRM_WORKER__GATEWAY_URL=http://gateway:8000 python -m service worker\n"
            "  PROXY_GRM_CONFIG=prod.toml python -m service check-config"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    gateway = commands.add_parser("gateway", help="the HTTP service, with its engine")
    gateway.add_argument(
        "--workers", type=int, default=argparse.SUPPRESS, help="workers to start beside it"
    )
    engine = commands.add_parser(
        "engine", help="vLLM's server with one role of the release, for gateways elsewhere"
    )
    engine.add_argument("--role", choices=("judge", "proxy"), default="judge")
    for server in (gateway, engine):
        server.add_argument("--host", default=argparse.SUPPRESS, help="address to listen on")
        server.add_argument("--port", type=int, default=argparse.SUPPRESS, help="port to listen on")
    commands.add_parser("worker", help="works on jobs through a gateway; any number of them")
    key = commands.add_parser("new-key", help="make an API key and add it to the file of keys")
    key.add_argument("name", help="of the key: it stands on log lines")
    key.add_argument("--tenant", help="whose cache, rubrics and jobs it reaches (the name)")
    key.add_argument("--role", choices=("score", "admin"), default="score")
    key.add_argument("--per-minute", type=int, help="judgements; absent: no bound")
    key.add_argument("--file", type=Path, help="the file of keys (PROXY_GRM_API_KEYS_FILE)")
    commands.add_parser("check-config", help="print the settings in force, secrets hidden")
    return parser


class _Misconfigured(Exception):
    """The settings contradict themselves or name what does not exist."""


def _new_key(options: dict[str, Any]) -> int:
    """Prints the key, once; the file has its digest alone."""
    file = options.pop("file") or _settings({}).api_keys_file
    if file is None:
        raise _Misconfigured("say which file: --file keys.toml, or set PROXY_GRM_API_KEYS_FILE")
    print(new_key(file, **options))
    print(f"added to {file}; the key itself is shown this once", file=sys.stderr)
    return 0


def _serve_engine(options: dict[str, Any]) -> int:
    role_name = options.pop("role")
    settings = _settings(options)
    _refuse_strangers(
        settings, settings.engine_api_key is not None, "Set PROXY_GRM_ENGINE_API_KEY to a secret"
    )
    release = load_release(settings.release)
    role = release.judge if role_name == "judge" else release.proxy
    if role is None:
        raise ReleaseInvalid(f"release {release.config.name!r} has no proxy")
    from service.engines.vllm_server import ArgumentUnknown, serve

    try:
        serve(release, role, settings)
    except ArgumentUnknown as error:
        raise _Misconfigured(str(error)) from error
    return 0


def _refuse_strangers(settings: Settings, has_keys: bool, advice: str) -> None:
    if not settings.on_loopback and not has_keys:
        raise _Misconfigured(
            f"refusing to listen on {settings.host}: there are no API keys, and anybody who can "
            f"reach the port could use it. {advice}, or listen on 127.0.0.1."
        )


def _settings(overrides: dict[str, object]) -> Settings:
    unknown = unknown_variables()
    if unknown:
        raise _Misconfigured("; ".join(unknown) + "; see docs/settings.md")
    try:
        settings = Settings(**overrides)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()
        )
        raise _Misconfigured(f"settings: {problems}") from error
    except tomllib.TOMLDecodeError as error:
        raise _Misconfigured(f"the file that PROXY_GRM_CONFIG names: {error}") from error
    except (SettingsError, OSError) as error:
        raise _Misconfigured(f"settings: {error}") from error
    return settings


if __name__ == "__main__":
    sys.exit(main())
