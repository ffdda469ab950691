"""The machine on which a comparison ran."""
import datetime
import os
import platform


def value_of(path, name):
    """The first value of a 'name : value' line in a file of /proc; empty if there is none."""
    try:
        with open(path, encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), "")
    except OSError:
        return ""


def describe():
    memory = value_of("/proc/meminfo", "MemTotal").split()
    return {"processor": value_of("/proc/cpuinfo", "model name") or platform.machine(),
            "processors": os.cpu_count(), "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
            "kernel": platform.release(), "date": datetime.date.today().isoformat()}
