"""Scores -> which channels leave, one file a kind of target."""
