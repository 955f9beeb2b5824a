"""The inside of a fresh process: load one file, run it a few times, print how long and how much.

`python -m compress.pipeline.fresh FILE BACKEND DEVICE BATCH THREADS OPTIONS`, the last as JSON. What is written here is
read by the parent process only.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from compress.core.measuring import Backend, Device
from compress.measure.backends import Job, Setting, Subject, runner_of
from compress.measure.fresh import Fresh, forget_peak, peak, resident
from compress.pipeline.bench import BenchOptions, subject_of

PASSES = 3


def main(arguments: list[str]) -> None:
    """Measure and write one line of JSON to stdout."""
    path, backend, device, batch, threads, options = arguments
    given = json.loads(options)
    torch.set_num_threads(int(threads))
    gc.collect()
    counted = forget_peak()
    before = resident()
    start = time.perf_counter()
    shape = tuple(given["shape"]) if given["shape"] else None
    with tempfile.TemporaryDirectory() as folder:
        if given["made"] and backend in {Backend.ONNXRUNTIME, Backend.OPENVINO, Backend.TENSORRT}:
            subject = Subject(label=Path(path).name, path=Path(given["made"]), network=None, shape=shape)
        else:
            wanted = BenchOptions(
                files=(Path(path),),
                arch=(given["arch"],) if given["arch"] else (),
                input_shape=shape,
                num_classes=given["num_classes"],
                trust=given["trust"],
            )
            subject = subject_of(Path(path), wanted, 0)
        setting = Setting(device=Device(device), batch=int(batch), threads=int(threads))
        runner = runner_of(Backend(backend), Job(subject=subject, setting=setting, folder=Path(folder)))
        load = time.perf_counter() - start
        for _ in range(PASSES):
            runner.run()
    most = peak()
    seen = Fresh(
        load=load,
        peak=max(most - before, 0) if counted and most is not None else None,
        device_peak=torch.cuda.max_memory_allocated() if device == Device.CUDA else None,
    )
    sys.stdout.write(json.dumps(asdict(seen)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
