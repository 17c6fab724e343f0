"""Measurements and long trials, a command each. Not part of the tests."""

from mmgen.__main__ import wait_briefly

wait_briefly()  # before torch is imported, which is why it stands here
