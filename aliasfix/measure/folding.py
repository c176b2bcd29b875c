"""How much of what a network samples is above what its sampling can carry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aliasfix import surgery
from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images, batches, load
from aliasfix.layers.batches import whole_batches
from aliasfix.layers.build import is_low_pass_layer
from aliasfix.measure.drawing import Table
from aliasfix.measure.metric import Metric
from aliasfix.measure.running import running
from aliasfix.measure.subject import Subject
from aliasfix.planning.plan import Step
from aliasfix.planning.rule import by_op, per_axis, spatial_axes
from aliasfix.running import call_stack

if TYPE_CHECKING:
    from aliasfix.comparison.result import Comparison

SUBSAMPLES = ("average_pool", "blur_pool", "lp_pool", "max_pool", "strided_conv")
"""The rules whose operations evaluate a dense map at every s-th sample, s their argument."""
OF_OUTPUT = ("stride", "start", "size")
"""Arguments that say where the samples lie that are kept."""


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

    Source: the sampling theorem, as in Zhang 2019 (ICML), Sec. 3; measured in networks by Ribeiro &
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
    """Fold-over at every call of a network that keeps every s-th sample.

    The calls are convolutions, poolings and blurs of stride above 1, of layers or as functions, as they are run: in a
    converted network the blurs, and what its plan leaves strided. Each is run once more at stride 1 on what it is
    given, which yields the map it subsamples.

    Args:
        model: Takes (B, C, H, W); what it returns does not matter.
        images: See `Images`, or `noise` for none; a folder is read at 224 x 224.
        batch_size: Most inputs the model is given at a time.

    Returns:
        By name of the module that calls, in order of the calls: (I,), in [0, 1], see `fold_over`; the mean over
        calls where a module makes several, and over the parts where a call has several of each image (windows,
        frames). nan for an image whose batch is not sampled there, or not by images (regions).

    Raises:
        AliasfixError: No images.

    Source: see `fold_over`.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(1, 2))
    >>> board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    >>> aliasing(model, board[None, None])
    {'1': tensor([1.])}
    """
    found: dict[str, list[Tensor]] = {}
    done = 0
    with running(model, None, "aliasing") as run, whole_batches():
        for batch, _ in batches(load(images, 224, model), batch_size, labels=False):
            with call_stack(model) as stack, _Sampling(stack) as sampling:
                run.forward(run.place(batch))
            for name in {**found, **sampling.calls}:
                earlier = found.setdefault(name, [torch.full((done,), torch.nan)])
                earlier.append(_by_image(sampling.calls.get(name, []), len(batch)))
            done += len(batch)
    return {name: torch.cat(shares) for name, shares in found.items()}


def _by_image(calls: Sequence[Tensor], count: int) -> Tensor:
    """(count,): the mean over the calls that have as many parts of every image."""
    fitting = [call.view(count, -1).nanmean(1).cpu() for call in calls if len(call) and len(call) % count == 0]
    return torch.stack(fitting).nanmean(0) if fitting else torch.full((count,), torch.nan)


class _Sampling(TorchFunctionMode):
    """Takes the fold-over of every call that subsamples, by the name of the module it is made in."""

    def __init__(self, stack: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.calls: dict[str, list[Tensor]] = {}
        self._stack = stack

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        op = getattr(func, "__name__", "")
        rule = next((rule for rule in by_op().get(op, ()) if rule.name in SUBSAMPLES), None)
        if rule is not None:
            bound = rule.bind(op, args, kwargs or {})
            stride = per_axis(bound.get("stride") or bound.get("kernel_size", 1), _axes(op, bound))
            if max(stride) > 1:
                dense = func(
                    **{key: value for key, value in bound.items() if key not in OF_OUTPUT}, stride=(1,) * len(stride)
                )
                whole = dense[0] if isinstance(dense, tuple) else dense  # a pooling that returns its indices too
                self.calls.setdefault(self._stack[-1][0] if self._stack else "", []).append(fold_over(whole, stride))
        return func(*args, **(kwargs or {}))


def _axes(op: str, bound: Mapping[str, Any]) -> int:
    given = {"blur_pool": "kernel", "ideal_pool": "rate"}.get(op)
    return spatial_axes(op) if given is None else len(bound[given].shape if given == "kernel" else bound[given])


def sampled_at(model: nn.Module, step: Step) -> list[str]:
    """The modules of a model that subsample for one step of a plan, as `aliasing` names them."""
    if surgery.executed(model) is None or step.action == "keep":
        return [step.path]
    hosts = {edit.path for edit in step.edits if edit.inserted}
    blurs = [
        f"{host}.{name}" if host else name
        for host in hosts
        for name, child in model.get_submodule(host).named_children()
        if is_low_pass_layer(child) and max(child.stride) > 1
    ]
    return [*blurs, step.path] if step.form in ("blur-first", "split") else blurs


def at_sites(subject: Subject) -> list[tuple[str, Tensor]]:
    """Measure the fold-over at each sampling site of the plan: its path, and (I,), the most of its modules.

    Where a module has nan for an image, the others decide.

    Raises:
        AliasfixError: the model subsamples at none of them.
    """
    images = subject.views.centres(subject.setting.feature_images)
    shares = aliasing(subject.model, images, batch_size=subject.setting.batch_size)
    found = []
    for step in subject.plan or ():
        if at := [shares[name] for name in sampled_at(subject.model, step) if name in shares]:
            found.append((step.path, functools.reduce(torch.fmax, at)))
    if not found:
        raise AliasfixError("no strided module subsamples at a site of the plan")
    return found


def table(found: Comparison) -> Table | None:
    """List the share of both networks at each sampling site."""
    if not found.sites:
        return None
    text = "Of the energy of what is sampled at each site, the share that is too fine for the new grid and folds over."
    rows = [[path or "(model)", *(f"{share:.1%}" for share in pair)] for path, pair in found.sites.items()]
    return Table("Aliasing at the sampling sites", text, ("site", *found.names), rows)


ALIASING = Metric(
    "aliasing",
    "energy that folds over at the sampling sites",
    "lower",
    lambda subject: torch.stack([shares for _, shares in subject.once(at_sites)]).nanmean(0),
    needs=("sites",),
    order=140,
    table=table,
)
