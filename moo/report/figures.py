"""Plotly figures of a study. Colours differ without colour vision (Okabe and Ito 2008)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.report.sections.texts import say
from moo.studies.results.recommendation import p_feasible
from moo.studies.results.result import StudyResult

INK, PAPER, GRID = "#1c2b36", "#ffffff", "#e3e8ec"
FRONT, DOMINATED, BROKEN, REFERENCE, CHOSEN = "#0072b2", "#8aa4b5", "#d55e00", "#000000", "#009e73"
FONT = "Inter, 'Helvetica Neue', Arial, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"


def epsilon_text(value: float, nothing: str) -> str:
    """Return an epsilon as people read it."""
    return nothing if math.isinf(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def called(number: int, t: Mapping[str, str]) -> str:
    """Return a trial's name on a page; without its number where one alone may leave."""
    return t.get("alone") or f"{t['trial']} {number}"


def describe(trial: TrialRecord, limits: Mapping[str, float], t: Mapping[str, str]) -> str:
    """Return the hover text of a trial: settings, numbers, bound of risk, P(feasible)."""
    p = trial.params
    name = t["status_quo_long"] if trial.number < 0 else called(trial.number, t)
    epsilon = epsilon_text(p.target_epsilon, t["no_dp"])
    halved = [f"{t['halvings']} {p.batch_halvings}"] if p.batch_halvings else []
    settings = t["and"].join(
        [f"{t['epsilon']} {epsilon}", f"L{p.masking_level}", f"{t['depth']} {p.adapted_layers}", *halved]
    )
    values = [
        f"{t[o]} {t['unknown'] if math.isnan(m.value) else f'{m.value:.3f} ± {m.stderr:.3f}'}"
        for o, m in ((o, trial.objectives[o]) for o in (ACCURACY, RISK, PENALTY))
    ]
    upper = trial.objectives[RISK].upper
    values += [] if math.isnan(upper) else [f"{t['risk_upper']} {upper:.3f}"]
    values += [f"{t['p_feasible']} {p_feasible(trial, limits):.2f}"] if trial.number >= 0 else []
    verdict = t["feasible"] if trial.feasible else f"{t['infeasible']}{t['colon']}{t['and'].join(trial.blocking)}"
    return "<br>".join([f"<b>{name}</b>", settings, *values, verdict])


def groups(result: StudyResult, t: Mapping[str, str]) -> list[tuple[str, str, str, list[TrialRecord]]]:
    """Return label, colour, symbol and trials of each group drawn, the chosen and status quo last."""
    chosen = result.recommend().trial
    number = chosen.number if chosen else None
    front = [r for r in result.complete if r.number in result.on_front and r.number != number]
    beaten = [r for r in result.complete if r.feasible and r.number not in result.on_front]
    broken = [r for r in result.complete if not r.feasible]
    out = [
        (t["infeasible"], BROKEN, "x", broken),
        (t["feasible"], DOMINATED, "circle-open", beaten),
        (t["on_front"], FRONT, "circle", front),
        (t["recommended"], CHOSEN, "diamond", [chosen] if chosen else []),
        (t["status_quo"], REFERENCE, "square", [result.reference] if result.reference else []),
    ]
    return [group for group in out if group[3]]


def front_2d(result: StudyResult, t: Mapping[str, str]) -> go.Figure:
    """Draw accuracy over risk with the risk limit; bars of risk end at the bound compared with it."""
    figure = go.Figure()
    for label, colour, symbol, trials in groups(result, t):
        loud = label in (t["recommended"], t["status_quo"], t["on_front"])
        figure.add_trace(
            go.Scatter(
                x=[r.objectives[RISK].value for r in trials],
                y=[r.objectives[ACCURACY].value for r in trials],
                error_x=_bars(trials, RISK, colour, loud),
                error_y=_bars(trials, ACCURACY, colour, loud),
                mode="markers",
                name=label,
                marker={"color": colour, "symbol": symbol, "size": 13 if symbol in ("diamond", "square") else 10},
                hovertext=[describe(r, result.limits, t) for r in trials],
                hoverinfo="text",
            )
        )
    limit = result.limits["max_risk"]
    figure.add_vline(x=limit, line={"dash": "dash", "color": BROKEN, "width": 1.5})
    figure.add_annotation(
        x=limit,
        y=1,
        yref="paper",
        text=f"{t['limit']} {limit:g}",
        showarrow=False,
        xanchor="right",
        xshift=-4,
        font={"color": BROKEN, "size": 12},
    )
    return _styled(figure, t[RISK], t[ACCURACY]).update_layout(height=560)


def front_3d(result: StudyResult, t: Mapping[str, str]) -> go.Figure:
    """Draw all three objectives."""
    figure = go.Figure()
    # symbols are glyphs in three dimensions, and few fonts have that of "x"
    symbols = {"x": "cross"}
    for label, colour, symbol, trials in groups(result, t):
        figure.add_trace(
            go.Scatter3d(
                x=[r.objectives[RISK].value for r in trials],
                y=[r.objectives[PENALTY].value for r in trials],
                z=[r.objectives[ACCURACY].value for r in trials],
                mode="markers",
                name=label,
                marker={"color": colour, "symbol": symbols.get(symbol, symbol), "size": 5 if symbol == "x" else 6},
                hovertext=[describe(r, result.limits, t) for r in trials],
                hoverinfo="text",
            )
        )
    axis = {"backgroundcolor": "#f6f8f9", "gridcolor": GRID, "showbackground": True, "zerolinecolor": GRID}
    figure.update_layout(
        scene={
            "xaxis": {**axis, "title": {"text": t[RISK]}},
            "yaxis": {**axis, "title": {"text": t[PENALTY]}},
            "zaxis": {**axis, "title": {"text": t[ACCURACY]}},
            "camera": {"eye": {"x": 2.0, "y": 2.0, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.15}},
            "aspectmode": "cube",
        }
    )
    figure = _styled(figure, "", "")
    return figure.update_layout(height=560, margin={"l": 0, "r": 0, "t": 10, "b": 10})


def hypervolume(result: StudyResult, t: Mapping[str, str]) -> go.Figure:
    """Draw the hypervolume after each complete trial."""
    figure = go.Figure(
        go.Scatter(
            x=[r.number for r in result.complete],
            y=result.hypervolumes.tolist(),
            mode="lines+markers",
            line={"shape": "hv", "color": FRONT, "width": 2.5},
            marker={"size": 6},
            hovertemplate=f"{t['trial']} %{{x}}: %{{y:.4f}}<extra></extra>",
            showlegend=False,
        )
    )
    figure = _styled(figure, t["trial"], t["hypervolume"]).update_layout(height=320, yaxis_rangemode="tozero")
    return figure.update_xaxes(tick0=0, dtick=max(1, math.ceil(len(result.trials) / 12)))


def parallel(result: StudyResult, t: Mapping[str, str]) -> go.Figure:
    """Draw parameters and objectives of every complete trial as one line, coloured by accuracy."""
    trials = result.complete
    accuracies = [r.objectives[ACCURACY].value for r in trials]

    def dimension(label: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
        return {"label": label, "values": list(values), **more}

    logs = [math.log2(r.params.target_epsilon) for r in trials]
    powers = [v for v in range(-10, 11) if min(logs, default=0) <= v <= max(logs, default=0)]
    ticks = {"tickvals": powers, "ticktext": [f"{2.0**v:g}" for v in powers]}
    depths = sorted({r.params.adapted_layers for r in trials})
    ranks = sorted({r.params.lora_rank for r in trials})
    halvings = [r.params.batch_halvings for r in trials]
    rates = [math.log10(r.params.learning_rate) for r in trials]
    round_rates = [(math.log10(m) + k, f"{m}e{k}") for k in range(-8, 2) for m in (1, 2, 5)]
    inside = [(at, text) for at, text in round_rates if min(rates, default=0) <= at <= max(rates, default=0)]
    dimensions = [
        dimension(t["epsilon"], logs, **ticks),
        dimension(t["masking"], [r.params.masking_level for r in trials], tickvals=list(range(6))),
        dimension(t["depth"], [r.params.adapted_layers for r in trials], tickvals=depths),
        dimension(
            t["rank"],
            [math.log2(r.params.lora_rank) for r in trials],
            tickvals=[math.log2(rank) for rank in ranks],
            ticktext=[str(rank) for rank in ranks],
        ),
        dimension(t["rate"], rates, tickvals=[at for at, _ in inside], ticktext=[text for _, text in inside]),
        *([dimension(t["halvings"], halvings, tickvals=sorted(set(halvings)))] if any(halvings) else []),
        dimension(t[RISK], [r.objectives[RISK].value for r in trials], tickformat=".2f"),
        dimension(t[PENALTY], [r.objectives[PENALTY].value for r in trials], tickformat=".2f"),
        dimension(t[ACCURACY], accuracies, tickformat=".2f"),
    ]
    line = {
        "color": accuracies,
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": {"title": {"text": t[ACCURACY]}},
    }
    # the ends of an axis would be written over its name
    unseen = {"size": 1, "color": "rgba(0,0,0,0)"}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line, labelangle=-20, rangefont=unseen))
    return figure.update_layout(font={"family": FONT, "color": INK}, paper_bgcolor=PAPER, margin={"t": 90, "l": 60})


def domains(result: StudyResult, t: Mapping[str, str]) -> go.Figure:
    """Draw each domain's contribution to the penalty: status quo above, recommended trial below."""
    chosen = result.recommend().trial
    rows = [(t["status_quo"], REFERENCE, result.reference), (t["recommended"], CHOSEN, chosen)]
    figure = go.Figure()
    for label, colour, trial in rows:
        if trial is None:
            continue
        totals: dict[str, float] = {}
        for row in trial.contributions:
            if row["kind"] == "graded":
                totals[row["domain"]] = totals.get(row["domain"], 0.0) + float(row["contribution"])
        names = list(totals)
        figure.add_trace(
            go.Bar(
                y=[say(n.replace("_", " "), t) for n in names],
                x=[totals[n] for n in names],
                orientation="h",
                name=label,
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.3f}<extra>" + label + "</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure = _styled(figure, t["contribution"], "").update_layout(height=380)
    return figure.update_yaxes(autorange="reversed", ticks="outside", ticklen=8, tickcolor="rgba(0,0,0,0)")


def _bars(trials: Sequence[TrialRecord], name: str, colour: str, loud: bool) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [_half(r, name) for r in trials],
        "color": colour,
        "thickness": 1.4 if loud else 0.5,
        "width": 4 if loud else 0,
    }


def _half(trial: TrialRecord, name: str) -> float:
    """Return half-widths of bars: to the one-sided 95 % bound of risk, else of the 95 % interval."""
    m = trial.objectives[name]
    return m.upper - m.value if name == RISK else m.half


def _styled(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(
        font={"family": FONT, "color": INK, "size": 13},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        height=440,
        margin={"l": 60, "r": 16, "t": 20, "b": 56},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
        hoverlabel={"align": "left", "bgcolor": PAPER, "font": {"color": INK}},
    )
    figure.update_xaxes(title={"text": x}, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    return figure.update_yaxes(title={"text": y}, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
