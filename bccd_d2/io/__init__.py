"""Pixels from files."""
