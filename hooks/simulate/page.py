"""Results of a simulation as one self-contained page of HTML, drawn by Bokeh, which is an extra of the package."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from hooks.simulate.outcome import Slice
from hooks.simulate.scenario import Result
from hooks.simulate.text import rows


class NoPlottingLibrary(Exception):
    """Bokeh is not installed. The message is a sentence that says how to install it."""


_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Colors that people with any color vision tell apart (Okabe and Ito 2008)."""

_CURVES: Final[tuple[tuple[str, str, Callable[[Slice], float | None]], ...]] = (
    ("Arrivals", "requests per second", lambda one: one.rate),
    ("Offloaded", "% of the requests", lambda one: one.remote),
    ("Time to first token, 95th percentile", "seconds", lambda one: one.first_token),
    ("Waiting in the replicas", "requests", lambda one: one.waiting),
    ("Ready replicas", "replicas", lambda one: one.ready),
)

_MINUTES_UNTIL: Final = 3 * 3600.0
"""Seconds up to which times are in minutes."""

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1.5rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
"""


def check_library() -> None:
    """Check that a page can be drawn.

    Raises:
        NoPlottingLibrary: Bokeh is not installed.
    """
    try:
        import bokeh  # noqa: F401 - only whether it is there
    except ImportError:
        raise NoPlottingLibrary(
            "--html needs the plotting library Bokeh: install it with pip install 'beamlit-controller[html]'."
        ) from None


def as_page(title: str, results: Sequence[Result], *, costs: bool) -> str:
    """Return the page: the table of all results and the curves of each, which a click in the legend hides.

    Args:
        title: what was simulated, in one line.
        results: results, the first being the manifest as it is written.
        costs: whether there are prices, so that costs tell something.
    """
    from bokeh.embed import components
    from bokeh.layouts import column
    from bokeh.models import HoverTool, Range1d
    from bokeh.plotting import figure
    from bokeh.resources import Resources

    figures = []
    seconds = max(one.outcome.seconds for one in results)
    name, unit_of_time = ("minutes", 60.0) if seconds <= _MINUTES_UNTIL else ("hours", 3600.0)
    times = Range1d(start=0.0, end=seconds / unit_of_time)
    for heading, unit, value in _CURVES:
        plot = figure(
            title=heading,
            x_axis_label=name,
            y_axis_label=unit,
            x_range=times,
            height=240,
            sizing_mode="stretch_width",
            tools="xpan,xwheel_zoom,box_zoom,reset,save",
        )
        for number, result in enumerate(results[:1] if heading == "Arrivals" else results):
            slices = result.outcome.slices
            values = [value(one) for one in slices]
            plot.step(
                [one.start / unit_of_time for one in slices],
                [float("nan") if one is None else one for one in values],
                mode="after",
                line_width=2,
                color=_COLORS[number % len(_COLORS)],
                line_dash="dashed" if result.case.is_comparison else "solid",
                legend_label="all" if heading == "Arrivals" else result.case.name,
                name=result.case.name,
            )
        plot.add_tools(HoverTool(tooltips=[("", "$name"), (name, "@x{0.0}"), (unit, "@y{0.00}")]))
        plot.legend.click_policy = "hide"
        plot.add_layout(plot.legend[0], "right")
        figures.append(plot)
    # Tables, widgets and formulas of the library would make the page three times as large.
    library = Resources(mode="inline", components=["bokeh"]).render_js()
    script, place = components(column(*figures, sizing_mode="stretch_width"))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n{library}\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<div class="wide">{_table(results, costs=costs)}</div>\n'
        "<p>Times to first token are estimates. A click in a legend hides a curve.</p>\n"
        f"{place}\n{script}\n</body>\n</html>\n"
    )


def _table(results: Sequence[Result], *, costs: bool) -> str:
    head, *rest = rows(results, costs=costs)
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rest]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
