"""The embedded release's network: built and taught to see from nothing."""

from pathlib import Path

PROMPTS_DIR = Path(__file__).parent / "prompts"
"""What its judge and proxy are asked; export copies them into the release."""
