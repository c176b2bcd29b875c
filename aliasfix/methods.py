"""The methods of the field, each as a set of a conversion's options.

========  ==============================================================================================
name      options
========  ==============================================================================================
blur      the defaults: a blur at every sampling operation (Zhang, ICML 2019)
aps       adaptive phase, no blur, circular borders, all stems (Chaman & Dokmanić, CVPR 2021)
aps-3     the same with the blur ``tri3``
afc       ideal low-pass, polynomials of degree 2, alias-free norms, averages, circular borders, all stems (Michaeli
          et al., CVPR 2023); `aliasfix.fit_polynomials` fits the polynomials
stylegan3 Kaiser's filter, also around every activation (Karras et al., NeurIPS 2021)
========  ==============================================================================================

A method is independent of the model: `aliasfix.guarantee` says what it guarantees of one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .errors import AliasfixError

_APS: Mapping[str, Any] = MappingProxyType(
    {"filter": "delta1", "padding": "circular", "stem": "whole", "phase": "adaptive"}
)
_AFC: Mapping[str, Any] = MappingProxyType(
    {
        **{"filter": "ideal", "padding": "circular", "stem": "whole"},
        **{"activation": "polynomial", "norm": "alias-free", "pool": "average"},
    }
)
_STYLEGAN3: Mapping[str, Any] = MappingProxyType({"filter": "kaiser", "activation": "filtered"})
_METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"afc": _AFC, "aps": _APS, "aps-3": {**_APS, "filter": "tri3"}, "blur": {}, "stylegan3": _STYLEGAN3}
)


def names() -> list[str]:
    """Return the names of the methods.

    >>> names()
    ['afc', 'aps', 'aps-3', 'blur', 'stylegan3']
    """
    return sorted(_METHODS)


def options(method: str) -> Mapping[str, Any]:
    """Return the options of a method; those that it leaves out have their defaults.

    Raises:
        AliasfixError: there is no such method.

    >>> options("aps")["phase"]
    'adaptive'
    """
    if method not in _METHODS:
        raise AliasfixError(f"method={method!r}: choose one of {', '.join(names())}")
    return _METHODS[method]


def describe(method: str) -> str:
    """Return the options of a method in words.

    >>> describe("aps")
    'filter=delta1, padding=circular, stem=whole, phase=adaptive'
    """
    return ", ".join(f"{name}={value}" for name, value in options(method).items()) or "the defaults"
