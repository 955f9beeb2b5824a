"""The stages in order: load, analyse, score, plan, cut and verify, evaluate, export, measure, report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

import torch
from torch import Tensor

from compress.checkpoint import write_saved
from compress.core.clock import Clock
from compress.core.errors import PlanError
from compress.core.files import written_whole
from compress.core.progress import Progress, Silent
from compress.core.types import Network, Plan
from compress.evaluation.calibration import calibration_set
from compress.evaluation.judge import Judged, judge, open_calibration, open_for
from compress.evaluation.stages import CALIBRATION_INPUTS, final
from compress.graph.modules import fresh
from compress.measure.before_after import Measured
from compress.measure.size import file_bytes
from compress.pipeline.asking import cut_options
from compress.pipeline.deploy import Deploying, deploy, int8_inputs
from compress.pipeline.latency import rounded
from compress.pipeline.making import Images, as_delivered, made
from compress.pipeline.opening import opened, read, rounding
from compress.pipeline.options import SlimOptions
from compress.pipeline.shortening import take_out
from compress.pipeline.sized import missed
from compress.pipeline.tuning import Tuning, forget, open_training, silenced, tune_options
from compress.recovery.training.team import Team, joined
from compress.report.assemble import judgement, report_of, widths_after
from compress.report.types import FileSizes, SlimReport, Source
from compress.surgery.network import composed
from compress.surgery.planned import Cut
from compress.surgery.program import program_bytes


def run_slim(options: SlimOptions, progress: Progress | None = None) -> SlimReport:
    """Do what `compress slim` does, and return every figure. Raises CompressError subclasses; see each stage."""
    with joined(options.device if options.finetune or options.distill else "cpu") as team:
        return _slim(options, team, progress or Silent())


def _slim(options: SlimOptions, team: Team, told: Progress) -> SlimReport:
    clock = Clock()
    torch.manual_seed(options.seed)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    block = rounding(options.round_to)
    how_cut = cut_options(options, _plan(options), block[0])
    tuning = tune_options(options)
    with told.stage("load"), clock.stage("load"):
        file = read(options.checkpoint, options)
        network, earlier = opened(file)
        data = open_for(network, options, _classes(network) if options.data else None)
        learned = open_calibration(network, options.calibration, options, data)
        training = open_training(network, options, data) if tuning.asked else None
    gone = take_out(network, how_cut, options.drop_blocks, (learned, data), told)
    images = Images(data=data, training=training)
    if learned is not None:
        with told.stage("read calibration images"), clock.stage("load"):
            inputs, labels = calibration_set(network.example[0].shape, learned, CALIBRATION_INPUTS, options.seed)
        images = replace(images, inputs=inputs, labels=labels)
    done = made(gone, images, Tuning(options, tuning, team, told, clock))
    cut, stages, after = done.cut, done.stages, done.cut.delivered.module
    network = as_delivered(network, cut)
    lowering = inputs if learned is not None else int8_inputs(network, options, data)
    options = options if team.main else silenced(options)
    with clock.stage("evaluate"):
        judged = judge(network, after, cut.masked, data or learned, told, options.seed, reached=final(stages))
    plan = composed(gone.after(earlier), cut.chosen.plan)
    job = Deploying(network=network, cut=after, plan=plan, judged=judged, data=data, inputs=lowering, options=options)
    deployed = deploy(job, told, clock)
    measured = deployed.measured
    oversize = missed(gone.options.budget, network, after, deployed.files)
    _write(file, network, plan, cut, options)
    forget(options)
    source = _source(network, judged, options)
    report = report_of(cut, source, clock.seconds, gone.options, rounded(cut, block))
    sizes = measured.onnx_bytes
    return replace(
        report,
        **judgement(judged),
        **done.figures,
        calibration=f"{learned.name} ({len(inputs):,} inputs)" if stages and learned else None,
        trained_on=training.name if training is not None else None,
        file_sizes=FileSizes(before=sizes[0], after=sizes[1], what="ONNX") if sizes else None,
        exported=deployed.files,
        deployment=deployed.steps,
        speedups=measured.speedups,
        saved=str(options.save) if options.save else None,
        plan_out=str(options.plan_out) if options.plan_out else None,
        threads=torch.get_num_threads(),
        batch=options.batch,
        seed=options.seed,
        command=shlex.join(["compress", *sys.argv[1:]]),
        warnings=(*report.warnings, *measured.notes, *_slower(measured), *oversize),
    )


def _plan(options: SlimOptions) -> Plan | None:
    if options.plan_in is None:
        return None
    try:
        return Plan.from_json(options.plan_in.read_text())
    except OSError as error:
        raise PlanError(f"cannot read the plan {options.plan_in}: {error.strerror}") from error


def _source(network: Network, judged: Judged, options: SlimOptions) -> Source:
    preprocessing = judged.preprocessing or network.preprocessing
    return Source(
        name=network.name,
        kind=network.kind,
        input_shape=_shape(network),
        path=str(options.checkpoint),
        arch=network.arch,
        preprocessing=None if preprocessing is None else str(preprocessing),
        bytes=file_bytes(options.checkpoint),
        notes=(*network.notes, *judged.notes),
    )


def _slower(measured: Measured) -> tuple[str, ...]:
    return tuple(
        f"the cut network is not faster in {s.runtime} on {s.device}: {s.ratio:.2f} of the time"
        for s in measured.speedups
        if s.low > 1
    )


def _shape(network: Network) -> tuple[int, ...]:
    """Shape of the first input; a batch that we chose ourselves counts as 1."""
    shape = tuple(network.example[0].shape)
    return (1, *shape[1:]) if network.dynamic_batch else shape


def _classes(network: Network) -> int | None:
    """Number of the network's outputs, where it gives (N, classes)."""
    with torch.no_grad():
        out = network.module(*fresh(network.example))
    return int(out.shape[1]) if isinstance(out, Tensor) and out.dim() == 2 else None


def _write(read: Network, network: Network, plan: Plan, cut: Cut, options: SlimOptions) -> None:
    """Write the plan and the saved network, if they were asked for."""
    if options.plan_out is not None:
        with written_whole(options.plan_out) as temporary:
            temporary.write_text(plan.to_json(widths_after(cut)))
    if options.save is not None:
        own_graph = read.arch is None
        write_saved(
            options.save,
            state=cut.delivered.module.state_dict(),
            plan=plan,
            arch=read.arch,
            arch_options=read.arch_options,
            input_shape=_shape(network),
            preprocessing=network.preprocessing,
            program=program_bytes(read.module, read.example, dynamic_batch=read.dynamic_batch) if own_graph else None,
            as_graph=not cut.delivered.own,
        )
