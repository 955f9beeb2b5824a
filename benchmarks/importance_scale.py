"""How long `reconstruction` takes: its passes over the inputs, and the elimination of a wide group.

python benchmarks/importance_scale.py [--threads 2] [--channels 2048]

CPU seconds of this process, since the machine may be busy: with two threads the wall time is about half of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torchvision.models import resnet50

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compress.core.files import written_whole  # noqa: E402
from compress.importance import Evidence  # noqa: E402
from compress.importance.reconstruction import Narrow, eliminate  # noqa: E402
from compress.measure.machine import this_machine  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "importance_scale.json"
INPUTS, SIZE = 64, 160


def spent(job: Callable[[], object]) -> dict[str, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    job()
    return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}


def group(channels: int) -> list[Narrow]:
    """One reader of `channels` inputs, 512 outputs, with a covariance of full rank."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * channels, channels, generator=generator, dtype=torch.float64)
    w = torch.randn(channels, 512, generator=generator, dtype=torch.float64)
    return [Narrow(torch.linalg.inv(x.mT @ x / len(x)), w @ w.mT, 1.0)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Time the reconstruction criterion.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    parts = group(args.channels)
    found: dict[str, object] = {
        "eliminate": spent(lambda: eliminate(parts, args.channels)) | {"channels": args.channels}
    }
    network, batches = resnet50().eval(), torch.randn(INPUTS, 3, SIZE, SIZE).split(32)
    evidence = Evidence(network, batches)
    with torch.no_grad():
        network(batches[0])
        forward = spent(lambda: [network(batch) for batch in batches])
    found["forward"] = forward | {"network": "resnet50", "inputs": INPUTS, "size": SIZE}
    for name in ("reads", "slopes"):
        took = spent(lambda name=name: getattr(evidence, name))
        found[name] = took | {"forward_passes": took["cpu_seconds"] / forward["cpu_seconds"]}
    found["machine"] = asdict(this_machine())
    found["threads"] = args.threads
    with written_whole(RESULT) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
