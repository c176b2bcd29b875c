"""The cost of a step or of a model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """Computation and memory.

    Args:
        multiply_adds: the multiply-adds of convolutions, blurs and matrix products.
        activations: the bytes of new tensors; a view or an operation in place makes none.
        traffic: the bytes that are moved if each operation reads its inputs once and writes its output once.
    """

    multiply_adds: int = 0
    activations: int = 0
    traffic: int = 0

    def describe(self, quantity: str) -> str:
        """Return its ``multiply_adds`` or ``activations`` in words."""
        if quantity == "multiply_adds":
            return f"{_millions(self.multiply_adds)} million multiply-adds"
        return f"{_mebibytes(self.activations)} MiB of activations"

    def __add__(self, other: "Price") -> "Price":
        return Price(
            self.multiply_adds + other.multiply_adds,
            self.activations + other.activations,
            self.traffic + other.traffic,
        )


@dataclass(frozen=True)
class Cost:
    """The price of a step or of a model, before and after the conversion."""

    original: Price = Price()
    converted: Price = Price()

    @property
    def difference(self) -> Price:
        """What the conversion adds."""
        before, after = dataclasses.astuple(self.original), dataclasses.astuple(self.converted)
        return Price(*(b - a for a, b in zip(before, after, strict=True)))

    @property
    def ratio(self) -> float:
        """Multiply-adds, converted to original; 1 where there are none."""
        return _ratio(self.original.multiply_adds, self.converted.multiply_adds)

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, int]] | None) -> "Cost | None":
        """Return the cost that was stored, None if there is none."""
        return None if data is None else cls(Price(**data["original"]), Price(**data["converted"]))

    @property
    def columns(self) -> tuple[str, str]:
        """Multiply-adds in millions and activations in MiB; as before → after if they differ."""
        adds = [_millions(price.multiply_adds) for price in (self.original, self.converted)]
        maps = [_mebibytes(price.activations) for price in (self.original, self.converted)]
        return " → ".join(dict.fromkeys(adds)), " → ".join(dict.fromkeys(maps))

    @property
    def line(self) -> str:
        """Multiply-adds and activations in one line."""
        before, after = self.original, self.converted
        adds, maps = self.columns
        memory = _ratio(before.activations, after.activations)
        return f"{adds} million multiply-adds (×{self.ratio:.2f}), {maps} MiB of activations (×{memory:.2f})"


def _ratio(before: int, after: int) -> float:
    return after / before if before else 1.0


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f}"
