"""The lock of a run folder: a file that names the process which trains there.

A lock is taken over only if its process is known to be gone: same host, and the system has been started again since,
or no process has this id and start time. Any other lock is named, never judged.
"""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fireprop import reading
from fireprop.runs.files import RunError, create, in_words, part_of, put, remove, remove_parts

LOCK = ".lock"
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class LockedError(RunError):
    """Another process has the lock of a folder. host: where that process runs."""

    def __init__(self, text: str, host: str) -> None:
        super().__init__(text)
        self.host = host


@dataclass(frozen=True)
class Holder:
    """A process. What the system does not tell is an empty text.

    boot       changes when the system starts
    namespace  in which process ids are counted: containers of one host have their own
    started    when the process began, in ticks since the boot
    """

    pid: int
    host: str
    boot: str
    namespace: str
    started: str

    @classmethod
    def me(cls) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(pid, platform.node(), _boot(), _namespace(), _state_and_start(pid)[1])

    @classmethod
    def parse(cls, content: bytes) -> "Holder | None":
        """Who wrote a lock; None if it is no lock of ours."""
        try:
            values = json.loads(content)
            holder = cls(**values)
        except (ValueError, TypeError, RecursionError):
            return None
        kinds = {field.name: int if field.name == "pid" else str for field in fields(cls)}
        return holder if all(type(values[name]) is kind for name, kind in kinds.items()) else None

    def is_gone(self, me: "Holder") -> bool:
        """Whether this process is known to have ended; False where that cannot be known."""
        if not self.host or self.host != me.host or self.pid <= 0 or sys.platform == "win32":
            return False  # Windows has no call that asks for a process without a risk of ending it
        if self.boot and me.boot and self.boot != me.boot:
            return True
        if (self.boot, self.namespace) != (me.boot, me.namespace):
            return False
        return not _exists(self.pid) or _is_another(self)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, and remove what killed processes left in it. Raises RunError as `take` does."""
    lock = take(folder)
    try:
        remove_parts(folder)
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    path: Path
    content: bytes

    def release(self) -> None:
        """Remove the lock, unless somebody has removed it by hand and it is another process's by now."""
        with contextlib.suppress(OSError):
            if _content(self.path) == self.content:
                os.unlink(self.path)


def take(folder: Path) -> Lock:
    """Take the lock of a folder. Raises LockedError if another process has it, RunError if it cannot be written."""
    me = Holder.me()
    lock = Lock(folder / LOCK, json.dumps(asdict(me)).encode())
    with in_words(f"cannot write {lock.path}"):
        while not _try(lock, me):
            pass  # it was released, or taken over, between two looks
    return lock


def _try(lock: Lock, me: Holder) -> bool:
    """Take a lock; False if it has changed meanwhile. Raises RunError if another process has it."""
    aside = part_of(lock.path)  # anew each time: a process that takes the lock removes all part files
    try:
        with create(aside, "wb") as file:
            file.write(lock.content)
        return _put(aside, lock) or _take_over(aside, lock.path, me)
    finally:
        remove(aside)


def _put(aside: Path, lock: Lock) -> bool:
    """Put the lock in its place, unless there is one."""
    return put(aside, lock.path, lock.content)


def _take_over(aside: Path, path: Path, me: Holder) -> bool:
    """Replace the lock of a process that is gone; False if the lock has changed meanwhile. Raises RunError."""
    try:
        # To be locked on NFS, a file must be open for writing; another user's lock can only be read, and is named.
        writing = os.O_RDWR if os.access(path, os.W_OK) else 0
        with reading.regular(path, NO_FOLLOW | writing) as file:
            holder = Holder.parse(file.read(10_000))
            if holder is None:
                raise RunError(f"{path} is not a lock of fireprop: delete it if no process trains in this folder")
            if not (holder.is_gone(me) and _lock_exclusively(file.fileno())):
                raise LockedError(_refusal(path, holder, me), holder.host)
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                return False
            os.replace(aside, path)
            return True
    except FileNotFoundError:
        return False


def _refusal(path: Path, holder: Holder, me: Holder) -> str:
    which = "this process" if holder == me else "another process"
    return (
        f"{path.parent}: {which} (pid {holder.pid}, host {holder.host}) trains in this folder. Wait until it ends, or "
        f"delete {path} if that process no longer exists"
    )


def _lock_exclusively(descriptor: int) -> bool:
    """Keep other processes from taking over the same lock file; False where the file system cannot."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return False
    return True


def _content(path: Path) -> bytes:
    with reading.regular(path, NO_FOLLOW) as file:
        return file.read(10_000)


def _boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _state_and_start(pid: int) -> tuple[str, str]:
    """The state of a process (Z: it has ended), and when it began; empty where the system does not tell."""
    # The name of the program stands in parentheses and may hold any sign.
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (words[0], words[19]) if len(words) > 19 else ("", "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to somebody else
        return True
    return True


def _is_another(holder: Holder) -> bool:
    """Whether the process of this id is a later one, or has ended and waits for its parent."""
    state, started = _state_and_start(holder.pid)
    return state in ("Z", "X") or bool(started and holder.started and started != holder.started)
