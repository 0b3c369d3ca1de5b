"""Front as an SVG that prints: accuracy over membership risk, no script and nothing fetched."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, RISK
from moo.report.annex.content import edges_of
from moo.report.figures import BROKEN, CHOSEN, DOMINATED, FRONT, GRID, INK

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 44


def scatter(annex: Mapping[str, Any], t: Mapping[str, str]) -> str:
    """Return the figure as SVG text.

    Args:
        annex: As `annex_of` makes it.
        t: The language's words.
    """
    trials = [{**row, "kind": _kind(row, annex["point"]["number"])} for row in annex["front"]]
    quo = annex["status_quo"]
    if quo:
        edges = {name: edges_of(Measurement.from_json(quo["objectives"][name]), name) for name in (ACCURACY, RISK)}
        trials.append({"kind": "status_quo", "number": -1, **edges})
    limit = float(annex["study"]["limits"]["max_risk"])
    xs = _range([edge for row in trials for edge in _edges(row[RISK])] + [limit, 0.0])
    ys = _range([edge for row in trials for edge in _edges(row[ACCURACY])])
    order = sorted(trials, key=lambda row: row["kind"] in ("shown_here", "status_quo"))
    body = [*_grid(xs, ys, t), _limit(limit, xs, t), *(_mark(row, xs, ys) for row in order), *_legend(trials, t)]
    title = f"<title>{escape(t['front'])}</title>"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">{title}{"".join(body)}</svg>'
    )


def _kind(row: Mapping[str, Any], chosen: int) -> str:
    if row["number"] == chosen:
        return "shown_here"
    return "on_front" if row["on_front"] else "feasible" if row["feasible"] else "infeasible"


def _edges(measured: list[float]) -> tuple[float, float]:
    return float(measured[2]), float(measured[3])


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low or 1.0)
    return low - room, high + room


def _x(value: float, xs: tuple[float, float]) -> float:
    return _LEFT + (value - xs[0]) / (xs[1] - xs[0]) * (WIDTH - _LEFT - _RIGHT)


def _y(value: float, ys: tuple[float, float]) -> float:
    return HEIGHT - _BOTTOM - (value - ys[0]) / (ys[1] - ys[0]) * (HEIGHT - _TOP - _BOTTOM)


def _grid(xs: tuple[float, float], ys: tuple[float, float], t: Mapping[str, str]) -> list[str]:
    out = []
    for value in _ticks(xs):
        x = _x(value, xs)
        out.append(f'<path d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}" stroke="{GRID}"/>')
        out.append(_text(x, HEIGHT - _BOTTOM + 16, f"{value:.2g}", anchor="middle"))
    for value in _ticks(ys):
        y = _y(value, ys)
        out.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="{GRID}"/>')
        out.append(_text(_LEFT - 6, y + 4, f"{value:.2g}", anchor="end"))
    out.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, t[RISK], anchor="middle"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    out.append(_text(14, middle, t[ACCURACY], anchor="middle", more=f' transform="rotate(-90 14 {middle:.0f})"'))
    return out


def _ticks(bounds: tuple[float, float]) -> list[float]:
    """Return four to eight round values inside the bounds."""
    width = bounds[1] - bounds[0]
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0) if width / s <= 8)
    first = int(bounds[0] / step) - 1
    return [round(i * step, 6) for i in range(first, first + 12) if bounds[0] <= i * step <= bounds[1]]


def _limit(limit: float, xs: tuple[float, float], t: Mapping[str, str]) -> str:
    x = _x(limit, xs)
    line = f'<path d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}" stroke="{BROKEN}" stroke-dasharray="5 4"/>'
    return line + _text(x + 5, _TOP + 12, f"{t['limit']} {limit:g}", colour=BROKEN)


COLOURS = {"shown_here": CHOSEN, "on_front": FRONT, "feasible": DOMINATED, "infeasible": BROKEN, "status_quo": INK}


def _mark(row: Mapping[str, Any], xs: tuple[float, float], ys: tuple[float, float]) -> str:
    kind = row["kind"]
    x, y = _x(float(row[RISK][0]), xs), _y(float(row[ACCURACY][0]), ys)
    left, right = (_x(v, xs) for v in _edges(row[RISK]))
    low, high = (_y(v, ys) for v in _edges(row[ACCURACY]))
    loud = kind in ("shown_here", "on_front", "status_quo")
    bars = (
        f'<path d="M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {low:.1f}V{high:.1f}" stroke="{COLOURS[kind]}" '
        f'stroke-width="{1.2 if loud else 0.6}" opacity="{0.8 if loud else 0.45}"/>'
    )
    return bars + _glyph(kind, x, y)


def _glyph(kind: str, x: float, y: float) -> str:
    """Return the mark of a kind; shapes differ as well as colours, for prints in black."""
    colour = COLOURS[kind]
    if kind == "infeasible":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2"/>'
    if kind == "shown_here":
        return f'<path d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z" fill="{colour}"/>'
    if kind == "status_quo":
        return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{colour}"/>'
    filled = colour if kind == "on_front" else "#fff"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{filled}" stroke="{colour}" stroke-width="1.5"/>'


def _legend(trials: list[dict[str, Any]], t: Mapping[str, str]) -> list[str]:
    out, x = [], float(_LEFT + 6)
    for kind in (k for k in COLOURS if any(row["kind"] == k for row in trials)):
        out += [_glyph(kind, x, 14), _text(x + 12, 18, t[kind])]
        x += 26 + sum(12.5 if ord(c) > 0x2E80 else 6.6 for c in t[kind])
    return out


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(text)}</text>'
