"""Failures and loads, as real processes: ``python -m loadtests.drills``."""
