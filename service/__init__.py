"""How a judgement is served."""

__version__ = "0.1.0"
