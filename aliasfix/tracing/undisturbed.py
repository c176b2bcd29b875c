"""Run a model and restore its state and the random number generators afterwards."""

import contextlib
import copy
import gc
import random
import sys
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(model: nn.Module, training: bool) -> Iterator[None]:
    """Put every module into one mode, without gradients; restore everything at the end.

    Restored are the attributes, parameters, buffers, children and caches of the modules, and the random number
    generators of Python, NumPy and PyTorch.
    """
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    tables = [(dict(m._parameters), dict(m._buffers), dict(m._modules)) for m in modules]
    caches = [
        (value, copy.copy(value)) for each in attributes for value in each.values() if type(value) in (dict, list, set)
    ]
    python_state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        for module in modules:
            module.__dict__["training"] = training
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        for cache, content in caches:
            cache.clear()
            (cache.extend if isinstance(cache, list) else cache.update)(content)
        for module, before, (parameters, buffers, children) in zip(modules, attributes, tables, strict=True):
            module.__dict__.clear()
            module.__dict__.update(before)
            for name, table in (("_parameters", parameters), ("_buffers", buffers), ("_modules", children)):
                live = getattr(module, name)
                live.clear()
                live.update(table)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Stop the garbage collector, which would walk all objects again and again during a pass."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
