"""Lets torchvision be imported beside a PyTorch that its compiled operators were not built for.

torchvision registers shape rules for two operators of its compiled part when it is imported. Beside a CPU-only
PyTorch, a torchvision wheel that was built for CUDA cannot load that part, and the rules then name operators that
nobody declared. RAFT uses neither operator, so declaring them is enough to run it. For laptops and tests only: the
container has a matching pair (requirements/raft.txt) and does not use this.
"""

from __future__ import annotations

from typing import Any

_declared: list[Any] = []


def declare_missing_operators() -> None:
    """Declare the operators, unless torchvision can be imported as it is; a second call does nothing.

    Raises:
        ImportError: PyTorch or torchvision is not installed.
    """
    if _declared:
        return
    import torch

    try:
        import torchvision  # noqa: F401 - whether it can be imported is the question
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # The declarations last as long as the library object.
        _declared.append(library)
