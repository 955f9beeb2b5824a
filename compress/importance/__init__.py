"""Groups -> scores: one criterion a file, each a registered function of (group, weights)."""

from compress.importance.criteria import CRITERIA, Criterion, Scores, Weights, default_criterion, score

__all__ = ["CRITERIA", "Criterion", "Scores", "Weights", "default_criterion", "score"]
