"""The processes of a driver that computes through Parsl on this machine."""

from __future__ import annotations

from pathlib import Path


def processes_of(driver: int) -> tuple[list[int], list[int], list[int]]:
    """Parsl's managers in a driver's session, their workers, and what hands tasks to them."""
    found: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(fields[3]) == driver:
            found[int(entry.name)] = (int(fields[1]), words)
    managers = sorted(pid for pid, (_, words) in found.items() if "process_worker_pool" in words)
    workers = [pid for pid, (parent, words) in found.items() if parent in managers and "multiprocessing.spawn" in words]
    return managers, sorted(workers), [pid for pid, (_, words) in found.items() if "execution.interchange" in words]
