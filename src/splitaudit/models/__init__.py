"""Models: the zoo, cutting any model at named layers, and what each cut costs."""

from splitaudit.models.costs import CutPoint, legal_cuts
from splitaudit.models.cutting import Split, cut
from splitaudit.models.split import Normalize, SplitModel, build_split_model
from splitaudit.models.zoo import build_model, model_names, named_depths

__all__ = [
    "CutPoint",
    "Normalize",
    "Split",
    "SplitModel",
    "build_model",
    "build_split_model",
    "cut",
    "legal_cuts",
    "model_names",
    "named_depths",
]
