"""PyTorch's CPU tensors as items of a source in a process: they travel like arrays.

PyTorch itself pickles a tensor's memory in line, or, with `multiprocessing`'s pickler, shares it under a name.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any


def dumps_with_tensors(it: object, keep: Callable[[pickle.PickleBuffer], object] | None) -> bytes:
    """Pickle `it` by protocol 5, with the buffers of its tensors for `keep`."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=keep)
    torch: Any = sys.modules["torch"]
    tensor = getattr(torch, "Tensor", None)  # absent while torch is being imported, on another thread
    if tensor is not None:
        pickler.dispatch_table = {**copyreg.dispatch_table, tensor: _reduce}
    pickler.dump(it)
    return file.getvalue()


def _reduce(tensor: Any) -> Any:
    torch: Any = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_quantized
    if not plain or tensor.numel() == 0 or (tensor.requires_grad and tensor.grad_fn is not None):
        return tensor.__reduce_ex__(5)
    data = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = data.flatten().view(torch.uint8).numpy()
    return _tensor, (pickle.PickleBuffer(raw), data.dtype, tuple(data.shape), tensor.requires_grad)


def _tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415 - it is no dependency

    whole = memoryview(buffer)
    tensor = torch.frombuffer(bytearray(whole) if whole.readonly else whole, dtype=dtype)
    return tensor.reshape(shape).requires_grad_(requires_grad)
