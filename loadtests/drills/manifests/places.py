"""Where on this machine is what manifests name: everything that is put in place of something else.

Commands, arguments and variables are those of the manifests. In them are replaced

- ``name:port`` of a Service, or of a pod behind a headless one, by an address on this machine,
- ``0.0.0.0`` by the pod's own loopback address, so that its ports stay as they are,
- the paths where volumes are mounted by folders,
- references to Secrets and to other variables by what they stand for.
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.drills.manifests.rendered import NAMESPACE, Rendered, Template
from loadtests.drills.rows import NotHere
from loadtests.drills.site import ROOT

_VARIABLE = re.compile(r"\$\((\w+)\)")
_BEHIND_HEADLESS = re.compile(rf"([\w-]+)\.[\w-]+\.{NAMESPACE}\.svc:")


class Addresses:
    """Loopback addresses, one for each pod, on a network that no other drill is likely to have."""

    def __init__(self) -> None:
        dice = secrets.SystemRandom()
        self._network = f"127.{dice.randint(1, 254)}.{dice.randint(0, 255)}"
        self._given: dict[str, str] = {}
        try:
            with socket.socket() as tried:
                tried.bind((f"{self._network}.1", 0))
        except OSError as cause:
            raise NotHere("this machine has a single loopback address") from cause

    def of(self, name: str) -> str:
        """The address of the pod of that name, the same each time."""
        return self._given.setdefault(name, f"{self._network}.{len(self._given) + 2}")


@dataclass(frozen=True)
class Places:
    """An installation's names, files and secrets on this machine.

    Attributes:
        folder: everything is under it.
        secrets: the Secret that the chart asks for, by key.
        hosts: where Services are, by ``name:port``.
    """

    folder: Path
    rendered: Rendered
    secrets: Mapping[str, str]
    addresses: Addresses = field(default_factory=Addresses)
    hosts: dict[str, str] = field(default_factory=dict[str, str])

    def here(self, text: str, pod: str, known: Mapping[str, str]) -> str:
        """A text of a manifest in terms of this machine.

        Args:
            text: an argument, or the value of a variable.
            pod: whose it is.
            known: the variables before it.
        """
        text = _VARIABLE.sub(lambda match: known[match[1]], text)
        text = _BEHIND_HEADLESS.sub(lambda match: f"{self.addresses.of(match[1])}:", text)
        for host, address in self.hosts.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?!\d)", address, text)
        return text.replace("0.0.0.0", self.addresses.of(pod))

    def volumes(self, template: Template, pod: str) -> dict[str, Path]:
        """The folders of a pod by the path where it finds them; filled as the manifests say."""
        return {
            mount["mountPath"]: self._volume(template, pod, mount["name"])
            for mount in template.container["volumeMounts"]
        }

    def _volume(self, template: Template, pod: str, name: str) -> Path:
        folder = self.folder / pod / name
        folder.mkdir(parents=True, exist_ok=True)
        found = [one for one in template.spec.get("volumes", []) if one["name"] == name]
        for file, text in (self._files(found[0]) if found else {}).items():
            (folder / file).write_text(text)
        return folder

    def _files(self, volume: dict[str, Any]) -> dict[str, str]:
        if "configMap" in volume:
            return self.rendered.one("ConfigMap", volume["configMap"]["name"])["data"]
        if "secret" in volume:
            return {one["path"]: self.secrets[one["key"]] for one in volume["secret"]["items"]}
        return {}


def made_secrets(folder: Path) -> dict[str, str]:
    """What the chart asks to be made before it is installed, and a caller's key, ``client``."""
    file = folder / "keys.toml"

    def key(name: str, role: str) -> str:
        command = [sys.executable, "-m", "service", "new-key", name, "--role", role]
        command += ["--file", str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    made = {"worker-key": key("worker", "admin"), "client": key("client", "score")}
    made |= {name: secrets.token_hex(16) for name in ("engine-key", "redis-password")}
    return made | {"keys.toml": file.read_text()}
