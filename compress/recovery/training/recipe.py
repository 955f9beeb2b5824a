"""How to train, as plain data, and the recipes that have a name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from compress.core.errors import UsageError
from compress.core.registry import Registry


class Optimizer(StrEnum):
    """What turns gradients into steps. SGD has Nesterov momentum; Adam's decay is coupled, AdamW's is not."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate falls after the warm-up.

    cosine: to zero over the whole training. tail: constant, then a cosine to zero over the last `tail` epochs.
    steps: a tenth at half of the training, a hundredth at three quarters. constant: not at all.
    """

    COSINE = "cosine"
    TAIL = "tail"
    STEPS = "steps"
    CONSTANT = "constant"


class Precision(StrEnum):
    """In what the network computes; its weights and the optimiser stay in float32.

    auto: bfloat16 where the processor multiplies it in hardware (AVX-512 BF16 or AMX; CUDA from Ampere on), else
    float16 on CUDA, else float32.
    """

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Regularizer(StrEnum):
    """What `sparsity` pulls towards zero: single BatchNorm scales, or whole channels with all that leaves with them."""

    BN = "bn"
    GROUP_LASSO = "group-lasso"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what the weights become, besides the images and the first weights.

    `batch_size` counts the images of one step over all processes. `warmup` is a fraction of the training, `tail`
    epochs, `decay` falls on matrices and kernels only. `smoothing` is label smoothing's epsilon, `ema` the weight of
    the past in the running average of the weights (0: none). `pad` is how many pixels an image is padded by before it
    is cropped at a random place, `flip` mirrors every other one. `channels_last` stores kernels and maps with the
    channels innermost, which changes speed and rounding only. `sparsity` is s of the penalty that `regularizer` names
    (0: none), `shifts` pulls the BatchNorm shifts too; `scale` is what BatchNorm scales start from (None: as they are).
    `clip` bounds the norm of the gradient (0: not). `patience` epochs without a better one end the training (0: never).
    `held_out` is the fraction of the training images on which the best epoch is found, at most `HELD_OUT_MOST` of them.

    >>> Recipe(epochs=3).with_values(lr=0.05, epochs=None)
    Recipe(epochs=3, batch_size=128, lr=0.05, ...)
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    optimizer: Optimizer = Optimizer.SGD
    momentum: float = 0.9
    decay: float = 5e-4
    schedule: Schedule = Schedule.COSINE
    warmup: float = 0.0
    tail: float = 0.0
    smoothing: float = 0.0
    ema: float = 0.0
    flip: bool = True
    pad: int = 0
    clip: float = 0.0
    sparsity: float = 0.0
    regularizer: Regularizer = Regularizer.BN
    shifts: bool = False
    scale: float | None = None
    precision: Precision = Precision.AUTO
    channels_last: bool = False
    patience: int = 0
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; UsageError names the value."""
        whole = {"epochs": self.epochs, "batch size": self.batch_size}
        for name, value in whole.items():
            _require(value >= 1, f"{name} must be at least 1, got {value}", "--epochs 10 --batch-size 128")
        _require(0 < self.lr < float("inf"), f"the learning rate must be positive, got {self.lr:g}", "--lr 0.05")
        fractions = {
            "momentum": self.momentum,
            "label smoothing": self.smoothing,
            "ema": self.ema,
            "warm-up": self.warmup,
        }
        for name, number in {**fractions, "held-out part": self.held_out}.items():
            _require(0 <= number < 1, f"{name} must be in [0, 1), got {number:g}", "0 switches it off")
        others = {"decay": self.decay, "tail": self.tail, "sparsity": self.sparsity}
        others |= {"clip": self.clip, "pad": self.pad, "patience": self.patience}
        for name, number in others.items():
            _require(0 <= number < float("inf"), f"{name} must not be negative, got {number:g}", "0 switches it off")
        _require(
            self.warmup * self.epochs + self.tail <= self.epochs,
            f"warm-up ({self.warmup:g} of the training) and tail ({self.tail:g} epochs) do not fit into {self.epochs}",
            "give more epochs, or less of these",
        )

    def with_values(self, **given: object) -> Recipe:
        """Return the recipe with what is given and not None."""
        from dataclasses import replace

        return replace(self, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _require(holds: bool, what: str, fix: str) -> None:
    if not holds:
        raise UsageError(what, fix=f"for example {fix}" if fix.startswith("--") else fix)


# Images on which the best epoch is found: more of them cost time and decide no better.
HELD_OUT_MOST = 5000

# After a cut the weights are nearly right: few epochs, a small rate, a short warm-up. No mirroring: labels may hang on
# left and right (digits, text).
FINETUNE = Recipe(epochs=3, lr=0.02, warmup=0.05, decay=1e-4, pad=2, flip=False)
DISTILL = Recipe(epochs=3, lr=0.02, warmup=0.05, decay=0.0, pad=2, flip=False)

RECIPES: Registry[Recipe] = Registry("recipe")
RECIPES.add("plain", Recipe(epochs=10, warmup=0.1, pad=2))
# Liu et al., ICCV 2017 (arXiv:1708.06519), section 4.2
RECIPES.add(
    "slimming",
    Recipe(epochs=160, batch_size=64, decay=1e-4, schedule=Schedule.STEPS, pad=4, sparsity=1e-4, scale=0.5),
)
# a constant rate, then a cosine over the second half; for activation-ranked pruning of single layers
RECIPES.add(
    "activation",
    Recipe(
        epochs=30, batch_size=512, lr=1e-2, optimizer=Optimizer.ADAM, decay=1e-5, schedule=Schedule.TAIL, tail=15, pad=4
    ),
)
