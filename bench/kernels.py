"""Part "kernels" of `make bench`: kern_bench and attend_bench, held against the goals of each weight type."""
import re, subprocess

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K")
READ = {"Q4_0": 90, "Q4_1": 90, "Q5_0": 85, "Q8_0": 85, "Q4_K": 85, "Q6_K": 75}  # % of a plain read at 1 row
PEAK = {"Q6_K": 58}  # % of the dot product peak at 512 rows
PEAK_OTHERS = 65
FIGURE = re.compile(r"(\w+) +(\d+)x(\d+) +(\d+) \| +([\d.]+) GB/s .*? (\d+)% of read .*?\| +([\d.]+) GOPS .*?(?: (\d+)% of peak (\d+))?$")


def lines_of(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def run(tools, goals):
    out = {}
    for kind in TYPES:
        lines = lines_of(tools / "kern_bench", "--type", kind, "--rows", "1,4,16,512", "--shape", "2048x4096")
        print(f"\n{kind}, one thread, kernels {lines[0]}")
        for line in lines[1:]:
            m = FIGURE.match(line.rstrip())
            n_rows, gb, read, gops, peak = int(m[4]), float(m[5]), int(m[6]), float(m[7]), int(m[8] or 0)
            out[f"{kind} {n_rows}"] = {"gb_per_s": gb, "percent_of_read": read, "gops": gops, "percent_of_peak": peak}
            print(f"  {n_rows:4} rows: {gb:6.1f} GB/s, {read:3} % of read   {gops:6.0f} GOPS, {peak:3} % of peak")
        goals.add(f"{kind}, 1 row, % of a plain read", out[f"{kind} 1"]["percent_of_read"], ">=", READ[kind], "{:.0f}")
        if lines[0] != "ref":
            goals.add(f"{kind}, 512 rows, % of the dot product peak", out[f"{kind} 512"]["percent_of_peak"], ">=",
                      PEAK.get(kind, PEAK_OTHERS), "{:.0f}")
    print("\nattention, F16")
    shares = {"decode": [], "prefill": []}
    for line in lines_of(tools / "attend_bench", "--only", "decode,prefill"):
        print("  " + line.strip())
        if found := re.search(r"share +(\d+) %", line):
            shares["decode" if "queries:" in line else "prefill"].append(int(found[1]))
    goals.add("attention, decode, % of a plain read, median", sorted(shares["decode"])[len(shares["decode"]) // 2], ">=", 80, "{:.0f}")
    goals.add("attention, prefill, % of the fma peak, median", sorted(shares["prefill"])[len(shares["prefill"]) // 2], ">=", 75, "{:.0f}")
    return out | {"attention": shares}
