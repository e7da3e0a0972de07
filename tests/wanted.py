"""Folders and stale locks that four processes want at once: python wanted.py FOLDER NUMBER.

Prints as JSON how many processes got one, and how many of the NUMBER folders, empty folders and stale locks that was.
A file that `test_runs.py` runs; no test of its own.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

from fireprop.runs import RunError, RunFolder, lock

PROCESSES = 4


def taken_by_all(take, names):
    """How many processes `take` each name without a RunError, all of them at the same time."""
    start, end, results = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if child == 0:
            os.close(start[1])
            os.close(end[1])
            os.read(start[0], 1)  # until the parent closes its end
            os.write(results[1], "".join(f"{name}\n" for name in names if is_taken(take, name)).encode())
            os.close(results[1])
            os.read(end[0], 1)  # alive, so that its locks count
            os._exit(0)
        children.append(child)
    os.close(results[1])
    os.close(start[1])
    with os.fdopen(results[0]) as lines:
        counts = Counter(line.strip() for line in lines)
    for pipe in (end[1], end[0], start[0]):
        os.close(pipe)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    return Counter(counts[str(name)] for name in names)


def is_taken(take, name):
    try:
        take(name)
    except RunError:
        return False
    return True


def start_run(path):
    """What a training does first."""
    RunFolder.create(path).write_config({"task": "xor"})


def stale_lock(folder):
    """The lock of a process that has ended."""
    child = os.fork()
    if child == 0:
        folder.mkdir()
        lock.take(folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (folder / lock.LOCK).is_file()


def main(folder, number):
    new, claimed, empty, locked = (
        [folder / f"{kind}-{k}" for k in range(number)] for kind in ("new", "claimed", "empty", "locked")
    )
    for path in empty:
        path.mkdir()
    for path in locked:
        stale_lock(path)
    counts = {
        "new": taken_by_all(start_run, new),
        "claimed": taken_by_all(RunFolder.create, claimed),
        "empty": taken_by_all(start_run, empty),
        "locked": taken_by_all(lock.take, locked),
    }
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
