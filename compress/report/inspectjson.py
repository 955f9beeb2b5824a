"""What `compress inspect` tells, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from compress.report.inspection import GroupFacts, Inspection

UNITS = {
    "channels": "channels of groups, what --percent takes a fraction of",
    "outputs": "output channels of convolutions and matrix products",
    "macs": "multiply-accumulates for one input; of a group: those that vanish when all its channels leave",
    "parameters": "elements; of a group: those that vanish when all its channels leave",
    "share": "fraction of the network's MACs; shares add up to more than 1",
}


def inspection_json(facts: Inspection) -> str:
    """Return everything as a JSON text that ends in a newline."""
    free, every = facts.outputs
    report = {
        "format": "compress-inspect-1",
        "network": facts.network,
        "units": UNITS,
        "macs": facts.macs,
        "parameters": facts.parameters,
        "channels": sum(row.group.size for row in facts.made),
        "prunable": facts.channels,
        "outputs": every,
        "prunable_outputs": free,
        "pinned_because": [asdict(cause) for cause in facts.causes],
        "unknown_operators": dict(facts.unknown),
        "unread_parameters": dict(facts.unread),
        "importance": facts.importance,
        "unjudged": list(facts.unjudged),
        "remarks": list(facts.remarks),
        "groups": [_group(row, facts.macs) for row in facts.groups],
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "makes": [{"group": facts.groups[i].group.name, "indices": n} for i, n in layer.makes],
                "reads": [{"group": facts.groups[i].group.name, "indices": n} for i, n in layer.reads],
            }
            for layer in facts.layers
        ],
    }
    return json.dumps(report, indent=2) + "\n"


def _group(row: GroupFacts, macs: int) -> dict[str, Any]:
    group = row.group
    return {
        "name": group.name,
        "channels": group.size,
        "outputs": row.outputs,
        "prunable": group.prunable,
        "pinned": [asdict(reason) for reason in group.pinned],
        "macs": row.macs,
        "share": row.macs / macs if macs else None,
        "parameters": row.parameters,
        "made_by": list(row.made),
        "read_by": list(row.read),
        "score": asdict(row.spread) if row.spread is not None else None,
        "members": [
            {"parameter": m.parameter, "dim": m.dim, "indices": int(m.indices.size), "produces": m.produces}
            for m in group.members
        ],
    }
