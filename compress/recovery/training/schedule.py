"""The learning rate at every step, as a function of the step alone, so that nothing has to be saved of it."""

from __future__ import annotations

import math

from compress.recovery.training.recipe import Recipe, Schedule


def rate(recipe: Recipe, step: int, each: int) -> float:
    """Return the learning rate of step `step` (from 0) where an epoch has `each` steps.

    Warm-up rises in equal steps from lr / n to lr over its n steps. A cosine over n steps gives
    lr (1 + cos(pi k / n)) / 2 at its k-th (Loshchilov and Hutter, arXiv:1608.03983).

    >>> recipe = Recipe(epochs=4, lr=1.0, warmup=0.25)
    >>> [round(rate(recipe, step, 2), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
    >>> tail = Recipe(epochs=4, lr=1.0, schedule=Schedule.TAIL, tail=2)
    >>> [round(rate(tail, step, 1), 3) for step in range(4)]
    [1.0, 1.0, 1.0, 0.5]
    """
    total = recipe.epochs * each
    warm = round(recipe.warmup * total)
    if step < warm:
        return recipe.lr * (step + 1) / warm
    match recipe.schedule:
        case Schedule.COSINE:
            return recipe.lr * _cosine(step - warm, total - warm)
        case Schedule.TAIL:
            tail = round(recipe.tail * each)
            return recipe.lr * _cosine(max(step - (total - tail), 0), max(tail, 1))
        case Schedule.STEPS:
            return recipe.lr * 0.1 ** sum(step >= total * part for part in (0.5, 0.75))
        case Schedule.CONSTANT:
            return recipe.lr


def _cosine(done: int, total: int) -> float:
    return (1 + math.cos(math.pi * done / total)) / 2
