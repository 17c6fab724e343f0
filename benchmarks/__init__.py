"""Measurements and long trials, a command each. Not part of the tests."""

import os

# Before torch is imported, which is why it stands here. Threads that spin while they wait can take 8 ms for an
# operation of 14 µs on a busy machine (GNU OpenMP).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
