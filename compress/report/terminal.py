"""The one table at the end of a run, and what has to be said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from compress.core.deploying import Precision
from compress.core.types import TRAINED, Accuracy, Exported, Speedup
from compress.report.deployed import deployment
from compress.report.paths import paths
from compress.report.types import CutFacts, SlimReport
from compress.report.units import byte_size, count, duration, percentage, ratio

Row = tuple[str, str, str, str, str]

REASONS_SHOWN = 6
WIDTH = 110  # columns of output that goes to a file or a pipe


def console() -> Console:
    """Return a console on stdout; where nobody watches, lines are as wide as the tables like them."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def show(report: SlimReport, to: Console) -> None:
    """Print `report` to the console `to`."""
    to.print(renderable(report))


def renderable(report: SlimReport) -> RenderableType:
    """Return `report` as something rich can print: the table, then facts about the run, then warnings."""
    parts: list[RenderableType] = [Text(_title(report), "bold"), _figures(report), _facts(report)]
    if report.stages:
        parts.insert(2, _stages(report))
    if report.deployment:
        parts.insert(2, deployment(report.deployment))
    parts += paths(report)
    if not report.recovered:
        parts.append(_unrecovered(report))
    parts += [Panel(escape(text), title="warning", border_style="yellow") for text in report.warnings]
    return Group(*parts)


def _figures(report: SlimReport) -> Table:
    masked = report.accuracy_masked is not None
    table = Table(header_style="bold")
    table.add_column("")
    for name in ("before", "masked", "after", "after / before"):
        if name != "masked" or masked:
            table.add_column(name, justify="right")
    for label, before, middle, after, change in _rows(report):
        table.add_row(label, before, *([middle] if masked else []), after, change)
    return table


def _stages(report: SlimReport) -> Table:
    """What every step of recovery reached."""
    measured = any(stage.accuracy for stage in report.stages)
    table = Table(header_style="bold")
    labels = any(stage.name == "tuned" for stage in report.stages)
    table.add_column("recovery" if labels else "recovery, without labels")
    for name in (*(["top-1", "loss, nats"] if measured else []), "same answer", "distance", "took"):
        table.add_column(name, justify="right")
    for stage in report.stages:
        name = stage.name if stage.kept else f"{stage.name}: no help, taken back"
        shown = stage.accuracy if stage.kept else None
        figures = ["", ""] if shown is None else [percentage(shown.top1), f"{shown.loss:.4f}"]
        top1 = figures if measured else []
        same = "" if stage.agreement is None else percentage(stage.agreement)
        apart = "" if stage.distance is None else f"{stage.distance:.4f}"
        table.add_row(name, *top1, same, apart, duration(stage.seconds) if stage.seconds else "")
    return table


def _title(report: SlimReport) -> str:
    cut = report.cut
    share = cut.removed / cut.channels if cut.channels else 0.0
    what = f"{cut.removed} of {cut.channels} prunable channels removed, {share:.3f}"
    return f"{report.source.name}: {what} (asked: {report.search.bound if report.search else cut.asked})"


def _rows(report: SlimReport) -> list[Row]:
    before, after = report.costs_before, report.costs_after
    rows: list[Row] = [
        (
            "parameters",
            count(before.parameters),
            "",
            count(after.parameters),
            ratio(before.parameters, after.parameters),
        ),
        ("MACs, batch 1", count(before.macs), "", count(after.macs), ratio(before.macs, after.macs)),
    ]
    if sizes := report.file_sizes:
        change = ratio(sizes.before, sizes.after)
        rows.append((f"file size, {sizes.what}", byte_size(sizes.before), "", byte_size(sizes.after), change))
    rows += _accuracy_rows(report)
    if report.agreement is not None:
        rows.append(("same answer as before", "", "", percentage(report.agreement), ""))
    return rows + [_latency_row(speedup) for speedup in report.speedups]


def _accuracy_rows(report: SlimReport) -> list[Row]:
    original, pruned = report.accuracy_original, report.accuracy_pruned
    if original is None or pruned is None:
        return []

    def row(label: str, text: Callable[[Accuracy], str], change: str) -> Row:
        masked = report.accuracy_masked
        return label, text(original), "" if masked is None else text(masked), text(pruned), change

    return [
        row("top-1", lambda a: percentage(a.top1), _points(original.top1, pruned.top1)),
        row("top-5", lambda a: percentage(a.top5), _points(original.top5, pruned.top5)),
        row("top-1, weakest class", _weakest, ""),
        row("loss, nats", lambda a: f"{a.loss:.4f}", ratio(original.loss, pruned.loss)),
    ]


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.2f} points"


def _weakest(accuracy: Accuracy) -> str:
    if not accuracy.per_class:
        return ""
    worst = min(range(len(accuracy.per_class)), key=accuracy.per_class.__getitem__)
    return f"{percentage(accuracy.per_class[worst])} ({worst})"


def _latency_row(speedup: Speedup) -> Row:
    label = f"latency, {speedup.runtime} {speedup.device}"
    change = f"{speedup.ratio:.3f} [{speedup.low:.3f}, {speedup.high:.3f}]"
    return label, duration(speedup.before), "", duration(speedup.after), change


def _facts(report: SlimReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in [*_source_facts(report), *_cut_facts(report), *_result_facts(report)]:
        table.add_row(label, Text(text))
    return table


def _source_facts(report: SlimReport) -> list[tuple[str, str]]:
    source = report.source
    shape = ", ".join(str(size) for size in source.input_shape)
    facts = [("network", f"{source.kind}, {source.arch or 'its own graph'}, input ({shape})")]
    if source.preprocessing:
        facts.append(("preprocessing", source.preprocessing))
    if report.data:
        facts.append(("data", report.data))
    if report.calibration:
        facts.append(
            ("recovered from", f"{report.calibration}; same answer and distance are on a fifth not learned from")
        )
    facts += [(stage.name, stage.note) for stage in report.stages if stage.name in TRAINED]
    return facts + [("note", note) for note in source.notes]


def _cut_facts(report: SlimReport) -> list[tuple[str, str]]:
    cut = report.cut
    facts = [
        ("importance", f"{cut.importance}: {cut.criterion}"),
        ("widths", f"multiples of {cut.round_to} ({cut.round_reason})"),
    ]
    if cut.cfg_after is not None:
        facts += [("widths before", _cfg(cut.cfg_before)), ("widths after", _cfg(cut.cfg_after))]
    return facts + _what_stays(cut)


def _cfg(entries: tuple[int | str, ...] | None) -> str:
    """A list of widths as Python writes it, to be given back to what builds the network."""
    return str(list(entries or ()))


def _what_stays(cut: CutFacts) -> list[tuple[str, str]]:
    """Say for each reason how many groups it pins; where each of them is, `compress inspect` shows."""
    pinned = [row for row in cut.groups if row.pinned]
    reasons = Counter((row.pinned or "").partition(", aten.")[0] for row in pinned)
    channels = sum(row.before for row in pinned)
    facts = [("", f"{number} {_plural('group', number)}: {why}") for why, number in reasons.most_common(REASONS_SHOWN)]
    hidden = len(reasons) - REASONS_SHOWN
    more = [("", f"and {hidden} more {_plural('reason', hidden)}; compress inspect lists them")] if hidden > 0 else []
    return [("stays", f"{channels} channels had to stay"), *facts, *more] if pinned else []


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"


def _result_facts(report: SlimReport) -> list[tuple[str, str]]:
    facts = [("exactness", _exactness(report)), ("delivered", _delivered(report))]
    if report.agreement is not None and report.agreement_on:
        facts.append(("same answer on", f"{report.agreement_on}; this is agreement with the original, not accuracy"))
    for file in report.exported:
        batches = ", ".join(str(size) for size in file.batch_sizes)
        parity = f"off by at most {file.max_relative_error:.1e} of {_reference(file)}'s result at batch {batches}"
        facts.append(("wrote", f"{file.path}  {file.target}, {byte_size(file.bytes)}, {parity}"))
        facts += [("", note) for note in file.notes]
    facts += [("wrote", f"{path}  {what}") for path, what in _other_files(report)]
    facts += [("latency", _how_measured(speedup)) for speedup in report.speedups]
    if report.seconds:
        facts.append(("took", ", ".join(f"{stage} {duration(time)}" for stage, time in report.seconds.items())))
    return facts


def _reference(file: Exported) -> str:
    """What a file was compared with: int8 comes from a float file that has been compared with PyTorch before."""
    return "the float file" if file.precision is Precision.INT8 else "PyTorch"


def _delivered(report: SlimReport) -> str:
    return f"{report.delivered} ({report.delivered_why})" if report.delivered_why else report.delivered


def _how_measured(speedup: Speedup) -> str:
    threads = f"{speedup.threads} {_plural('thread', speedup.threads)}"
    rounds = f"median of {speedup.rounds} interleaved rounds with its 95 % interval"
    return f"{speedup.runtime} {speedup.device}, {threads}, batch {speedup.batch}: {rounds}"


def _other_files(report: SlimReport) -> list[tuple[str, str]]:
    files = [(report.saved, "weights and plan, loads with compress.load"), (report.plan_out, "the plan")]
    return [(path, what) for path, what in files if path]


def _exactness(report: SlimReport) -> str:
    verdict = report.verdict
    if verdict is None:
        return "NOT CHECKED (the check was switched off)"
    word = "exact" if verdict.exact else "NOT EXACT"
    error = f"largest relative error {verdict.max_relative_error:.1e}, allowed {verdict.tolerance:.0e}, in float64"
    return f"{word}: {error}, against {verdict.reference}"


def _unrecovered(report: SlimReport) -> Panel:
    measured = "its accuracy above is that of a raw cut" if report.accuracy_pruned else "its accuracy is unknown"
    text = (
        f"Nothing was done after the cut to win accuracy back: this is not the finished network, {measured}. "
        "Fine-tune it before you use it."
    )
    return Panel(text, title="NOT RECOVERED", border_style="bold red")
