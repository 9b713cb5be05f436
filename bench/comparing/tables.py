"""Reports become Markdown."""

import datetime
import os
import pathlib
import platform
import re
import statistics

from . import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
BESIDE = ("mosquitto", "floor", "nginx")


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def shown(value, form="{:.2f}"):
    return "–" if value is None else form.format(value)


def reports_of(workload, rounds, broker):
    return [done[workload.name][broker] for done in rounds if done.get(workload.name, {}).get(broker)]


def cost_of(workload, rounds, broker):
    """The median of what this workload is compared by."""
    return median(workload.figure[1](report) for report in reports_of(workload, rounds, broker))


def ratio(workload, rounds, ours, theirs):
    """Of two brokers in the same round; the median over the rounds."""
    pairs = [(done.get(workload.name, {}).get(ours), done.get(workload.name, {}).get(theirs)) for done in rounds]
    costs = [(workload.figure[1](one), workload.figure[1](other)) for one, other in pairs if one and other]
    return median(one / other for one, other in costs if one is not None and other)


def table(workload, rounds, brokers):
    """One row for each broker that has done this workload."""
    done = [name for name in brokers if reports_of(workload, rounds, name)]
    beside = [name for name in BESIDE if name in done and len(done) > 1]
    head = ["broker", workload.figure[0], *(f"× {name}" for name in beside), *(name for name, _, _ in workload.columns)]
    rows = []
    for name in done:
        row = [name, shown(cost_of(workload, rounds, name), "{:,.2f}" if "µs" in workload.figure[0] else "{:,.0f}")]
        row += [shown(ratio(workload, rounds, name, other)) for other in beside]
        reports = reports_of(workload, rounds, name)
        row += [shown(median(value(report) for report in reports), form) for _, value, form in workload.columns]
        rows.append(row)
    return markdown([head, *rows])


def brief(workloads, rounds, brokers):
    """One table for workloads that differ in one number: a row for each, and a column for each broker."""
    done = [name for name in brokers if any(reports_of(workload, rounds, name) for workload in workloads)]
    head = ["", *(f"{name}, {workloads[0].figure[0]}" for name in done), "lost"]
    rows = []
    for workload in workloads:
        costs = [shown(cost_of(workload, rounds, name)) for name in done]
        lost = [str(max((report["lost"] for report in reports_of(workload, rounds, name)), default="–")) for name in done]
        rows.append([workload.name, *costs, ", ".join(lost)])
    return markdown([head, *rows])


def markdown(rows):
    rows = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {int(memory[1]) / 2**20:.0f} GiB, "
        f"Linux {platform.release()}"
    )


def conditions(brokers, load):
    """Where and when: to be kept with the reports."""
    versions = ", ".join(f"{broker.name} {broker.version()}".strip() for broker in brokers)
    date = datetime.date.today().isoformat()
    return f"Measured {date} on {machine()}; {versions}. Load average before: {load:.1f}."


def summary(where, rounds, names, workloads):
    """All tables of the workloads that were run."""
    lines = [f"{where} {len(rounds)} round{'s' if len(rounds) != 1 else ''}, medians."]
    run = [workload for workload in workloads if any(reports_of(workload, rounds, name) for name in names)]
    for workload in (workload for workload in run if not workload.point):
        title = workload.name[0].upper() + workload.name[1:]
        lines += ["", f"### {title}", "", table(workload, rounds, names)]
    for curve in dict.fromkeys(workload.point[0] for workload in run if workload.point):
        points = [workload for workload in run if workload.point and workload.point[0] == curve]
        lines += ["", f"### Cost against the number of {curve}", "", brief(points, rounds, names)]
    return "\n".join(lines) if len(lines) > 1 else None


def write(group, text):
    """Puts `text` between this group's marks in the document."""
    document = DOCUMENT.read_text()
    pattern = re.compile(rf"(<!-- compare {group} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(document):
        raise SystemExit(f"{DOCUMENT}: no place for {group}")
    DOCUMENT.write_text(pattern.sub(lambda marks: f"{marks[1]}\n{text}\n\n{marks[2]}", document))
