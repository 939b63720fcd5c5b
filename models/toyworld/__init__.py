"""A drawn world with known answers: data for the embedded release, tests and load."""

from models.toyworld.cases import (
    FAMILIES,
    STRATA,
    CaseOptions,
    Stratum,
    ToyCase,
    make_case,
    teacher_rubric,
)

__all__ = [
    "FAMILIES",
    "STRATA",
    "CaseOptions",
    "Stratum",
    "ToyCase",
    "make_case",
    "teacher_rubric",
]
