"""Damaged and odd inputs for everything that reads what users give; see tools/fuzz.py."""
