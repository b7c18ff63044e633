"""How long the code location takes to load, against `import dagster` alone, side by side in one run.

python benchmarks/load_time.py [runs]
"""

import statistics
import subprocess
import sys
import time

BASELINE = "import dagster"
OURS = "import mlops_dagster.definitions"


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seconds(BASELINE), seconds(OURS)  # compiles bytecode and warms the file cache
    pairs = [(seconds(BASELINE), seconds(OURS)) for _ in range(runs)]
    for name, times in zip((BASELINE, OURS), zip(*pairs, strict=True), strict=True):
        print(f"{name:40} median {statistics.median(times):.2f} s  (min {min(times):.2f}, max {max(times):.2f})")
    ratios = [ours / baseline for baseline, ours in pairs]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{'ratio, pair by pair':40} median {middle:.2f}  (min {low:.2f}, max {high:.2f})")


if __name__ == "__main__":
    main()
