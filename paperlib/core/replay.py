"""A step that is taken many times: a GPU records it once, and then takes it without Python."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # steps before it is recorded, in which libraries choose their programs


class Replayed:
    """A step that does the same work in every call: on a CPU the step itself, on a GPU a recording.

    There the first few calls are the step, and so are calls with tensors of other shapes. Then it
    is recorded as a CUDA graph, which reads copies of the tensors and is played at every call. What
    it returns, and whatever else it wrote, is overwritten by the next call.

    Example:
        >>> import torch
        >>> from paperlib.core.replay import Replayed
        >>> total = torch.zeros(())
        >>> add = Replayed(lambda number: total.add_(number))
        >>> [float(add(torch.tensor(float(number)))) for number in range(4)]
        [0.0, 1.0, 3.0, 6.0]

    Args:
        work: the step, from tensors to whatever. It may change other tensors, in place, and must
            not read a number of the GPU's, which ends the recording with an error.
    """

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self._taken = 0
        self._inputs: tuple[Tensor, ...] = ()
        self._result: Any = None
        self._graph: Any = None
        self._stream: Any = None

    def __call__(self, *tensors: Tensor) -> Any:
        if not tensors[0].is_cuda:
            return self.work(*tensors)
        if self._stream is None:
            self._stream = torch.cuda.Stream(tensors[0].device)
            self._inputs = tuple(tensor.clone() for tensor in tensors)
        here = torch.cuda.current_stream(tensors[0].device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = self._take(tensors)
        here.wait_stream(self._stream)
        return result

    def _take(self, tensors: tuple[Tensor, ...]) -> Any:
        pairs = list(zip(self._inputs, tensors, strict=True))
        if self._taken < WARM_UP or any(own.shape != given.shape for own, given in pairs):
            self._taken += 1
            return self.work(*tensors)
        for own, given in pairs:
            own.copy_(given)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._result = self.work(*self._inputs)
        self._graph.replay()
        return self._result


def exact_products() -> AbstractContextManager[Any]:
    """Return a context in which a GPU convolves in float32; torch's own way rounds to 10 bits.

    Example:
        >>> import torch
        >>> from paperlib.core.replay import exact_products
        >>> with exact_products():
        ...     torch.backends.cudnn.allow_tf32
        False
    """
    flags: Any = torch.backends.cudnn.flags
    return flags(enabled=True, allow_tf32=False)
