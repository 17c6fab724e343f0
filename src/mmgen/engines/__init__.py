"""Models that are not in this process: behind an address."""
