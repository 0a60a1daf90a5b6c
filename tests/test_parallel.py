"""Work shared by processes keeps its order, and the processes end with the one that started them."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replay_sweeps.parallel import ordered_map


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    def slower_at_first(item: int) -> int:
        time.sleep(0.02 if item < 4 else 0)
        return item

    with ThreadPoolExecutor(4) as pool:
        assert list(ordered_map(pool, slower_at_first, range(20))) == list(range(20))


def test_workers_of_a_killed_process_end_with_it() -> None:
    waiting = (
        "import time\n"
        "from replay_sweeps.parallel import ordered_map, process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(2) as pool:\n"
        "        for _ in ordered_map(pool, abs, iter(range(10))): pass\n"
        "        print(*(pool._processes), flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(is_running, workers)):
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
