"""Operators in the ONNX files of eleven well-known networks, against what onnxslim leaves of the same networks.

    pip install onnxslim==0.1.98
    python benchmarks/nodes.py                       # all, then benchmarks/results/nodes.json and nodes.md
    python benchmarks/nodes.py --only 'convnext*'    # some again; the rest of the results stays

`plain` is what PyTorch's exporter writes, `ours` what `compress` writes; onnxslim is applied to both, with its
defaults, and the bar is the smaller of its two results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "nodes.json"
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "onnxslim")


def main() -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of networks, as a glob")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from spine import ELEVEN

    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"networks": {}}
    results["versions"] = {name: version(name) for name in PACKAGES}
    for name in (n for n in ELEVEN if fnmatchcase(n, options.only)):
        results["networks"][name] = found = _count(name)
        print(name, json.dumps(found), flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    RESULTS.with_suffix(".md").write_text(_table(results))


def _count(name: str) -> dict[str, Any]:
    import onnx
    import onnxslim
    import torch
    from spine_child import make

    from compress.export import export
    from compress.export.quiet import quiet

    module, x = make(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.onnx"
        made = export(module, (x,), path)
        ours = onnx.load(path)
    opset = ours.opset_import[0].version
    with quiet():
        batch = {0: torch.export.Dim("batch", min=1)}
        program = torch.onnx.export(module, (x,), dynamo=True, opset_version=opset, dynamic_shapes=(batch,))
        plain = program.model_proto
        slimmed = {"plain": onnxslim.slim(plain), "ours": onnxslim.slim(ours)}
    counts = {"plain": len(plain.graph.node), "ours": len(ours.graph.node)}
    counts |= {f"onnxslim of {what}": len(model.graph.node) for what, model in slimmed.items()}
    kinds = Counter(node.op_type for node in ours.graph.node)
    weights = [(t.data_type, tuple(t.dims), t.raw_data) for t in ours.graph.initializer]
    return counts | {
        "opset": opset,
        "notes": list(made.notes),
        "batch norms": kinds["BatchNormalization"],
        "identities": kinds["Identity"],
        "equal initialisers": len(weights) - len(set(weights)),
        "not more": counts["ours"] <= min(len(model.graph.node) for model in slimmed.values()),
    }


def _table(results: dict[str, Any]) -> str:
    head = ("network", "plain", "onnxslim of plain", "ours", "onnxslim of ours", "not more than onnxslim")
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    for name, found in results["networks"].items():
        row = (*(str(found[key]) for key in head[1:-1]), "yes" if found["not more"] else "NO")
        lines.append(f"| {name} | {' | '.join(row)} |")
    words = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    about = "Operators of each network as ONNX. Command: `python benchmarks/nodes.py`. Versions: "
    return f"# Operators left\n\n{about}{words}.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
