"""Programs rather than layers: several inputs and outputs, unknown operators, decisions, unused parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.zoo.case import Case, case
from tests.zoo.harness import Net
from tests.zoo.tricky import IMAGE, OUTPUT, _head, _pooled

PAIR = (IMAGE[0], IMAGE[0].flip(0) + 1)


@dataclass
class Detections:
    """What a detector might return."""

    scores: Tensor
    boxes: Tensor


@case
def two_inputs() -> Case:
    """Two images, two stems, one stream."""
    net = Net(lambda n, x, y: _pooled(n, n.a(x) + n.b(y)), a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), fc=_head(6))
    return Case(net, PAIR, ("a>3 b>3 fc<3",))


@case
def nested_outputs() -> Case:
    """Outputs inside a dictionary inside a tuple: what is handed out stays."""
    net = Net(
        lambda n, x: ({"classes": _pooled(n, y := n.b(n.a(x)))}, [y]),
        a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 b<3",), {"b>1": OUTPUT})


@case
def dataclass_output() -> Case:
    """Outputs in an object of the user's own class."""
    net = Net(
        lambda n, x: Detections(n.fc(y := n.a(x).mean((2, 3))), n.box(y)), a=nn.Conv2d(3, 6, 1), fc=_head(6),
        box=nn.Linear(6, 4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 fc<3 box<3",), {"box>0": OUTPUT}, exports=False)


@case
def shared_trunk() -> Case:
    """Two heads read one trunk: its channels leave both."""
    net = Net(
        lambda n, x: (n.fc(y := n.a(x).mean((2, 3))), n.box(y)), a=nn.Conv2d(3, 6, 1), fc=_head(6), box=nn.Linear(6, 4)
    )
    return Case(net, IMAGE, ("a>3 fc<3 box<3",))


@case
def fourier() -> Case:
    """A Fourier transform of every plane: the channels are free."""
    net = Net(
        lambda n, x: _pooled(n, torch.fft.fft2(n.b(n.a(x))).abs()),
        a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 b<3", "b>1 fc<1"))


@case
def linear_algebra() -> Case:
    """An operator without a rule, a matrix inverse: what enters it stays."""
    net = Net(
        lambda n, x: n.fc(torch.linalg.inv((y := n.a(x).mean(3)) @ y.mT + torch.eye(6)).flatten(1)),
        a=nn.Conv2d(3, 6, 1), fc=nn.Linear(36, 5),
    )  # fmt: skip
    return Case(net, IMAGE, (), {"a>3": "", "fc<1": ""})


@case
def value_dependent() -> Case:
    """Code that looks at a value is traced on real tensors, along the branch that the example takes."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x)
        return _pooled(n, n.b(y) if n.gate(x).amax() > -1e9 else y)

    net = Net(run, a=nn.Conv2d(3, 6, 1), gate=nn.Conv2d(3, 2, 1), b=nn.Conv2d(6, 4, 1), fc=_head(4))
    return Case(net, IMAGE, ("a>3 b<3", "b>1 fc<1"), {"gate>1": "the network's code reads"}, exports=False)


class WithAuxiliary(nn.Module):
    """A head that only training uses, as Inception has."""

    def __init__(self) -> None:
        """A trunk and two heads."""
        super().__init__()
        self.a, self.fc, self.aux = nn.Conv2d(3, 6, 1), nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return both heads in training only."""
        y = self.a(x).mean((2, 3))
        return (self.fc(y), self.aux(y)) if self.training else self.fc(y)


@case
def auxiliary_head() -> Case:
    """The auxiliary head loses the trunk's channels too, though evaluation never runs it."""
    return Case(WithAuxiliary(), IMAGE, ("a>3 fc<3 aux<3",))


@case
def unused_parameter() -> Case:
    """A layer that nothing runs stays as it is."""
    net = Net(lambda n, x: _pooled(n, n.a(x)), a=nn.Conv2d(3, 6, 1), fc=_head(6), spare=nn.Linear(6, 6))
    return Case(net, IMAGE, ("a>3 fc<3",), {"spare>1": "no forward pass reads it"})


@case
def in_place() -> Case:
    """Activations and sums in place."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x).relu_()
        y += n.b(y)
        return _pooled(n, y.mul_(2).clamp_(-3, 3))

    net = Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 6, 1), fc=_head(6))
    return Case(net, IMAGE, ("a>3 b>3 b<3 fc<3",))


@case
def written_into_slices() -> Case:
    """A tensor of zeros filled slice by slice is a concatenation."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape[0], 10, 8, 8, dtype=x.dtype)
        y[:, :4] = n.a(x)
        y[:, 4:] = n.b(x)
        return _pooled(n, y)

    net = Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 6, 1), fc=_head(10))
    return Case(net, IMAGE, ("a>1 fc<1", "b>1 fc<5"), follows=False)


@case
def ones_made_on_the_way() -> Case:
    """A constant as wide as the channels follows them."""
    net = Net(
        lambda n, x: _pooled(n, (y := n.a(x)) * torch.ones_like(y) + torch.zeros(y.shape[1], 1, 1)),
        a=nn.Conv2d(3, 6, 1), fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 fc<3",))


@case
def buffer_of_positions() -> Case:
    """A buffer added to the stream is cut with it."""
    net = Net(lambda n, x: _pooled(n, n.a(x) + n.table), a=nn.Conv2d(3, 6, 1), fc=_head(6))
    net.register_buffer("table", torch.randn(6, 8, 8))
    return Case(net, IMAGE, ("a>3 table:0=3 fc<3",))


@case
def outer_product() -> Case:
    """Two labelled dimensions flattened together: one of them carries, the other stays."""
    net = Net(
        lambda n, x: n.fc((n.a(x)[..., None] * n.b(x)[..., None, :]).flatten(1)),
        a=nn.Linear(6, 4), b=nn.Linear(6, 3), fc=nn.Linear(12, 5),
    )  # fmt: skip
    return Case(net, (torch.randn(2, 6),), ("a>1 fc<3-5",), {"b>1": "merged"})
