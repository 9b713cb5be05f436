"""docs/performance.svg: what a message costs where, and how that grows. Written by hand, for light and dark pages."""

import html
import math

from . import ROOT
from .tables import cost_of

FILE = ROOT / "docs" / "performance.svg"
WIDTH = 900
STYLE = """
  :root { --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --ours: #0969da; --other: #8c959f; --floor: #c4ccd4; --page: #ffffff }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #f0f6fc; --faint: #9198a1; --line: #3d444d; --ours: #58a6ff; --other: #7d8590; --floor: #4b535d; --page: #0d1117 }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink) }
  .title { font-size: 16px; font-weight: 600 } .faint { fill: var(--faint); font-size: 12px }
  .end { text-anchor: end } .mid { text-anchor: middle }
  .page { fill: var(--page) }
  .ours { fill: var(--ours) } .other { fill: var(--other) } .floor { fill: var(--floor) }
  .grid { stroke: var(--line); stroke-width: 1 }
  path.ours { fill: none; stroke: var(--ours); stroke-width: 2.5 } path.other { fill: none; stroke: var(--other); stroke-width: 2.5 }
"""


def kind(name):
    return name if name == "floor" else "ours" if name == "wigwag" else "other"


def text(x, y, what, classes=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{classes}">{html.escape(str(what))}</text>'


def bars(top, title, note, values):
    """Horizontal bars, the shortest first. Bars far longer than the rest are cut, and say so."""
    left, right, height = 110, WIDTH - 130, 22
    values = sorted(values, key=lambda pair: pair[1])
    widest = min(values[-1][1], 4 * values[len(values) // 2][1])
    parts = [text(16, top + 20, title, "title"), text(16, top + 40, note, "faint")]
    for nth, (name, value) in enumerate(values):
        y = top + 54 + nth * (height + 6)
        width = max(2, (right - left) * min(value / widest, 1))
        parts.append(text(left - 8, y + 16, name, "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.0f}" height="{height}" rx="3" class="{kind(name)}"/>')
        label = f"{value:.1f}" + (" (bar cut)" if value > widest else "")
        parts.append(text(left + width + 8, y + 16, label))
    return parts, top + 54 + len(values) * (height + 6) + 16


def curve(left, top, width, title, lines):
    """Cost against size on a logarithmic axis; `lines` by broker, of points (size, cost)."""
    height, pad = 190, 44
    points = [point for line in lines.values() for point in line]
    low, high = (math.log10(edge(size for size, _ in points)) for edge in (min, max))
    most = 1.15 * max(cost for _, cost in points)
    x = lambda size: left + pad + (width - pad - 14) * (math.log10(size) - low) / ((high - low) or 1)
    y = lambda cost: top + 40 + (height - 40) * (1 - cost / most)
    parts = [text(left + 8, top + 18, title, "title")]
    step = tick(most)
    for nth in range(int(most / step) + 1):
        parts.append(f'<line x1="{left + pad}" x2="{left + width - 10}" y1="{y(nth * step):.1f}" y2="{y(nth * step):.1f}" class="grid"/>')
        parts.append(text(left + pad - 6, y(nth * step) + 4, f"{nth * step:g}", "faint end"))
    for size in sorted({size for size, _ in points}):
        parts.append(text(x(size), top + height + 20, short(size), "faint mid"))
    for name, line in lines.items():
        way = " ".join(f"{'L' if nth else 'M'}{x(size):.1f} {y(cost):.1f}" for nth, (size, cost) in enumerate(line))
        parts.append(f'<path d="{way}" class="{kind(name)}"/>')
        parts += [f'<circle cx="{x(size):.1f}" cy="{y(cost):.1f}" r="3.5" class="{kind(name)}"/>' for size, cost in line]
        # Where lines are closest to each other they are labelled on different sides.
        end = line[-1]
        parts.append(text(x(end[0]), y(end[1]) + (-9 if kind(name) == "other" else 18), name, "faint end"))
    return parts


def tick(most):
    """A round step that makes three to six of them."""
    power = 10 ** math.floor(math.log10(most / 3))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if most / (step * power) <= 6)


def short(size):
    return f"{size // 10**6} M" if size >= 10**6 else f"{size // 1000} k" if size >= 1000 else str(size)


def draw(rounds, names, workloads):
    """Draws what there is; says whether that was anything."""
    parts, top = [], 12
    for qos, note in [(1, ""), (0, "; Socket.IO and PeerJS by their own protocols")]:
        name = f"call, groups of four, QoS {qos}"
        workload = next((workload for workload in workloads if workload.name == name), None)
        values = [(broker, cost_of(workload, rounds, broker)) for broker in names] if workload else []
        values = [(broker, cost) for broker, cost in values if cost]
        if values:
            title = f"A message of a call, QoS {qos}: µs CPU of the server"
            about = f"groups of four in rooms of two, at saturation, WebSocket, one core{note}; less is better"
            drawn, top = bars(top, title, about, values)
            parts += drawn
    points = [workload for workload in workloads if workload.point]
    axes = list(dict.fromkeys(workload.point[0] for workload in points))
    drawn = 0
    for axis in axes:
        lines = {}
        for broker in names:
            costs = [(w.point[1], cost_of(w, rounds, broker)) for w in points if w.point[0] == axis]
            line = [(size, cost) for size, cost in costs if cost]
            if len(line) > 1:
                lines[broker] = line
        if lines:
            width = (WIDTH - 20) // 3
            title = {"observers": "Observers of all rooms", "live topics": "Live topics besides", "listeners": "Listeners in one room"}
            parts += curve(10 + drawn * width, top + 28, width, title.get(axis, axis), lines)
            drawn += 1
    if drawn:
        parts.append(text(16, top + 14, "µs CPU of the server for each delivery, against …", "faint"))
        top += 270
    if not parts:
        return False
    page = f'<rect width="{WIDTH}" height="{top}" class="page"/>'
    body = "\n".join([page, *parts])
    FILE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">\n'
        f"<title>What a message costs</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )
    return True
