"""Why is it not faster? Layer times before and after, the work that left, and the roof of the machine, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from compress.measure.profile import LayerTime
from compress.measure.roofline import Roof

# A layer keeps pace where its time fell as its MACs did, within this factor.
PACE = 1.15
# Below this many seconds, starting an operator counts more than what it computes.
SMALL = 20e-6
NAMED = 4  # layers that a sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One layer that multiplies, before and after (None: only in the other network), and what there is to say."""

    before: LayerTime | None
    after: LayerTime | None
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One network's layers, against another's where there are two; `rest` is seconds by operator without MACs."""

    label: str
    against: str | None
    batch: int
    roof: Roof
    changes: tuple[Change, ...]
    rest_before: tuple[tuple[str, float], ...]
    rest_after: tuple[tuple[str, float], ...]
    sentences: tuple[str, ...]


def explained(
    label: str,
    after: Sequence[LayerTime],
    roof: Roof,
    *,
    block: int,
    batch: int = 1,
    against: str | None = None,
    before: Sequence[LayerTime] = (),
) -> Explained:
    """Explain the layer times `after`, against those `before` where given; `block` is the kernels' vector width."""
    # Where a layer beats the matrix product that the roof was measured with, the roof is at least as high as that.
    roof = replace(roof, flops=max(roof.flops, *(t.flops for t in (*before, *after) if t.seconds > SMALL), 0.0))
    pairs = _aligned([t for t in before if t.macs], [t for t in after if t.macs])
    changes = tuple(Change(before=b, after=a, words=_why(b, a, roof, block)) for b, a in pairs)
    rest = [_rest(times) for times in (before, after)]
    sentences = _sentences(changes, rest[0], rest[1], roof) if before else _alone(after, rest[1], roof)
    return Explained(
        label=label,
        against=against,
        batch=batch,
        roof=roof,
        changes=changes,
        rest_before=rest[0],
        rest_after=rest[1],
        sentences=sentences,
    )


def _aligned(
    before: Sequence[LayerTime], after: Sequence[LayerTime]
) -> list[tuple[LayerTime | None, LayerTime | None]]:
    """Pair the layers of two networks in order: the same kernel and the same size of result belong together."""
    if not before:
        return [(None, a) for a in after]
    left, right = [_kind(t) for t in before], [_kind(t) for t in after]
    pairs: list[tuple[LayerTime | None, LayerTime | None]] = []
    for tag, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(before[i:j], after[k:m], strict=True)
        else:
            pairs += [(b, None) for b in before[i:j]]
            pairs += [(None, a) for a in after[k:m]]
    return pairs


def _kind(layer: LayerTime) -> tuple[object, ...]:
    if len(layer.weight) < 3:
        return ("product", layer.shape[1:-1])
    return (layer.weight[2:], layer.shape[2:], layer.weight[1] == 1)


def _rest(times: Sequence[LayerTime]) -> tuple[tuple[str, float], ...]:
    seconds: Counter[str] = Counter()
    for layer in times:
        if not layer.macs:
            seconds[layer.operator] += layer.seconds  # type: ignore[assignment]
    return tuple(sorted(seconds.items(), key=lambda pair: -pair[1]))


def _why(before: LayerTime | None, after: LayerTime | None, roof: Roof, block: int) -> str:
    """Say why the layer did not get faster in proportion to its MACs, "" where it did or is alone."""
    if before is None or after is None:
        return ""
    work, time = after.macs / before.macs, after.seconds / before.seconds
    if time <= PACE * work:
        return ""
    if after.seconds < SMALL:
        return "small: starting it counts as much as computing it"
    sizes = zip(before.weight[:2], after.weight[:2], strict=False)
    odd = [new for old, new in sizes if new != old and new > block and new % block]
    if odd:
        return f"width {odd[0]} is no multiple of {block}: computed as {-(-odd[0] // block) * block}"
    intensity = 2 * after.macs / after.traffic
    if intensity < roof.ridge:
        return f"bound by memory: {intensity:.1f} FLOPs a byte, and the machine needs {roof.ridge:.0f}"
    return f"reaches {after.flops / roof.flops:.0%} of the peak, before {before.flops / roof.flops:.0%}"


def _sentences(
    changes: Sequence[Change],
    rest_before: Sequence[tuple[str, float]],
    rest_after: Sequence[tuple[str, float]],
    roof: Roof,
) -> tuple[str, ...]:
    both = [(c.before, c.after, c.words) for c in changes if c.before is not None and c.after is not None]
    said = []
    if both:
        macs = sum(a.macs for _, a, _ in both) / sum(b.macs for b, _, _ in both)
        time = sum(a.seconds for _, a, _ in both) / sum(b.seconds for b, _, _ in both)
        said.append(f"In the {len(both)} layers that multiply, MACs fell to {macs:.2f} and time to {time:.2f}.")
    slow = sorted((c for c in both if c[2]), key=lambda c: c[0].macs / c[1].macs * -c[1].seconds)
    if slow:
        named = "; ".join(f"{a.name} ({words})" for _, a, words in slow[:NAMED])
        share = sum(a.seconds for _, a, _ in slow) / max(sum(a.seconds for _, a, _ in both), 1e-12)
        said.append(
            f"{len(slow)} of them lag behind their MACs and hold {share:.0%} of the time after the cut: {named}."
        )
    elif both:
        said.append("None of them lags behind its MACs.")
    alone = [c for c in changes if c.before is None or c.after is None]
    if alone:
        said.append(f"{len(alone)} layers have no counterpart in the other network.")
    said += _without_macs(rest_before, rest_after, changes)
    after = [c.after for c in changes if c.after is not None]
    return (*said, *_roofed(after, roof))


def _without_macs(
    before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]], changes: Sequence[Change]
) -> list[str]:
    """Say how much time goes where nothing is multiplied, which no budget of MACs sees."""
    work = sum(c.after.seconds for c in changes if c.after is not None)
    rest = sum(seconds for _, seconds in after)
    if not rest:
        return []
    largest = ", ".join(name for name, _ in after[:3])
    was = sum(seconds for _, seconds in before)
    change = f" ({rest / was:.2f} of what it was)" if was else ""
    return [f"{rest / (work + rest):.0%} of the time goes to operators without MACs{change}, most to {largest}."]


def _alone(after: Sequence[LayerTime], rest: Sequence[tuple[str, float]], roof: Roof) -> tuple[str, ...]:
    layers = [t for t in after if t.macs]
    changes = [Change(before=None, after=t) for t in layers]
    return (*_without_macs((), rest, changes), *_roofed(layers, roof))


def _roofed(layers: Sequence[LayerTime], roof: Roof) -> list[str]:
    """Say how near the layers come to what the machine can."""
    seconds = sum(t.seconds for t in layers)
    if not seconds:
        return []
    reached = 2 * sum(t.macs for t in layers) / seconds
    bound = sum(t.seconds for t in layers if 2 * t.macs < roof.ridge * t.traffic)
    share = f"{reached / roof.flops:.0%} of this machine's {roof.flops / 1e9:.0f}"
    bounded = f"{bound / seconds:.0%} of their time is in layers that memory bounds"
    return [
        f"Layers reach {reached / 1e9:.0f} GFLOP/s together, {share}; {bounded} (under {roof.ridge:.0f} FLOPs a byte)."
    ]
