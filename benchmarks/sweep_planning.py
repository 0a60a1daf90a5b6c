"""How long planning takes: 100, 1,000 and 10,000 runs, from the command line to the plan, each in a fresh process."""

import subprocess
import sys
import time

from sweep_record import median_and_spread, write

SIZES = (100, 1_000, 10_000)
REPEATS = 3

if __name__ == "__main__":
    rows = []
    for size in SIZES:
        command = [
            *(sys.executable, "-m", "replay_sweeps.main", "+scale=tiny", "plan=json"),
            "schedule.replay_fraction=0,0.25,0.5,0.75,0.8",
            "schedule.target_fraction=1/128,1/256",
            f"schedule.order_seed=range({size // 10})",
        ]
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        rows.append({"runs": size, "seconds": median_and_spread(seconds)})
        rows[-1]["milliseconds a run"] = round(1000 * sorted(seconds)[1] / size, 2)
        print(rows[-1])
    notes = ["Wall-clock seconds of `replay-sweep plan=json`, starting Python included: median (range) of three."]
    write("sweep_planning", "Planning a grid", ["runs", "seconds", "milliseconds a run"], rows, notes)
