"""Releases: prompts + weights + sampling + calibration under one fingerprint.

A release has a judge and may have a proxy, each a `Role` with weights, a
tokenizer and prompts of its own.
"""

from __future__ import annotations

import hashlib
import json
import os.path
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.calibration import Calibration, OrderCalibration
from models.errors import ReleaseInvalid
from models.formats import OutputFormat, load_format
from models.judgement import GRAMMAR_REVISION
from models.neutralise import NEUTRALISE_REVISION, Neutraliser
from models.pictures import DEFAULT_MOST_PIXELS
from models.prompts import DEFAULT_DIR, PROXY_LAYOUTS, Prompts, read_prompts

SHIPPED_DIR = Path(__file__).parent / "releases"
"""Releases that are part of the repository; their folder names are their names."""

RELEASE_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$"

RoleName = Literal["judge", "proxy"]

_OWN_FORMAT = "proxy_grm"
_JUDGES_NOTHING = {".md", ".png"}


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(_Config):
    """How much a judge may write."""

    judgement_tokens: int = Field(
        default=2048, ge=16, description="a whole judgement, rubric included"
    )
    rubric_tokens: int = Field(default=768, ge=8, description="a rubric alone")


class ImageLimits(_Config):
    """What pictures a judge takes."""

    maximum: int = Field(default=8, ge=0, description="pictures in one comparison")
    most_pixels: int = Field(
        default=DEFAULT_MOST_PIXELS, ge=28 * 28, description="larger ones are shrunk to this area"
    )


class ProxyConfig(_Config):
    """How the proxy is asked."""

    tokens: int = Field(default=2048, ge=16, description="a whole evaluation with its answer")
    calibration: OrderCalibration = OrderCalibration()


class ReleaseConfig(_Config):
    """The contents of ``release.toml``."""

    name: str = Field(pattern=RELEASE_NAME)
    purpose: Literal["demo", "production"]
    base_model: str = Field(description="what the weights were trained from")
    output_format: str = Field(
        default=_OWN_FORMAT,
        description="how the judge writes: a name in models.formats, or package.module:Class",
    )
    structured_output: bool = Field(default=True, description="have the engine enforce the grammar")
    context_tokens: int = Field(
        default=16_384, ge=256, description="prompt, pictures and answer together"
    )
    labels: tuple[str, str] = Field(default=("1", "2"), description="the verdict tokens as text")
    sampling: Sampling = Sampling()
    images: ImageLimits = ImageLimits()
    calibration: Calibration = Calibration()
    proxy: ProxyConfig = ProxyConfig()


@dataclass(frozen=True)
class Role:
    """One model of a release and how it is asked.

    Attributes:
        config: the whole release's.
        folder: weights, tokenizer and processor (Hugging Face layout).
        prompts_dir: where `prompts` were read.
        prompts: the judge's two layouts, or the proxy's one.
    """

    name: RoleName
    config: ReleaseConfig
    folder: Path
    prompts_dir: Path
    prompts: Prompts

    @property
    def output_format(self) -> OutputFormat:
        """How it writes; a proxy always in this project's own grammar."""
        return load_format(self.config.output_format if self.name == "judge" else _OWN_FORMAT)

    @cached_property
    def neutralise(self) -> Neutraliser:
        """The text transform for this role's own tokenizer and way of writing."""
        written = self.output_format
        return Neutraliser(control_tokens(self.folder), written.tags, written.marks)


@dataclass(frozen=True)
class Release:
    """A release, read and fingerprinted; no weights are loaded.

    Attributes:
        proxy: None when the release has none.
        fingerprint: digest of everything that can change a judgement, of either role.
    """

    config: ReleaseConfig
    judge: Role
    proxy: Role | None
    fingerprint: str

    @property
    def roles(self) -> tuple[Role, ...]:
        """The judge, and the proxy where there is one."""
        return (self.judge,) if self.proxy is None else (self.judge, self.proxy)


def load_release(name: str) -> Release:
    """Loads a release by the name of a shipped one, by path, or by Hugging Face hub id.

    A folder without ``release.toml`` that holds a model (`config.json`) is taken
    as a judge to be asked with the default prompts, as is a hub id.

    Raises:
        ReleaseInvalid: there is no such release, or it is incomplete.
    """
    folder = _find(name)
    if (folder / "release.toml").exists():
        config = _read_config(folder)
        own_prompts = folder / "prompts"
        own = own_prompts if own_prompts.is_dir() else None
        judge = _judge(config, folder / "judge", own)
        proxy = _proxy(config, folder, own or DEFAULT_DIR)
    elif (folder / "config.json").exists():
        config = ReleaseConfig(name=_plain_name(name), purpose="production", base_model=name)
        judge, proxy = _judge(config, folder, None), None
    else:
        raise ReleaseInvalid(f"{folder} has neither release.toml nor a model's config.json")
    return Release(config, judge, proxy, _fingerprint(config, judge, proxy))


def _judge(config: ReleaseConfig, folder: Path, own_prompts: Path | None) -> Role:
    written = load_format(config.output_format)
    prompts_dir = own_prompts or written.prompts_dir
    _check_weights(folder)
    return Role("judge", config, folder, prompts_dir, read_prompts(prompts_dir, written.layouts))


def _check_weights(folder: Path) -> None:
    for required in ("config.json", "tokenizer.json"):
        if not (folder / required).is_file():
            raise ReleaseInvalid(
                f"{folder} has no {required}: not a model in the Hugging Face layout"
            )
    if not any(folder.glob("*.safetensors")):
        raise ReleaseInvalid(f"{folder} has no weights (*.safetensors)")


def _proxy(config: ReleaseConfig, folder: Path, prompts_dir: Path) -> Role | None:
    weights = folder / "proxy"
    if not weights.exists():
        if "proxy" in config.model_fields_set:
            raise ReleaseInvalid(
                f"{folder / 'release.toml'} has a [proxy] table, but there is no {weights}: "
                "add the proxy's weights there, or take the table out"
            )
        return None
    if not (prompts_dir / "proxy.txt").exists():
        raise ReleaseInvalid(
            f"{folder} has a proxy, but no prompt for it: add {prompts_dir / 'proxy.txt'} "
            f"({DEFAULT_DIR / 'proxy.txt'} suits a capable instruction-tuned model)"
        )
    _check_weights(weights)
    return Role("proxy", config, weights, prompts_dir, read_prompts(prompts_dir, PROXY_LAYOUTS))


def control_tokens(model_dir: Path) -> tuple[str, ...]:
    """Every string that the tokenizer turns into a control token.

    All added tokens count, also those not flagged special: ``<tool_call>`` is
    not, and still becomes one token with a meaning.
    """
    path = model_dir / "tokenizer.json"
    try:
        tokenizer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return tuple(token["content"] for token in tokenizer.get("added_tokens", ()))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as cause:
        raise ReleaseInvalid(f"{path} is not a tokenizer") from cause


def _find(name: str) -> Path:
    known = sorted(p.name for p in SHIPPED_DIR.iterdir() if (p / "release.toml").exists())
    if name in known:
        return SHIPPED_DIR / name
    path = Path(name).expanduser()
    if name and os.path.isdir(path):
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name)
    raise ReleaseInvalid(f"no release {name!r}: not a folder, a hub id, or one of {known}")


def _from_hub(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as cause:
        raise ReleaseInvalid(
            f"{repo_id!r} is not a folder here and could not be downloaded from the hub"
        ) from cause


def _read_config(folder: Path) -> ReleaseConfig:
    try:
        return ReleaseConfig.model_validate(
            tomllib.loads((folder / "release.toml").read_text("utf-8"))
        )
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as cause:
        raise ReleaseInvalid(f"{folder / 'release.toml'}: {cause}") from cause


def _plain_name(name: str) -> str:
    last = Path(name).expanduser().resolve().name
    return re.sub(r"[^a-zA-Z0-9._-]", "-", last).lstrip("._-")[:64] or "model"


def _fingerprint(config: ReleaseConfig, judge: Role, proxy: Role | None) -> str:
    digest = hashlib.sha256()
    rules = {"grammar": judge.output_format.revision, "neutralise": NEUTRALISE_REVISION}
    if proxy is not None and config.output_format != _OWN_FORMAT:
        rules["proxy_grammar"] = GRAMMAR_REVISION
    # What concerns the proxy counts only where there is one.
    unjudging = {"name", "purpose", "base_model"} | ({"proxy"} if proxy is None else set())
    judging = config.model_dump(mode="json", exclude=unjudging)
    settled = {"config": judging, "rules": rules}
    digest.update(json.dumps(settled, sort_keys=True).encode())
    for role in (judge, proxy):
        if role is None:
            continue
        prompts = {f"{layout}.txt": role.prompts_dir / f"{layout}.txt" for layout in role.prompts}
        prefix = "" if role.name == "judge" else "proxy/"
        for name, file in [*sorted(prompts.items()), *_judging_files(role.folder)]:
            digest.update(f"{prefix}{name}".encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _judging_files(folder: Path) -> list[tuple[str, Path]]:
    """A model's files by their names in its folder, without cards, licences and hidden ones."""
    found = [(file.relative_to(folder), file) for file in sorted(folder.rglob("*"))]
    return [
        (name.as_posix(), file)
        for name, file in found
        if file.is_file()
        and not any(part.startswith(".") for part in name.parts)
        and name.suffix not in _JUDGES_NOTHING
        and name.name not in ("LICENSE", "NOTICE")
    ]
