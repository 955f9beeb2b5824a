"""The training engine: what its numbers are, and that nothing that interrupts it changes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import compress
from compress.core.errors import CheckpointError, DataError, TrainingError, UsageError
from compress.core.progress import Silent
from compress.graph.analyse import analyse
from compress.recovery.finetune import cross_entropy, finetune, marks_by
from compress.recovery.training.augment import Shifts, changed, drawn
from compress.recovery.training.judging import Judge, Score
from compress.recovery.training.lasso import channels_of, norms, pull_groups
from compress.recovery.training.loop import Task, Trained, train
from compress.recovery.training.optimizers import optimizer_for
from compress.recovery.training.recipe import RECIPES, Optimizer, Precision, Recipe, Schedule
from compress.recovery.training.samples import InMemory, Samples
from compress.recovery.training.schedule import rate
from compress.recovery.training.sparsity import pull, scales, start_scales
from compress.recovery.training.state import Keep, require_unfinished_is_wanted
from compress.recovery.training.team import Team

ALONE = Team(0, 1, torch.device("cpu"))
EXACT = Recipe(epochs=3, batch_size=64, lr=0.05, pad=1, precision=Precision.FLOAT32, ema=0.9, flip=False)


def digits() -> tuple[Samples, Samples]:
    """Return scikit-learn's digits, 800 to learn from and 200 held out, values in [0, 1]."""
    table = load_digits()
    x = torch.tensor(table.images[:1000], dtype=torch.float32)[:, None] / 16
    y = torch.tensor(table.target[:1000])
    return Samples(InMemory(x[:800]), y[:800]), Samples(InMemory(x[800:]), y[800:])


def net(*, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Return a small network with BatchNorm for 8 x 8 images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(96, 10),
    )


def alike(one: nn.Module, two: nn.Module) -> bool:
    """Whether two modules hold the same numbers, bit for bit."""
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_small_network_learns_digits() -> None:
    """Six epochs bring the held-out accuracy above 85 %, and the training loss below a third of the first epoch's."""
    module = net()
    samples, held = digits()
    done = finetune(module, samples, held, replace(EXACT, epochs=6, ema=0.0), ALONE, Silent())
    assert done.best is not None
    assert done.best.right > 0.85
    assert done.epochs[-1].loss < done.epochs[0].loss / 3
    again = Judge(held.inputs, marks_by(held.labels))(module, ALONE)  # type: ignore[arg-type]
    assert again == done.best


def test_channels_last_trains_to_the_same_network() -> None:
    """The weights after a training are the same up to rounding, and their layout is what it was."""
    samples, held = digits()
    recipe = replace(EXACT, epochs=1, ema=0.0, lr=0.01)
    first, last, new = net(), net(), net()
    layouts: list[bool] = []
    last[4].register_forward_hook(
        lambda _m, _x, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous())
    )
    finetune(first, samples, held, recipe, ALONE, Silent())
    finetune(last, samples, held, replace(recipe, channels_last=True), ALONE, Silent())
    assert all(layouts[2:])  # the first two look whether the labels fit
    assert len(layouts) > 12

    def apart(one: nn.Module, two: nn.Module) -> float:
        """The largest difference of any weight."""
        return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    assert apart(first, last) < 1e-6
    assert apart(last, new) > 0.01
    assert all(p.is_contiguous() for p in last.parameters())


def test_code_that_cannot_have_its_channels_last_is_refused() -> None:
    """A network that views a map as a row says so before a step is taken, and keeps its weights and their layout."""

    class Viewing(nn.Module):
        """Its map is viewed, not flattened."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

        def forward(self, x: Tensor) -> Tensor:
            """Return the logits."""
            logits: Tensor = self.head(self.conv(x).view(len(x), -1))
            return logits

    module, (samples, held) = Viewing(), digits()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UsageError, match="does not run with its channels last") as refused:
        finetune(module, samples, held, replace(EXACT, channels_last=True), ALONE, Silent())
    assert "--channels-last" in str(refused.value.fix)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module.conv.weight.is_contiguous()
    finetune(module, samples, held, replace(EXACT, epochs=1), ALONE, Silent())


class Kill(Exception):  # noqa: N818 - it stands for a signal
    """The process dies here."""


def dying(after: int) -> Callable[[nn.Module, Tensor, Tensor | None], Tensor]:
    """Return a loss that kills the training at a step."""
    plain, calls = cross_entropy(0.1), 0

    def loss(module: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Kill
        return plain(module, x, y)

    return loss


@pytest.mark.parametrize(
    ("optimizer", "killed_at"),
    [(Optimizer.SGD, 1), (Optimizer.SGD, 17), (Optimizer.SGD, 24), (Optimizer.ADAM, 30), (Optimizer.ADAMW, 5)],
)
def test_a_killed_training_goes_on_to_the_same_numbers(tmp_path: Path, optimizer: Optimizer, killed_at: int) -> None:
    """Killed at any step and resumed, the weights are bit for bit those of a training that was left alone."""
    samples, held = digits()
    recipe = replace(EXACT, optimizer=optimizer, lr=0.05 if optimizer is Optimizer.SGD else 0.003, clip=1.0)
    recipe = replace(recipe, channels_last=killed_at == 17)

    def run(module: nn.Module, loss: Callable[..., Tensor], keep: Keep | None) -> Trained:
        judge = Judge(held.inputs, marks_by(held.labels))  # type: ignore[arg-type]
        task = Task(name="t", module=module, samples=samples, loss=loss, judge=judge, incumbent=True)
        return train(task, recipe, ALONE, Silent(), keep=keep)

    whole, broken = net(dropout=0.3), net(dropout=0.3)
    straight = run(whole, dying(10**9), None)
    keep = Keep(tmp_path / "state", every=4)
    with pytest.raises(Kill):
        run(broken, dying(killed_at), keep)
    fresh = net(dropout=0.3)
    resumed = run(fresh, dying(10**9), replace(keep, resume=True))
    assert alike(whole, fresh)
    assert resumed.epochs == straight.epochs
    assert resumed.resumed == (
        killed_at // 12 * 12 if killed_at % 12 < 4 else killed_at // 12 * 12 + killed_at % 12 // 4 * 4
    )


def test_the_average_is_the_formula() -> None:
    """Weights that are kept with ema are the recurrence over the weights after every step."""
    samples, _ = digits()
    recipe = replace(EXACT, epochs=1, momentum=0.0, decay=0.0, ema=0.9, pad=0)
    module, seen = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), []
    plain = cross_entropy(0.0)

    def loss(m: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        seen.append(m[1].weight.detach().clone())  # type: ignore[index,union-attr]
        return plain(m, x, y)

    last: list[Tensor] = []

    def noted(step: int, _steps: int) -> None:
        del step
        last.append(module[1].weight.grad.clone())  # type: ignore[union-attr]

    train(Task(name="t", module=module, samples=samples, loss=loss, pull=lambda _: noted), recipe, ALONE, Silent())
    final = seen[-1] - rate(recipe, 11, 12) * last[-1]
    average = seen[0]
    for step, weights in enumerate([*seen[1:], final]):
        keep = min(0.9, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * weights
    assert torch.allclose(module[1].weight, average, atol=1e-6)  # type: ignore[arg-type]


def test_the_rates_are_those_of_the_recipes() -> None:
    """E3's tail: constant for 15 epochs, then half a cosine; E1's steps: a tenth at a half and at three quarters."""
    activation, slimming = RECIPES["activation"], RECIPES["slimming"]
    rates = [rate(activation, step, 10) for step in range(300)]
    assert rates[:151] == [1e-2] * 151
    assert rates[225] == pytest.approx(5e-3)
    assert rates[299] == pytest.approx(1e-2 * (1 + math.cos(math.pi * 149 / 150)) / 2)
    assert [rate(slimming, e * 7, 7) for e in (0, 79, 80, 119, 120, 159)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    warm = Recipe(epochs=10, lr=1.0, warmup=0.2, schedule=Schedule.CONSTANT)
    assert [rate(warm, s, 2) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_only_kernels_and_matrices_decay() -> None:
    """BatchNorm's parameters and biases are in the group without decay."""
    module = net()
    groups = optimizer_for(module, Recipe(decay=0.01)).param_groups
    assert {p.ndim for p in groups[0]["params"]} == {2, 4}
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.01, 0.0)


def test_the_optimiser_holds_only_what_the_cut_left(tmp_path: Path) -> None:
    """The saved state has momentum of the cut network's shapes, for each of its parameters and for nothing else."""
    samples, held = digits()
    module = net().eval()
    cut = compress.slim(module, torch.rand(2, 1, 8, 8), percent=0.5, round_to=1).model
    judge = Judge(held.inputs, marks_by(held.labels))  # type: ignore[arg-type]
    task = Task(name="t", module=cut, samples=samples, loss=dying(4), judge=judge)
    with pytest.raises(Kill):
        train(task, EXACT, ALONE, Silent(), keep=Keep(tmp_path / "s", every=4))
    state = torch.load(tmp_path / "s", weights_only=True)["optimizer"]["state"]
    momenta = sorted(tuple(entry["momentum_buffer"].shape) for entry in state.values())
    assert momenta == sorted(tuple(p.shape) for p in cut.parameters())
    assert momenta != sorted(tuple(p.shape) for p in module.parameters())
    live = {id(p) for p in cut.parameters()}
    assert {id(p) for g in optimizer_for(cut, EXACT).param_groups for p in g["params"]} == live


def test_the_best_epoch_is_kept_and_patience_ends() -> None:
    """The weights are those of the epoch with the best held-out score; two epochs without a better one end it."""
    samples, held = digits()
    scores = [0.5, 0.7, 0.6, 0.6, 0.9, 0.95]
    states: list[dict[str, Tensor]] = []
    module = net()

    class Told(Judge):
        """Gives scores that were written down."""

        def __call__(self, module: nn.Module, team: Team) -> Score:
            del team
            states.append({k: v.clone() for k, v in module.state_dict().items()})
            return Score(scores[len(states) - 1], 1.0)

    judge = Told(held.inputs, marks_by(held.labels))  # type: ignore[arg-type]
    task = Task(name="t", module=module, samples=samples, loss=cross_entropy(0.0), judge=judge)
    done = train(task, replace(EXACT, epochs=6, patience=2, ema=0.0), ALONE, Silent())
    assert (done.kept, len(done.epochs), done.stopped_early) == (2, 4, True)
    assert all(torch.equal(v, states[1][k]) for k, v in module.state_dict().items())


def test_training_that_does_not_help_changes_nothing() -> None:
    """With a rate that ruins the network the first weights come back, bit for bit; modes and generators too."""
    samples, held = digits()
    module = net()
    finetune(module, samples, held, replace(EXACT, epochs=8), ALONE, Silent())
    module.eval()
    module[0].train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    done = finetune(module, samples, held, replace(EXACT, epochs=1, lr=3.0, ema=0.0), ALONE, Silent())
    assert done.kept == 0
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert [part.training for part in module] == [True] + [False] * 10
    assert all(p.grad is None for p in module.parameters())


def test_a_loss_that_explodes_is_an_error() -> None:
    """A rate of a million ends with a sentence, not with a network of NaN."""
    samples, held = digits()
    with pytest.raises(TrainingError, match="no longer a finite number"):
        finetune(net(), samples, held, replace(EXACT, lr=1e12, epochs=2), ALONE, Silent())


def test_slimming_adds_its_sub_gradient() -> None:
    """Gradients of scales grow by s sign(gamma), those of shifts only where asked; nothing else changes."""
    module = net()
    start_scales(module, 0.5)
    with torch.no_grad():
        module[1].weight[:3] = torch.tensor([-2.0, 0.0, 3.0])  # type: ignore[index,operator]
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    F.cross_entropy(module(x), y).backward()
    before = {n: p.grad.clone() for n, p in module.named_parameters()}  # type: ignore[union-attr]
    pull(scales(module), 0.25)
    for name, p in module.named_parameters():
        assert p.grad is not None
        expected = before[name] + 0.25 * p.sign() if name in {"1.weight", "5.weight"} else before[name]
        assert torch.allclose(p.grad, expected, atol=1e-7)
    assert len(scales(module, shifts=True)) == 4
    with pytest.raises(UsageError, match="network has none"):
        scales(nn.Linear(2, 2))


def test_group_lasso_is_the_gradient_of_its_penalty() -> None:
    """What is added is the derivative of s sum a |w|, by autograd, over everything that leaves with a channel."""
    module = net().double()
    analysis = analyse(module, (torch.rand(2, 1, 8, 8, dtype=torch.float64),))
    pulled = channels_of(analysis, module)
    assert [len(norms(group)) for group in pulled] == [16, 24]
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    pull_groups(pulled, 0.1)
    a, b = module[0].weight, module[4].weight  # type: ignore[union-attr]
    bn = module[1]
    size = (a.square().sum((1, 2, 3)) + b.square().sum((0, 2, 3)) + bn.weight**2 + bn.bias**2).sqrt()  # type: ignore[operator,union-attr]
    factor = 2 ** (4 * (size.max() - size) / (size.max() - size.min()))
    penalty = 0.1 * (factor.detach() * size).sum()
    (wanted,) = torch.autograd.grad(penalty, [a])
    assert torch.allclose(a.grad, wanted)


def test_shifted_images_are_crops_of_the_padded_ones() -> None:
    """Every changed image is the padded one's window at the drawn place; the border is the fill; the same each time."""
    images = torch.rand(20, 2, 5, 5)
    fill = torch.tensor([-1.0, 2.0])
    shifts = drawn(20, 2, True, seed=3, step=9)
    out = changed(images, shifts, 2, fill)
    for i in range(20):
        padded = torch.stack([F.pad(images[i, c], (2, 2, 2, 2), value=float(fill[c])) for c in range(2)])
        window = padded[:, shifts.top[i] : shifts.top[i] + 5, shifts.left[i] : shifts.left[i] + 5]
        assert torch.allclose(out[i], window.flip(2) if shifts.mirrored[i] else window, atol=1e-6)
    again = drawn(20, 2, True, seed=3, step=9)
    assert torch.equal(shifts.top, again.top)
    assert 0 < int(shifts.mirrored.sum()) < 20
    assert torch.equal(
        changed(images[:, 0, 0], Shifts(shifts.top, shifts.left, shifts.mirrored), 2, None), images[:, 0, 0]
    )


def test_a_state_is_taken_up_only_where_it_belongs(tmp_path: Path) -> None:
    """Another recipe, a damaged file and a state that nobody asked to resume are errors that say what to do."""
    samples, held = digits()
    keep = Keep(tmp_path / "state", every=4)
    task = Task(name="t", module=net(), samples=samples, loss=dying(5))
    with pytest.raises(Kill):
        train(task, EXACT, ALONE, Silent(), keep=keep)
    with pytest.raises(UsageError, match="--resume"):
        require_unfinished_is_wanted(keep)
    task = Task(name="t", module=net(), samples=samples, loss=cross_entropy(0.1))
    with pytest.raises(UsageError, match=r"lr was 0\.05, is 0\.01"):
        train(task, replace(EXACT, lr=0.01), ALONE, Silent(), keep=replace(keep, resume=True))
    keep.path.write_bytes(b"no state")
    with pytest.raises(CheckpointError, match="not the state of a training"):
        train(task, EXACT, ALONE, Silent(), keep=replace(keep, resume=True))
    with pytest.raises(DataError, match="no labels"):
        finetune(net(), Samples(samples.inputs), held, EXACT, ALONE, Silent())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"lr": -1.0}, "learning rate"),
        ({"ema": 1.0}, "ema"),
        ({"tail": 99.0}, "tail"),
        ({"warmup": 0.6, "tail": 5.0}, "warm-up"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(given: dict[str, float], said: str) -> None:
    """The error names the value."""
    with pytest.raises(UsageError, match=said):
        Recipe(**given)  # type: ignore[arg-type]
