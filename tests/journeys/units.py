"""What a unit of systemd says, as systemd reads it."""

import subprocess


def settings(unit, key):
    return [line.split("=", 1)[1] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def calls_of(unit):
    """The system calls that a unit's `SystemCallFilter=` lines leave, by systemd's own groups."""

    def members(word):
        if not word.startswith("@"):
            return {word}
        listed = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, timeout=60).stdout.splitlines()
        inside = [line.strip() for line in listed if line.startswith("    ") and not line.strip().startswith("#")]
        return set().union(*(members(found) for found in inside)) if inside else set()

    allowed = members("@default")
    for line in settings(unit, "SystemCallFilter"):
        forbids = line.startswith("~")
        words = set().union(*(members(word) for word in line.lstrip("~").split()))
        allowed = allowed - words if forbids else allowed | words
    return allowed
