"""`compress bench`: is it faster, by how much, and may one say so?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import images, measuring, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values
from compress.core.errors import UsageError
from compress.core.measuring import Backend

HELP = """\
All files run in the same rounds, one after the other, so that what slows the machine down hits all of them. The ratio \
to the first file comes with its 95 % interval; where that holds 1, the words are "not distinguishable".

Examples

Before and after, in onnxruntime:
compress bench resnet18.onnx small.onnx

Why is it not faster? Every layer's time against its MACs and this machine's roof:
compress bench resnet18.onnx small.onnx --per-layer

A checkpoint and its cut, eagerly and compiled, at two batch sizes and thread counts, with a picture:
compress bench resnet18.pt pruned.pt -b eager -b compile --batch 1,8 --threads 1,4 --plot speed.svg

Accuracy against latency, of several cuts:
compress bench resnet18.onnx half.onnx third.onnx --data test/ --plot front.svg
"""


def bench(
    *,
    files: measuring.Files,
    measured: measuring.Measuring,
    arch: measuring.Archs = None,
    input_shape: reading.InputShape = None,
    num_classes: reading.NumClasses = None,
    trust: reading.Trust = False,
    data: images.Data = None,
    prepared: images.Preparing,
    plot: measuring.Plot = None,
    json: writing.Json = None,
    speaking: running.Speaking,
) -> None:
    """Run the command."""
    with told_in_words(debug=speaking.debug):
        for file in files:
            checks.checkpoint(file)
        checks.outputs((), (json, plot), inputs=files)
        checks.picture(plot)
        named = tuple(arch or ())
        if len(named) > 1 and len(named) != len(files):
            raise UsageError(
                f"--arch is given {len(named)} times for {len(files)} files",
                fix="give it once for all files, or once for each in order",
            )
        fields = {
            "files": tuple(files),
            "backends": tuple(dict.fromkeys(measured.backend or (Backend.ONNXRUNTIME,))),
            "device": measured.device,
            "batches": counts("--batch", measured.batch),
            "threads": counts("--threads", measured.threads) if measured.threads else (),
            "rounds": measured.rounds,
            "max_seconds": measured.seconds,
            "per_layer": measured.per_layer,
            "fresh": measured.memory,
            "arch": named,
            "input_shape": checks.input_shape(input_shape),
            "num_classes": num_classes,
            "trust": trust,
            "data": data,
        }
        mean, std = checks.normalisation(prepared.mean, prepared.std)
        fields |= values(prepared) | {"mean": mean, "std": std}
        _run(fields, plot, json, quiet=speaking.quiet)


def counts(option: str, text: str) -> tuple[int, ...]:
    """Read "1,8" as numbers of at least 1, each once.

    >>> counts("--batch", "1,8,1")
    (1, 8)
    """
    found = checks.numbers(option, text, int, "1,8") or ()
    if min(found) < 1:
        raise UsageError(f"{option} must hold numbers of at least 1, got {text!r}", fix="for example 1,8")
    return tuple(dict.fromkeys(found))


def _run(fields: dict[str, Any], plot: Path | None, json: Path | None, *, quiet: bool) -> None:
    from compress.core.files import written_whole
    from compress.pipeline.bench import BenchOptions, run_bench
    from compress.report.bench import bench_json, bench_tables
    from compress.report.benchplot import draw_bench
    from compress.report.terminal import console

    report = run_bench(BenchOptions(**fields), progress_for(quiet=quiet))
    if json is not None:
        with written_whole(json) as temporary:
            temporary.write_text(bench_json(report), encoding="utf-8")
    if plot is not None:
        with written_whole(plot) as temporary:
            draw_bench(report, temporary)
    if not quiet:
        console().print(bench_tables(report))
