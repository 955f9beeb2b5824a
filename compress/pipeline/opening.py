"""From a file to the network that it holds, cut again where it was cut before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.checkpoint import load as read_checkpoint
from compress.core.errors import CheckpointError
from compress.core.types import Network, Plan
from compress.measure.machine import kernel_block
from compress.pipeline.options import Reading
from compress.surgery.network import replay


def read(path: Path, options: Reading) -> Network:
    """Read the network in a file as the options say; raises what reading a checkpoint raises."""
    how = {name: getattr(options, name) for name in ("arch", "input_shape", "num_classes", "trust")}
    return read_checkpoint(path, **how)


def opened(network: Network) -> tuple[Network, Plan | None]:
    """Replay the cut of a saved file, if it is one; also return that plan."""
    if network.plan is None or network.cut_state is None:
        return network, None
    module = replay(
        network.module,
        network.example,
        network.plan,
        as_graph=network.as_graph,
        dynamic_batch=network.dynamic_batch,
    )
    try:
        module.load_state_dict(dict(network.cut_state))
    except RuntimeError as error:
        raise CheckpointError(
            f"the saved weights do not fit the cut {network.name}: {str(error).splitlines()[-1].strip()}",
            fix="name the architecture that it was cut from with --arch",
        ) from error
    return replace(network, module=module.eval()), network.plan


def rounding(asked: int | None) -> tuple[int, str]:
    """What widths are multiples of, and why: None asks this machine."""
    if asked is not None:
        return asked, "as asked"
    block = kernel_block()
    return block, f"onnxruntime's kernels on this CPU work in blocks of {block} channels"
