"""Measurements and long trials, a command each. Not part of the tests."""
