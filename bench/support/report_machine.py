"""What machine a report was made on."""

import os
import pathlib
import re
import subprocess

FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16")


def cpu_fields():
    """The fields of each CPU in /proc/cpuinfo."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    fields = []
    for block in text.strip().split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        fields.append({key.strip(): value.strip() for key, value in pairs})
    return fields


def physical_cores():
    """Cores that this process may use; threads of one core count once."""
    allowed = os.sched_getaffinity(0)
    cores = {
        (each.get("physical id"), each.get("core id", each.get("processor")))
        for each in cpu_fields()
        if int(each.get("processor", -1)) in allowed
    }
    return len(cores) or len(allowed)


def cache(key):
    """CMakeCache's value of a variable, by its folder."""

    def read(build):
        text = (build / "CMakeCache.txt").read_text(encoding="utf-8") if (build / "CMakeCache.txt").exists() else ""
        found = re.search(rf"^{key}:[A-Z]+=(.*)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    return read


def compiler(build):
    path = cache("CMAKE_CXX_COMPILER")(build)
    if not path:
        return "an unknown compiler"
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (result.stdout.splitlines() or [path])[0]


def lorapp_version(root):
    header = (root / "include/lorapp/version.hpp").read_text(encoding="utf-8")
    return ".".join(re.search(rf"LORAPP_VERSION_{part} (\d+)", header).group(1) for part in ("MAJOR", "MINOR", "PATCH"))


def describe(build, threads, load, versions):
    """Lines of a list."""
    fields = cpu_fields()
    first = fields[0] if fields else {}
    flags = set(first.get("flags", "").split())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = first.get("model name", "unknown")
    family = f"family {first.get('cpu family', '?')}, model {first.get('model', '?')}, stepping {first.get('stepping', '?')}"
    has = [flag for flag in FLAGS if flag in flags]
    lacks = [flag for flag in FLAGS if flag not in flags]
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    lines = [
        f"CPU: {name} ({family}), {len(os.sched_getaffinity(0))} CPUs, {physical_cores()} cores, last cache {first.get('cache size', 'unknown')}; {memory / 2**30:.0f} GiB of memory",
        f"it has {' '.join(has) or 'none of the flags asked for'}" + (f"; not {' '.join(lacks)}" if lacks else ""),
        f"threads: {threads}; load of the machine when the run began: {load:.1f}",
        f"lorapp {lorapp_version(root)}, instruction set {versions.get('isa', 'unknown')}, {compiler(build)}, {cache('CMAKE_BUILD_TYPE')(build) or 'no build type'}",
    ]
    peers = [text for key, text in versions.items() if key != "isa"]
    lines.append("peers: " + (", ".join(sorted(peers)) if peers else "none"))
    return lines
