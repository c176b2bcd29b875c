"""How much of what a network samples is above what its sampling can carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.measure.inputs import Images, batches, load
from aliasfix.measure.running import running

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_over(dense: Tensor, stride: Sequence[int]) -> Tensor:
    """Share of a subsampled map's energy that folded over from above its Nyquist frequency.

    Keeping every s-th sample of `dense` keeps what is below 1/(2s) cycles per sample and folds the rest onto
    it. Over the s·s phases of the subsampling, that is over shifts of the input, the mean energy of the
    output is that of `dense` / s², and of its folded part that of the part of `dense` at or above 1/(2s) on
    any axis / s² (Parseval; the two parts do not correlate). Their ratio is returned. The map is taken as
    periodic.

    Args:
        dense: (B, C, ...), the map before subsampling; its last `len(stride)` axes are the spatial ones.
        stride: Samples kept on each spatial axis: every s-th. An axis of stride 1 folds nothing.

    Returns:
        (B,), in [0, 1]; 0 for a map that is band-limited to the new sampling, nan for a map of zeros.

    Raises:
        AliasfixError: More strides than spatial axes.

    Source: the sampling theorem, as in Zhang 2019 (ICML), Sec. 1 and 3.2; measured in networks by Ribeiro &
    Schön 2021 (ICASSP).

    >>> alternating = torch.tensor([1.0, -1.0]).repeat(4)
    >>> fold_over(torch.stack([alternating, alternating + 1, torch.ones(8)])[:, None], [2])
    tensor([1.0000, 0.5000, 0.0000])
    """
    if len(stride) > dense.ndim - 2:
        raise AliasfixError(f"a map of shape {tuple(dense.shape)} has no {len(stride)} spatial axes to subsample")
    dense = dense.to(torch.promote_types(dense.dtype, torch.float32))
    axes = range(dense.ndim - len(stride), dense.ndim)
    energy = torch.fft.fftn(dense, dim=tuple(axes)).abs().square()
    below = torch.ones((), dtype=torch.bool, device=dense.device)
    for axis, s in zip(axes, stride, strict=True):
        size = dense.shape[axis]
        k = torch.arange(size, device=dense.device)
        passes = (2 * s * torch.minimum(k, size - k) < size) | (s == 1)
        below = below & passes.view(-1, *[1] * (dense.ndim - 1 - axis))
    share: Tensor = (energy * ~below).flatten(1).sum(1) / energy.flatten(1).sum(1)
    return share


def noise(count: int, shape: Sequence[int] = (3, 224, 224), seed: int = 0) -> Iterator[Tensor]:
    """White Gaussian images of mean 0 and variance 1, for measuring a network without data.

    Returns:
        An iterator of `count` tensors of `shape` (C, H, W).

    >>> [tuple(image.shape) for image in noise(2, (1, 8, 8))]
    [(1, 8, 8), (1, 8, 8)]
    """
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=random) for _ in range(count))


def aliasing(model: nn.Module, images: Images, *, batch_size: int = 16) -> dict[str, Tensor]:
    """Fold-over at every strided layer of a network.

    The layers are the modules without children that have a `stride` above 1 and read it as they run
    (convolutions, pooling, blurs); each is run once more at stride 1 on what it is given, which yields the
    map it subsamples. Transposed convolutions do not subsample and are left out.

    Args:
        model: Takes (B, C, H, W); what it returns does not matter.
        images: See `Images`, or `noise` for none; a folder is read at 224 x 224.
        batch_size: Most inputs the model is given at a time.

    Returns:
        By name of the layer, in order of the calls: (I,), in [0, 1], see `fold_over`; the mean over calls
        where a layer is called several times.

    Raises:
        AliasfixError: No images.

    Source: see `fold_over`.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(1, 2))
    >>> board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    >>> aliasing(model, board[None, None])
    {'1': tensor([1.])}
    """
    found: dict[str, list[Tensor]] = {}
    with running(model, None, "aliasing") as run:
        for batch, _ in batches(load(images, 224), batch_size, labels=False):
            calls: dict[str, list[Tensor]] = {}
            with _watched(model, calls):
                run.forward(run.place(batch))
            for name, shares in calls.items():
                found.setdefault(name, []).append(torch.stack(shares).mean(0).cpu())
    return {name: torch.cat(shares) for name, shares in found.items()}


@contextmanager
def _watched(model: nn.Module, calls: dict[str, list[Tensor]]) -> Iterator[None]:
    """Append the fold-over of every call of the strided layers."""

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        layer: Any = module
        stride = layer.stride
        layer.stride = 1 if isinstance(stride, int) else type(stride)([1] * len(stride))
        try:
            dense = layer.forward(*args)
        finally:
            layer.stride = stride
        if isinstance(dense, tuple):  # a pooling that returns its indices too
            dense, result = dense[0], result[0]
        if dense.shape != result.shape:
            strides = [stride] * (dense.ndim - 2) if isinstance(stride, int) else list(stride)
            calls.setdefault(name, []).append(fold_over(dense, strides))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if _strided(module):
                stack.callback(module.register_forward_hook(partial(hook, name)).remove)
        yield


def _strided(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    above = max(stride) > 1 if isinstance(stride, tuple | list) else isinstance(stride, int) and stride > 1
    return above and not any(module.children()) and not isinstance(module, (*TRANSPOSED, nn.Fold, nn.Unfold))
