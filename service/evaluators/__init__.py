"""Judges that are given a rubric, behind one small contract."""

from service.evaluators.contract import Evaluator, Opinion, OpinionStatus
from service.evaluators.proxy import ProxyEvaluator

__all__ = ["Evaluator", "Opinion", "OpinionStatus", "ProxyEvaluator"]
