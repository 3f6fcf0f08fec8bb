"""The plots of the load tests show the figures, and nothing that depends on the time of drawing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest import plots
from loadtest.report import cumulative
from loadtest.sides import condense
from tests.support.paths import ROOT
from tests.unit.tools.test_loadtest import result

RESULTS = ROOT / "loadtest" / "results"


def rows(*rates: float) -> list[dict[str, float]]:
    return [{"output_throughput": rate, "p50_tpot_ms": 1000 / rate} for rate in rates]


def compared() -> dict[str, Any]:
    """Results of two parts; the machine is half as fast in the second round."""
    loads = {
        name: condense({"stock": rows(100, 50, 80), "ours": rows(90, 55, 80)})
        for name in ("1 at a time", "16 at a time")
    }
    part = {"sides": {"stock": {}, "ours": {}}, "loads": loads}
    return {"demo": part, "150M": part}


def dots(panel: Axes) -> list[list[float]]:
    """The single measurements of every bar that has any."""
    return [sorted(line.get_xdata()) for line in panel.lines if line.get_marker() == "o"]  # type: ignore[arg-type]


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def labels(panel: Axes) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def widths(panel: Axes) -> list[float]:
    return [bar.get_width() for bar in panel.patches]  # type: ignore[attr-defined]


def test_sides_have_a_bar_for_every_side_and_a_dot_for_every_round() -> None:
    figure = plots.sides(compared())
    assert len(figure.axes) == 4
    for panel in figure.axes:
        assert dots(panel) == [[1, 1, 1], [0.9, 1, 1.1]]
        assert (widths(panel), texts(panel)) == ([1, 1], ["1", "1"])
        assert panel.get_ylim() == (1.5, -0.5)  # the first side is on top
    assert labels(figure.axes[0]) == ["stock", "ours"]
    assert [panel.get_xlabel() for panel in figure.axes] == ["1 at a time", "16 at a time"] * 2


def test_no_round_lies_outside_of_its_panel() -> None:
    figures = compared()
    figures["demo"]["loads"]["16 at a time"] = condense({"stock": rows(100), "ours": rows(250)})
    assert all(panel.get_xlim()[1] > 2.5 for panel in plots.sides(figures).axes[:2])


def test_batches_are_drawn_by_their_size() -> None:
    loads = {f"{size} at a time": condense({"ours": rows(size, 3 * size)}) for size in (1, 4, 16)}
    figure = plots.batch({"demo": {"sides": {"ours": {}}, "loads": loads}})
    throughput = figure.axes[0]
    medians = throughput.lines[-1].get_xydata()
    assert medians.tolist() == [[1, 2], [4, 8], [16, 32]]  # type: ignore[union-attr]
    assert sum(len(found) for found in dots(throughput)) == 6


def test_sizes_have_their_rounds_and_the_line_that_was_fitted() -> None:
    figures = {
        "ms_per_step": {"parameter tokens": {"100": 3, "200": 4}, "growth stages": {"1": 4, "2": 4}},
        "lines": {"parameter tokens": {"ms_at_0": 2, "ms_per_1000": 10, "explained": 0.98765}},
        "rounds": {"100 tokens": [3, 2, 5], "200 tokens": [4, 4, 4], "2 stages": [4, 3, 6]},
    }
    tokens, stages = plots.sizes(figures).axes
    assert [len(found) for found in dots(tokens)] == [3, 3]
    assert [len(found) for found in dots(stages)] == [0, 3]
    assert tokens.lines[-1].get_xydata().tolist() == [[0, 2], [200, 4]]  # type: ignore[union-attr]
    assert tokens.get_title() == "the line explains 98.77%"


def test_stages_are_held_against_the_first() -> None:
    rates = {"all_rounds": {"alone": [10, 20], "mixed": [9, 22]}, "of alone": {"alone": 1.0, "mixed": 1.033}}
    (panel,) = plots.stages(rates).axes
    assert dots(panel) == [[1, 1], [0.9, 1.1]]
    assert texts(panel) == ["1", "1.03"]
    assert panel.get_xlabel() == "output tok/s (alone = 1)"


def test_the_roofline_shows_what_is_to_be_reached() -> None:
    prefill = {str(length): {"of_gemm_rate": 0.8} for length in (256, 2000)}
    one = {"decode": {"of_bandwidth_limit": 0.4, "of_onednn": 0.6}, "prefill": prefill}
    decode, gemms = plots.roofline({"results": {"150M float32": one, "150M bfloat16": one}}).axes
    assert widths(decode) == [0.4, 0.4]
    assert [line.get_xdata()[0] for line in decode.lines if line.get_linestyle() == "--"] == [0.7]  # type: ignore[index]
    assert [line.get_ydata()[0] for line in gemms.lines if line.get_linestyle() == "--"] == [0.6]  # type: ignore[index]
    assert [len(found) for found in dots(gemms)] == [2, 2]


def test_the_api_layer_has_requests_and_tokens_of_every_kind_of_answer() -> None:
    cost = {"base": "vLLM"} | {
        unit: {"median": median, "ratio": 1.0, "all_rounds": [median, median]}
        for unit, median in {"request": 2345.6, "token": 39.94}.items()
    }
    sides = {"vLLM": cost, "ours": cost}
    figure = plots.api_layer({"sides": sides, "microseconds": {"plain": sides, "stream": sides}})
    assert [texts(panel) for panel in figure.axes] == [["2350", "2350"], ["39.9", "39.9"]] * 2
    assert figure.axes[3].get_xlabel() == "stream: µs per token"


def test_being_ready_is_held_against_the_target() -> None:
    sides = {"ours": {"first": 30.0, "median": 19.5, "all_rounds": [19.5, 18.0, 21.0]}}
    (panel,) = plots.ready({"seconds": sides}).axes
    assert (dots(panel), texts(panel)) == ([[18, 19.5, 21]], ["19.5"])
    assert [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"] == [20]  # type: ignore[index]


def test_the_same_figures_give_the_same_file_with_its_labels_as_text(tmp_path: Path) -> None:
    written = tmp_path / "against_vllm.json"
    written.write_text(json.dumps(compared()))
    drawn = written.with_suffix(".svg")
    plots.draw("against_vllm", written)
    first = drawn.read_bytes()
    plots.draw("against_vllm", written)
    assert drawn.read_bytes() == first
    assert "16 at a time</text>" in first.decode()


def test_curves_are_drawn_for_every_scenario() -> None:
    figure = plots.curves({"chat": cumulative(result()), "burst": cumulative(result())})
    assert [len(panel.lines) for panel in figure.axes] == [2, 2]


COMMITTED = [path for path in sorted(RESULTS.glob("*/*.json")) if path.stem in plots.PLOTS]


@pytest.mark.parametrize("written", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_committed_can_be_drawn(written: Path) -> None:
    assert isinstance(plots.PLOTS[written.stem](json.loads(written.read_text())), Figure)
    assert written.with_suffix(".svg").exists()


def test_every_comparison_has_a_plot() -> None:
    """A command that ended in an error would have measured for nothing."""
    texts = {path.stem: path.read_text() for path in (ROOT / "loadtest").glob("*.py")}
    comparisons = {name for name, text in texts.items() if re.search(r"from loadtest\.sides import .*\bmain\b", text)}
    assert {"real", "uncertainty"} <= comparisons <= plots.PLOTS.keys()
