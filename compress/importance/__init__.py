"""Groups -> scores: one kind of criterion a file, each a registered function of (group, weights)."""

from compress.importance import activity, constancy, gradients, magnitude, reconstruction
from compress.importance.criteria import CRITERIA, Criterion, Scores, Weights, default_criterion, score
from compress.importance.evidence import Evidence
from compress.importance.reconstruction import remarks

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Scores",
    "Weights",
    "activity",
    "constancy",
    "default_criterion",
    "gradients",
    "magnitude",
    "reconstruction",
    "remarks",
    "score",
]
