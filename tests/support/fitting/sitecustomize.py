"""Makes the torchvision of `make test` fit a CPU build of torch, for which the package index has none.

NOT a torchvision that anybody has: its two operators that are missing there are declared by hand, without any code,
so that it can be imported as one that fits can. Runs at the start of every Python that has this folder in its path.
"""

import sys
from importlib.abc import MetaPathFinder

DECLARED = []  # for as long as these live


class DeclareOperators(MetaPathFinder):
    """Declares them once torchvision is about to be imported."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "torchvision" and self in sys.meta_path and "torch" in sys.modules:
            sys.meta_path.remove(self)
            import torch

            DECLARED.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclareOperators())
