"""The service as a reward, in the words of each trainer: `trl`, `verl`, `ms_swift`, `openrlhf`.

Each module imports its framework only when something of it is used. An abstention is never a
score: it is None where a trainer takes that, and else a number beside a flag that says so.
"""
