"""Judges that are given a rubric: the contract, the kinds that ship, and asking several at once.

Another package adds a kind by an entry point in the group ``proxy_grm.evaluators``.
"""

from service.evaluators.contract import (
    Evaluator,
    EvaluatorConfig,
    EvaluatorInvalid,
    Opinion,
    Surroundings,
)
from service.evaluators.guard import GuardedEvaluator
from service.evaluators.proxy import ProxyEvaluator
from service.evaluators.roster import Roster, build_roster

__all__ = [
    "Evaluator",
    "EvaluatorConfig",
    "EvaluatorInvalid",
    "GuardedEvaluator",
    "Opinion",
    "ProxyEvaluator",
    "Roster",
    "Surroundings",
    "build_roster",
]
