"""``proxy-grm``: the service from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from proxy_grm_client.cli.arguments import parser
from proxy_grm_client.errors import ProxyGrmError, ServiceUnreachable, UnexpectedAnswer
from proxy_grm_client.progress import NEEDS_RICH

_STOPPED_BY_HAND = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1 where something could not be judged or the service says no; 2 for wrong arguments.
    """
    asked = parser().parse_args(argv)
    try:
        return asked.command(asked)
    except (ServiceUnreachable, UnexpectedAnswer) as error:
        where = asked.url or "PROXY_GRM_URL, or http://127.0.0.1:8000"
        return _told(f"{error}\nIs a service running at {where}? proxy-grm doctor looks closer.")
    except ProxyGrmError as error:
        return _told(f"{error.code}: {error}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _told(f"{NEEDS_RICH}   (score, rubric and rank also print --json without it)")
    except (OSError, ValueError) as error:
        return _told(str(error))
    except KeyboardInterrupt:
        _told("stopped")
        return _STOPPED_BY_HAND


def _told(what: str) -> int:
    sys.stderr.write(f"proxy-grm: {what}\n")
    return 1
