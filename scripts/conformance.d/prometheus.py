"""Reads the metrics of a mount with the parser of Prometheus' official Python client."""

import sys

from prometheus_client.parser import text_string_to_metric_families


def verdict(what, problems):
    if problems:
        print(f"FAILED  Prometheus: {what}: {'; '.join(problems)}")
    else:
        print(f"ok      Prometheus: {what}")


with open(sys.argv[1], encoding="utf-8") as file:
    families = list(text_string_to_metric_families(file.read()))
verdict(
    "its parser reads every metric",
    [] if len(families) > 20 else [f"{len(families)} metrics"],
)
verdict(
    "counters end in _total, everything has help and a type",
    [
        family.name
        for family in families
        if family.type not in ("counter", "gauge")
        or not family.documentation
        or any(sample.name.endswith("_total") != (family.type == "counter") for sample in family.samples)
    ],
)
verdict(
    "no value is there twice",
    [
        str(sample)
        for family in families
        for sample in family.samples
        if sum(s.labels == sample.labels and s.name == sample.name for s in family.samples) > 1
    ],
)
