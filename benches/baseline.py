#!/usr/bin/env python3
"""Compares what criterion measured last (target/criterion) with benches/baseline.json, or records it there.

    benches/baseline.py            a table of ratios; fails where one is above TOLERANCE (1.5)
    benches/baseline.py record     makes the last measurement the baseline, as does the first run without one

Machines differ: every time is taken in units of the bench `calibration`, which hashes four kilobytes by the standard
library and so stays what it is.
"""

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
MEASURED = pathlib.Path(os.environ.get("CRITERION_HOME", HERE.parent / "target" / "criterion"))
CALIBRATION = "calibration"
TOLERANCE = float(os.environ.get("TOLERANCE", "1.5"))


def measured():
    """Median time of each bench in nanoseconds, by its name."""
    times = {}
    for estimates in MEASURED.glob("**/new/estimates.json"):
        name = json.loads((estimates.parent / "benchmark.json").read_text())["full_id"]
        times[name] = json.loads(estimates.read_text())["median"]["point_estimate"]
    return times


def main():
    now = measured()
    if CALIBRATION not in now:
        sys.exit(f"nothing measured below {MEASURED}: cargo bench first")
    if sys.argv[1:] == ["record"] or not BASELINE.exists():
        BASELINE.write_text(json.dumps({name: round(now[name], 1) for name in sorted(now)}, indent=1) + "\n")
        print(f"{len(now)} benches recorded in {BASELINE.name}")
        return
    before = json.loads(BASELINE.read_text())
    speed = now[CALIBRATION] / before[CALIBRATION]
    print(f"this machine takes {speed:.2f} of the baseline's time for the calibration\n")
    print(f"{'bench':<52} {'ns':>10} {'baseline':>10} {'ratio':>6}")
    slower = []
    for name in sorted(now):
        if name not in before:
            print(f"{name:<52} {now[name]:>10.1f} {'new':>10}")
            continue
        ratio = now[name] / before[name] / speed
        print(f"{name:<52} {now[name]:>10.1f} {before[name]:>10.1f} {ratio:>6.2f}")
        if ratio > TOLERANCE:
            slower.append(name)
    for name in sorted(before.keys() - now.keys()):
        print(f"{name:<52} {'not run':>10} {before[name]:>10.1f}")
    if slower:
        sys.exit(f"\nslower than {TOLERANCE} of the baseline: " + ", ".join(slower))


main()
