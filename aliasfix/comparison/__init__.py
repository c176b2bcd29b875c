"""Two networks side by side: the same measures on both, with what is certain about the difference."""

from aliasfix.comparison.comparison import compare
from aliasfix.comparison.filter_sweep import FilterRow, FilterSweep, compare_filters
from aliasfix.comparison.result import Comparison, Curve, Layer, Measure
from aliasfix.comparison.stages import Stages, compare_stages

__all__ = [
    "Comparison", "Curve", "FilterRow", "FilterSweep", "Layer", "Measure", "Stages", "compare", "compare_filters",
    "compare_stages",
]  # fmt: skip
