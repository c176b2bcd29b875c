"""Anti-alias any trained PyTorch network, keeping its weights."""

from . import filters
from .calibration import Calibration, calibrate
from .checks.guarantee import Guarantee, guarantee
from .checks.laws import Verification, verify
from .comparison import Comparison, FilterSweep, compare, compare_filters
from .conversion import convert, inspect, report, revert
from .errors import AliasfixError, DoubtWarning, LatticeWarning, NoEffectWarning
from .families import Returned
from .files import registration
from .files.converting import ConvertedFile, convert_file
from .files.exporting import export
from .files.hub import push_to_hub
from .files.store import load, save
from .finetuning import Finetuning, finetune
from .images.preprocessing import Preprocessing
from .planning.plan import Plan, Step
from .polynomials import Fitted, fit_polynomials
from .recipe import Recipe
from .version import __version__ as __version__

registration.install()

__all__ = [
    "AliasfixError",
    "Calibration",
    "Comparison",
    "ConvertedFile",
    "DoubtWarning",
    "FilterSweep",
    "Finetuning",
    "Fitted",
    "Guarantee",
    "LatticeWarning",
    "NoEffectWarning",
    "Plan",
    "Preprocessing",
    "Recipe",
    "Returned",
    "Step",
    "Verification",
    "calibrate",
    "compare",
    "compare_filters",
    "convert",
    "convert_file",
    "export",
    "filters",
    "finetune",
    "fit_polynomials",
    "guarantee",
    "inspect",
    "load",
    "push_to_hub",
    "report",
    "revert",
    "save",
    "verify",
]
