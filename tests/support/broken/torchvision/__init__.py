"""Stands in for a torchvision that was built for another torch, and fails in the way that one does."""

raise RuntimeError("operator torchvision::nms does not exist")
