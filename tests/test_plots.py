"""Pictures: what is written in them."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

from compress.report.plots import save


def _signs(picture: Path) -> dict[str, int]:
    """Count the signs that an SVG draws for every text; the text itself stands before them as a comment."""
    texts = picture.read_text(encoding="utf-8").split("<!-- ")[1:]
    return {each.partition(" -->")[0]: len(re.findall("<use ", each.partition('<g id="')[0])) for each in texts}


def test_dollars_in_names_stay_and_powers_of_ten_are_drawn(tmp_path: Path) -> None:
    """A layer called $layer$ is written like that, and the ticks of a logarithmic axis as powers, each time again."""
    figure = Figure()
    figure.add_subplot().bar(["$layer$", "other"], [1, 1000], log=True)
    for path in (tmp_path / "once.svg", tmp_path / "again.svg"):
        save(figure, path)
        powers = {rf"$\mathdefault{{10^{{{power}}}}}$": 3 for power in range(4)}
        assert _signs(path) == {"$layer$": 7, "other": 5, **powers}
