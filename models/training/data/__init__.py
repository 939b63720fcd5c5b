"""Preference data: reading, filtering, judging by a teacher, splitting."""
