"""What a run says: a table for people, JSON for programs.

    report.py FILE.json

prints the tables of docs/performance.md from what `scripts/bench --json` wrote.
"""

import json
import os
import platform
import subprocess
import sys
from statistics import median

COLUMNS = (
    ("cpu_s_per_gb", "CPU s/GB", "{:.2f}"),
    ("fetched_ratio", "fetched", "{:.2f}"),
    ("rss", "RSS MiB", "{:.0f}"),
)


def medians(samples):
    """The median value by system."""
    return {
        system: median(sample["value"] for sample in taken)
        for system, taken in samples.items()
        if taken
    }


def shown(samples, member):
    """The median of a member, if it was measured."""
    values = [sample[member] for sample in samples if sample.get(member) is not None]
    return median(values) if values else None


def digits(values):
    """How many decimals are worth showing."""
    return 0 if median(values) >= 100 else 1 if median(values) >= 10 else 2


def table(row, samples, failures, goals):
    """The lines about one row."""
    yield f"\n{row.title} ({row.unit})"
    heads = "".join(f"{head:>10}" for _, head, _ in COLUMNS)
    yield f"  {'':16}{'median':>10}{'least':>10}{'most':>10}{heads}"
    for system, taken in samples.items():
        if not taken:
            continue
        values = [sample["value"] for sample in taken]
        line = f"  {system:16}" + "".join(
            f"{number:>10.{digits(values)}f}"
            for number in (median(values), min(values), max(values))
        )
        for member, _, form in COLUMNS:
            value = shown(taken, member)
            if member == "rss" and value is not None:
                value /= 1 << 20
            line += f"{form.format(value) if value is not None else '':>10}"
        yield line
    for system, why in failures.items():
        yield f"  {system:16}FAILED: {why}"
    for goal in goals:
        mark = {True: "ok    ", False: "MISSED", None: "-     "}[goal.reached]
        value = "not measured" if goal.value is None else f"{goal.value:.2f}"
        yield f"  {mark} {value} {goal.text} (goal {goal.bound})"


def machine():
    """What it ran on."""
    with open("/proc/meminfo", encoding="ascii") as info:
        memory = int(info.readline().split()[1]) * 1024
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processors": os.cpu_count(),
        "model": model,
        "memory": memory,
        "kernel": platform.release(),
        "root": os.geteuid() == 0,
    }


def revision():
    """The commit that is measured, if that is known."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    here = os.path.dirname(__file__)
    done = subprocess.run(command, capture_output=True, check=False, cwd=here)
    return done.stdout.decode().strip()


def write_json(path, about, rows):
    """Every sample, and the goals."""
    document = {"machine": machine(), "revision": revision(), **about, "rows": rows}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def markdown(document):
    """The tables of a run: first the goals, then each row."""
    yield "| work | measured | goal | |"
    yield "|---|---|---|---|"
    for row in document["rows"].values():
        for goal in row["goals"]:
            value = "not measured" if goal["value"] is None else f"{goal['value']:.2f}"
            mark = {True: "reached", False: "**missed**", None: ""}[goal["reached"]]
            yield f"| {row['title']} | {value} {goal['text']} | {goal['bound']} | {mark} |"
    for row in document["rows"].values():
        yield f"\n**{row['title']}** ({row['unit']})\n"
        yield "| system | median | least | most | CPU s/GB | fetched / delivered | RSS MiB |"
        yield "|---|---|---|---|---|---|---|"
        for system, samples in row["samples"].items():
            if samples:
                yield "| " + " | ".join([system, *cells(samples)]) + " |"
        for system, why in row["failures"].items():
            yield f"| {system} | failed: {why} | | | | | |"


def cells(samples):
    """Median, least, most, and the columns that were measured."""
    values = [sample["value"] for sample in samples]
    for number in (median(values), min(values), max(values)):
        yield f"{number:.{digits(values)}f}"
    for member, _, form in COLUMNS:
        value = shown(samples, member)
        if member == "rss" and value is not None:
            value /= 1 << 20
        yield form.format(value) if value is not None else ""


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as written:
        print(*markdown(json.load(written)), sep="\n")
