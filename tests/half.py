"""Which matrix products ran in which precision."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")
HALF = (torch.float16, torch.bfloat16)


class HalfProducts(TorchDispatchMode):
    """Records the dtypes of the factors of matrix products, and other operations that compute in half precision.

    Attributes:
        dtypes: of the factors.
        others: names of operations on tensors in half precision, beside products and views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.others: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        if name in PRODUCTS:
            self.dtypes.update(x.dtype for x in tensors[:2])
        elif any(x.dtype in HALF for x in tensors) and not func.is_view:
            self.others.add(name)
        return func(*args, **(kwargs or {}))
