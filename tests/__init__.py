"""Tests, by layer. No test skips quietly."""
