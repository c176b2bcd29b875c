"""How steady a network is when its input shifts: the metrics of the papers, on any model and any images."""

from aliasfix.images.folder import ImageFolder
from aliasfix.measure.adversary import withstands
from aliasfix.measure.consistency import Consistency, circular_consistency, crop_consistency, grid_consistency
from aliasfix.measure.corruptions import CorruptionErrors, corruption_errors, mean_corruption_error
from aliasfix.measure.features import FeatureDistance, feature_distance
from aliasfix.measure.folding import aliasing, fold_over, noise
from aliasfix.measure.image_to_image import label_agreement, output_variation, stability, total_variation
from aliasfix.measure.learned_filters import filter_variation
from aliasfix.measure.metric import Metric
from aliasfix.measure.positions import accuracy_by_position
from aliasfix.measure.probability_variation import variation
from aliasfix.measure.shifts import circular, crop, diagonal, every, grid, heat_map
from aliasfix.measure.subject import Subject
from aliasfix.measure.sweeping import Sweep, sweep

__all__ = [
    "Consistency",
    "CorruptionErrors",
    "FeatureDistance",
    "ImageFolder",
    "Metric",
    "Subject",
    "Sweep",
    "accuracy_by_position",
    "aliasing",
    "circular",
    "circular_consistency",
    "corruption_errors",
    "crop",
    "crop_consistency",
    "diagonal",
    "every",
    "feature_distance",
    "filter_variation",
    "fold_over",
    "grid",
    "grid_consistency",
    "heat_map",
    "label_agreement",
    "mean_corruption_error",
    "noise",
    "output_variation",
    "stability",
    "sweep",
    "total_variation",
    "variation",
    "withstands",
]
