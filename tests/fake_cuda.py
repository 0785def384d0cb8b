"""A GPU that is made up: tensors on `cuda` with shapes and types, but without numbers.

torch's own FakeTensorMode runs every operator's shape function instead of its kernel. So it checks,
on a machine without a GPU, what a GPU would refuse: tensors of two devices in one product, types
that do not go together (autocast has other rules on a GPU than on a CPU), and shapes. Whatever
needs a number that lies on the device (`float(x)`, `.item()`, `nonzero`) raises; copies that the
program would wait for are listed.

What it cannot show: numbers, speed, memory, and the choice among a GPU's kernels. Autograd's engine
wants a real device: `without_autograd` leaves the backward pass out, which runs on the `meta`
device instead (`on_meta`), where devices and shapes are checked too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.cuda._utils import _get_device_index
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, META = torch.device("cuda", 0), torch.device("meta")
_ROOT = Path(__file__).resolve().parents[1]
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.to)
_INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


class Waits(TorchDispatchMode):
    """Lists what makes a program wait for its GPU without reading a number of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        """What, and the line of the project that asked for it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket in _COPIES:
            self._copy(func, args, kwargs, result)
        elif func in _INDEXING and args[0].is_cuda:
            for index in args[1]:
                if index is not None and not index.is_cuda:
                    self._note("an index that lies on the CPU")
                elif index is not None and index.dtype in (torch.bool, torch.uint8):
                    self._note("a mask as an index")
        return result

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: Any, result: Tensor) -> None:
        source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
        place = [argument.name for argument in func._schema.arguments].index("non_blocking")
        goes_on = args[place] if len(args) > place else kwargs.get("non_blocking", False)
        if source.is_cuda and not result.is_cuda:
            self._note("a copy from the device")
        elif result.is_cuda and not source.is_cuda and not goes_on and source.dim() > 0:
            self._note("a copy to the device")

    def _note(self, what: str) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if "transformers" in path.parts:
                self.found.append(f"transformers, {path.name}:{frame.f_lineno}: {what}")
                return
            if path.is_relative_to(_ROOT / "discovla") or path.is_relative_to(_ROOT / "benchmarks"):
                self.found.append(f"{path.relative_to(_ROOT)}:{frame.f_lineno}: {what}")
                return
            frame = frame.f_back
        self.found.append(what)


class _Fake(FakeTensorMode):
    avoid_device_init = True  # whatever `is_available` says, there is none to open

    def __init__(self) -> None:
        # Real tensors of the CPU may come in, from threads too; beside `cuda` they are refused.
        super().__init__(allow_non_fake_inputs=True)


@contextmanager
def fake_cuda() -> Iterator[Waits]:
    """A machine with two made-up GPUs of Hopper's kind, as far as shapes and types go."""
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "set_device": lambda device: _get_device_index(device),  # refuses one without number
        "_exchange_device": lambda number: 0,  # what `torch.cuda.device` does, and undoes
        "_maybe_exchange_device": lambda number: 0,
        "get_device_properties": lambda device=None: SimpleNamespace(
            uuid=f"made-up-{_get_device_index(device, optional=True)}", total_memory=80 * 10**9
        ),
        "is_bf16_supported": lambda *args, **kwargs: True,
        "get_device_capability": lambda device=None: (9, 0),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (70 * 10**9, 80 * 10**9),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
    }
    with ExitStack() as stack:
        for name, function in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(
            mock.patch.object(
                torch.cuda.amp.common, "amp_definitely_not_available", return_value=False
            )
        )
        stack.enter_context(_Fake())
        yield stack.enter_context(Waits())


@contextmanager
def without_autograd() -> Iterator[None]:
    """Gradients are asked for, of the right shape, type and device; nothing computes them."""

    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
        return [torch.empty_like(tensor) for tensor in inputs]

    def backward(tensors: Any, grads: Any = None, *args: Any, **kwargs: Any) -> None:
        if not isinstance(tensors, list):
            tensors, grads = [tensors], [grads]
        for tensor, found in zip(tensors, grads, strict=True):
            assert found is None or (tensor.shape, tensor.device) == (found.shape, found.device)

    with (
        mock.patch.object(torch.autograd, "grad", grad),
        mock.patch.object(torch.autograd, "backward", backward),
    ):
        yield


@contextmanager
def on_meta() -> Iterator[None]:
    """The `meta` device, whose autograd is the real one and which knows no autocast."""
    with (
        mock.patch.object(torch, "autocast", return_value=nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", return_value=False),
    ):
        yield


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """The module there: parameters and buffers of the same shapes and types, without numbers."""

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                made = nn.Parameter(_empty(parameter, device), parameter.requires_grad)
                part._parameters[name] = made
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _empty(buffer, device)
    return module


def like(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of the same shapes and types there, without numbers."""
    return {name: _empty(tensor, device) for name, tensor in batch.items()}


def _empty(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def untrimmed(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """`to_device` without its look at the masks, which lie on the CPU where it is called."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def raises_for(reads: Callable[[], Any]) -> bool:
    """Whether something needs a number of the device."""
    try:
        reads()
    except (
        torch._subclasses.fake_tensor.DataDependentOutputException,
        torch._subclasses.fake_tensor.DynamicOutputShapeException,
    ):
        return True
    return False
