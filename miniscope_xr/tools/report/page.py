"""The page of a report."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from miniscope_xr._version import SOFTWARE
from miniscope_xr.tools.check.result import CheckResult, Problem, clock
from miniscope_xr.tools.report.charts import chart, timeline
from miniscope_xr.tools.report.collect import Findings
from miniscope_xr.tools.report.pictures import contrast, data_uri, shrunk, stretched
from miniscope_xr.tools.report.player import make_player
from miniscope_xr.tools.report.style import STYLE
from miniscope_xr.tools.stream.gaps import Gap

_PROJECTIONS = {"mean": "Mean", "max": "Maximum", "std": "Standard deviation"}
_MEASURED = ("layout", "width", "height", "buffer_size", "recording", "status", "warnings", "n_buffers_recorded",
             "n_buffers_dropped", "n_buffers_found", "fs")  # fmt: skip
_GAPS_LISTED = 100
_WIDE, _SMALL = 400, 200


def _text(value: object) -> str:
    return html.escape(str(value))


def _problems(problems: list[Problem] | tuple[Problem, ...]) -> str:
    items = "".join(f"<li>{_text(p.sentence[:1].upper() + p.sentence[1:])}.</li>" for p in problems)
    return f'<ul class="problems">{items}</ul>' if items else ""


def _verdict(result: CheckResult) -> str:
    """Return the headline: the worst thing that is so, in one sentence."""
    lost = sum(r.frames_lost for r in result.recordings)
    frames = sum(r.frames for r in result.recordings)
    lacking = sum(len(r.lacking) for r in result.recordings)
    least = "" if all(r.looked_at >= r.frames for r in result.recordings) else "at least "
    cut_short = sum(bool(r.lacking) and r.lacking[-1] == r.frames - 1 for r in result.recordings)
    if lost:
        said = f"{lost:,} of {frames + lost:,} frames are missing"
        return _headline("bad", said + (f", and {least}{lacking:,} lack buffers." if lacking else "."))
    if lacking > cut_short:
        return _headline("bad", f"No frame is missing, but {least}{lacking:,} of {frames:,} lack buffers.")
    if not result.ok:
        return _headline("bad", f"All {frames:,} frames are numbered in a row, but look at this:")
    if cut_short:
        return _headline("good", f"No frame is missing: {frames:,} in a row, the last one cut short by the end.")
    return _headline("good", f"No frame is missing: {frames:,} in a row.")


def _headline(kind: str, text: str) -> str:
    return f'<p class="verdict {kind}">{text}</p>'


def _facts(found: Findings) -> str:
    report, attrs = found.report, found.attrs
    facts = {
        "Length": clock(report.seconds),
        "Frames": f"{report.frames:,}",
        "Lost frames": f"{report.frames_lost:,}",
        "Partial frames": f"{report.partial_frames:,}"
        + (f" among {report.looked_at:,} looked at" if report.looked_at < report.frames else ""),
        "Frames a second": f"{found.rate:.2f}",
        "Picture": f"{attrs['width']} x {attrs['height']}",
        "Ended": report.status,
    }
    if isinstance(attrs.get("fs"), int | np.integer):  # a v3 card does not say
        facts["Rate as set"] = str(attrs["fs"])
    if report.battery_start is not None and report.battery_end is not None:
        facts["Battery"] = f"{report.battery_start:.2f} to {report.battery_end:.2f} V"
    items = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    return f"<div><dl>{items}</dl></div>"


def _charts(found: Findings) -> str:
    drawn = []
    for name, title, unit in (
        ("battery", "Battery", "V"),
        ("interval", "Time from frame to frame", "ms"),
        ("wait", "Wait for the card", "ms"),
        ("ewl", "Focus (EWL)", "steps"),
    ):
        if name in found.series:
            span = None
            if name == "interval":
                span = (0.0, max(float(np.nanmax(found.series[name], initial=0.0)) * 1.1, 2000 / max(found.rate, 0.1)))
            drawn.append(chart(title, unit, found.times, found.series[name], found.seconds, span))
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""


def _quality(found: Findings) -> str:
    """What the pixels show: sentences, then brightness, sharpness and motion."""
    if found.quality is None:
        return ""
    measured = found.quality
    said = "".join(f"<li>{_text(text[:1].upper() + text[1:])}.</li>" for text in measured.findings)
    drawn = [
        chart(title, unit, measured.times, scale * measured.series[name], found.seconds)
        for name, title, unit, scale in (
            ("mean", "Brightness", "grey value", 1), ("sharpness", "Sharpness", "%", 100),
            ("moved", "Motion", "px", 1),
        )
    ]  # fmt: skip
    return (
        f"<div><h3>What the pixels show <small>in {measured.frames:,} whole frames from all over the recording</small>"
        f"</h3><ul>{said or '<li>Nothing out of the ordinary.</li>'}</ul>"
        f'<div class="charts">{"".join(drawn)}</div></div>'
    )


def _scale(width: int) -> str:
    """Draw a bar below a picture: a round number of camera pixels, about a quarter of it."""
    length = next(n for n in (500, 200, 100, 50, 20, 10, 5, 2, 1) if 3 * n <= width or n == 1)
    return f'<div class="scale"><span style="width:{100 * length / width:.2f}%"></span>{length} px</div>'


def _projections(found: Findings) -> str:
    figures = []
    for name, title in _PROJECTIONS.items():
        if name in found.projections:
            image = shrunk(found.projections[name], _WIDE)
            low, high = contrast(image)
            figures.append(
                f"<figure><figcaption>{title}<br><small>black {low:.0f}, white {high:.0f}</small></figcaption>"
                f'<img alt="{title} projection" src="{data_uri(stretched(image, low, high))}">'
                f"{_scale(found.projections[name].shape[1])}</figure>"
            )
    if not figures:
        return "<div><h3>Projections</h3><p>No frame is whole.</p></div>"
    return (
        f"<div><h3>Projections <small>of {found.projected:,} whole frames from all over the recording</small></h3>"
        f'<div class="pictures">{"".join(figures)}</div></div>'
    )


def _sheet(found: Findings) -> str:
    low, high = contrast(found.projections["mean"]) if found.projections and not found.dff else (0.0, 255.0)
    high = max(high, float(max(contrast(image)[1] for _, image in found.sheet)))
    figures = "".join(
        f'<figure><img alt="frame at {_text(label)}" src="{data_uri(stretched(shrunk(image, _SMALL), low, high), 80)}">'
        f"<figcaption>{_text(label)}</figcaption></figure>"
        for label, image in found.sheet
    )
    return f'<article><h3>Frames from start to end{_dff(found)}</h3><div class="sheet">{figures}</div></article>'


def _dff(found: Findings) -> str:
    return " <small>dF/F: black -10 %, white 50 % above rest</small>" if found.dff else ""


def _film(found: Findings, progress: bool) -> str:
    part = "" if len(found.film) == found.report.frames else "from the middle, "
    part = f"dF/F, {part}" if found.dff else part
    film = make_player(found.film, found.film_labels, found.rate, "short film of the recording", progress)
    return f"<article><h3>A short film <small>{part}at true speed</small></h3>{film.fragment}</article>"


def _gap_table(found: Findings) -> str:
    if not found.lost:
        return ""
    rows = "".join(
        f"<tr><td>{clock(g.start)}</td><td>{g.gap.count:,}</td><td>{_numbers(g.gap)}</td></tr>"
        for g in found.lost[:_GAPS_LISTED]
    )
    more = len(found.lost) - _GAPS_LISTED
    rest = f"<p>and {more:,} more.</p>" if more > 0 else ""
    return (
        f"<div><details><summary>List of gaps</summary><table><thead><tr><th>At</th><th>Frames lost</th>"
        f"<th>Numbers</th></tr></thead><tbody>{rows}</tbody></table>{rest}</details></div>"
    )


def _numbers(gap: Gap) -> str:
    return f"{gap.first} to {gap.last}" if gap.counted else "not numbered by this device"


def _settings(found: Findings) -> str:
    rows = "".join(f"<tr><td>{_text(k)}</td><td>{_text(v)}</td></tr>" for k, v in found.attrs.items()
                   if k not in _MEASURED)  # fmt: skip
    return f"<div><details><summary>Settings on the card</summary><table><tbody>{rows}</tbody></table></details></div>"


def _recording(found: Findings, alone: bool, progress: bool) -> str:
    title = "" if alone else f"<h2>Recording {found.report.number}</h2>"
    parts = [
        _facts(found), timeline(found.lost, found.seconds), _projections(found),
        f'<div class="looks">{_film(found, progress)}{_sheet(found)}</div>',
        _quality(found), _charts(found), _gap_table(found), _settings(found),
    ]  # fmt: skip
    shown = "" if alone else _problems(found.report.problems)
    return f"<section>{title}{shown}{''.join(parts)}</section>"


def _about(about: Mapping[str, str]) -> str:
    """What is known of the session, where anything is: the card, when, which animal, notes."""
    items = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in about.items() if v)
    return f'<dl class="about">{items}</dl>' if items else ""


def render(
    result: CheckResult, found: list[Findings], about: Mapping[str, str] | None = None, progress: bool = False
) -> str:
    """Return the whole page as text; ``about`` says what is known of the session, such as card, date and animal."""
    name = _text(Path(result.card).name)
    alone = len(found) == 1
    problems = result.all_problems if alone else list(result.problems)
    body = "".join(_recording(one, alone, progress) for one in found)
    count = "" if alone else f", {len(found)} recordings"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head><body><main>"
        f'<header><h1>{name}</h1><p class="soft">{_text(result.layout)}{count}</p>'
        f"{_about(about or {})}{_verdict(result)}{_problems(problems)}</header>{body}"
        f"<footer>Written by {SOFTWARE}. The contrast of the pictures is stretched; "
        "the numbers beside them are grey values.</footer></main></body></html>\n"
    )
