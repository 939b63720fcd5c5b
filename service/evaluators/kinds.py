"""From the name of a kind to its class: shipped, from an installed package, or by dotted path."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import SecretStr, ValidationError

from service.evaluators.contract import Evaluator, EvaluatorInvalid, Surroundings

GROUP = "proxy_grm.evaluators"
"""Entry points of this group name kinds that other packages bring."""

SHIPPED = {
    "http": "service.evaluators.proxy_server:ProxyServerEvaluator",
    "openai": "service.evaluators.openai_server:OpenAIServerEvaluator",
    "proxy": "service.evaluators.proxy:ProxyEvaluator",
    "self": "service.evaluators.self_judge:SelfEvaluator",
}


def build(
    name: str,
    kind: str,
    options: Mapping[str, Any],
    api_key: SecretStr | None,
    around: Surroundings,
) -> Evaluator:
    """An evaluator of a kind.

    Args:
        name: the evaluator's, for errors.
        kind: a shipped one, an entry point of `GROUP`, or ``package.module:Class``.
        options: what its `Config` takes.
        api_key: joins them; None where there is none.
        around: what the gateway has to lend.

    Raises:
        EvaluatorInvalid: there is no such kind, or it does not take these options.
    """
    made = find(kind)
    try:
        config = made.Config.model_validate({"api_key": api_key, **options})
    except ValidationError as cause:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}"
            for one in cause.errors(include_input=False, include_url=False)
        )
        raise EvaluatorInvalid(f"evaluator {name!r} of kind {kind!r}: {wrong}") from None
    try:
        return made.build(config, around)
    except EvaluatorInvalid:
        raise
    except Exception as cause:
        raise EvaluatorInvalid(f"evaluator {name!r} of kind {kind!r}: {cause}") from cause


def find(kind: str) -> type[Evaluator]:
    """The class of a kind.

    Raises:
        EvaluatorInvalid: there is none, it cannot be imported, or it is no evaluator.
    """
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    path = (installed | SHIPPED).get(kind, kind)
    module, _, attribute = path.partition(":")
    if not attribute:
        known = sorted(installed | SHIPPED)
        close = difflib.get_close_matches(kind, known, 1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise EvaluatorInvalid(
            f"no evaluator is of kind {kind!r}{meant}; there are {', '.join(known)}, whatever "
            f"installed packages bring (entry points in {GROUP!r}), and package.module:Class"
        )
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as cause:  # importing runs anybody's code
        raise EvaluatorInvalid(f"evaluators of kind {kind!r} are not at {path}: {cause}") from cause
    if not (isinstance(found, type) and issubclass(found, Evaluator)):
        raise EvaluatorInvalid(f"{path} is no subclass of service.evaluators.Evaluator")
    return found
