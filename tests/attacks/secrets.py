"""Looks for secrets in other processes, as a job or a process that a job left behind can do.

    secrets.py search OUT NAME=HEX... [--directory DIR]... [--skip PID]... [--only PID]...
    secrets.py watch OUT NAME=HEX...

A secret is given in hexadecimal, so that only this process has it in clear. `search` looks once, at every process and below the
directories. `watch` follows every process that starts, from as early on as it can, until OUT/stop exists. Both write OUT/found:
a line `found NAME KIND PID PROGRAM` for each secret that they see. `search` also writes `opened KIND PID PROGRAM` for each thing
of another process of this program that it may open, and `visited PID PROGRAM`.
"""

import ctypes
import os
import stat
import sys

MOST = 64 * 1024 * 1024
MOST_HELD = 4
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
PIDFD_OPEN, PIDFD_GETFD = 434, 438


class Finder:
    def __init__(self, out, secrets):
        self.out, self.secrets, self.lines = out, secrets, set()
        self.file = open(os.path.join(out, "found"), "a", buffering=1)

    def say(self, line):
        if line not in self.lines:
            self.lines.add(line)
            self.file.write(line + "\n")

    def look_at(self, content, kind, pid, program):
        for name, secret in self.secrets.items():
            if secret in content:
                self.say(f"found {name} {kind} {pid} {program}")


def program_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        name = os.path.basename(words[0]).decode(errors="replace")
        is_internal = len(words) > 1 and words[1] in (b"serve", b"demo", b"check", b"supervise", b"task")
        return f"{name}-{words[1].decode()}" if is_internal else name or "?"
    except OSError:
        return "?"


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def read_memory(maps, memory, look):
    """Reads what is mapped and can be written, in pieces that overlap."""
    for line in maps.decode(errors="replace").splitlines():
        area, mode = line.split()[:2]
        if not mode.startswith("rw"):
            continue
        start, end = (int(it, 16) for it in area.split("-"))
        while start < end:
            try:
                os.lseek(memory, start, os.SEEK_SET)
                piece = os.read(memory, min(end - start, 1 << 20))
            except (OSError, OverflowError):
                break
            if not piece:
                break
            look(piece)
            start += max(len(piece) - 256, 1) if len(piece) == 1 << 20 else len(piece)


def read_descriptor(path):
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        return b""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Nothing is taken out of a pipe that others read.
        return os.read(descriptor, MOST) if stat.S_ISREG(kind) else b""
    finally:
        os.close(descriptor)


def attempt(finder, kind, pid, program, action):
    try:
        action()
    except OSError:
        return
    finder.say(f"opened {kind} {pid} {program}")


def system_call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result


def trace(pid):
    if LIBC.ptrace(PTRACE_SEIZE, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    LIBC.ptrace(PTRACE_DETACH, pid, None, None)


def take_descriptor(pid):
    process = system_call(PIDFD_OPEN, pid, 0)
    try:
        os.close(system_call(PIDFD_GETFD, process, 0, 0))
    finally:
        os.close(process)


def search_process(finder, pid):
    program = program_of(pid)
    finder.say(f"visited {pid} {program}")

    def file(name):
        with open(f"/proc/{pid}/{name}", "rb") as opened:
            finder.look_at(opened.read(MOST), name, pid, program)

    def memory():
        with open(f"/proc/{pid}/maps", "rb") as maps:
            mapped = maps.read()
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            read_memory(mapped, descriptor, lambda piece: finder.look_at(piece, "mem", pid, program))
        finally:
            os.close(descriptor)

    def descriptors():
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                finder.look_at(read_descriptor(f"/proc/{pid}/fd/{number}"), f"fd/{number}", pid, program)
            except OSError:
                pass

    for name in ["cmdline", "comm", "status"]:  # every user may read these
        try:
            file(name)
        except OSError:
            pass
    attempt(finder, "environ", pid, program, lambda: file("environ"))
    attempt(finder, "auxv", pid, program, lambda: file("auxv"))
    attempt(finder, "mem", pid, program, memory)
    attempt(finder, "fd", pid, program, descriptors)
    if program.startswith("jobstream"):
        attempt(finder, "ptrace", pid, program, lambda: trace(pid))
        attempt(finder, "pidfd_getfd", pid, program, lambda: take_descriptor(pid))
        attempt(finder, "exe", pid, program, lambda: os.close(os.open(f"/proc/{pid}/exe", os.O_RDONLY)))
        attempt(finder, "root", pid, program, lambda: os.listdir(f"/proc/{pid}/root/"))
        attempt(finder, "cwd", pid, program, lambda: os.listdir(f"/proc/{pid}/cwd/"))


def search(finder, directories, skipped, only):
    for pid in pids():
        if pid not in skipped and (not only or pid in only):
            search_process(finder, pid)
    for directory in directories:
        for parent, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(parent, name)
                try:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        with open(path, "rb") as file:
                            finder.look_at(file.read(MOST), "file", 0, path)
                except OSError:
                    pass
    finder.say("searched")


def open_all(pid):
    """Opens what shows the environment and the memory of a process. Nothing if that is not allowed."""
    descriptors = []
    try:
        for name in ["environ", "maps", "mem"]:
            descriptors.append(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return descriptors


def read_all(descriptor):
    content = b""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, 1 << 20):
        content += piece
    return content


def watch(finder):
    """Opens the memory of every process as early as it can, and keeps it open: rights are checked when it is opened."""
    known, held = set(pids()), {}
    open(os.path.join(finder.out, "ready"), "w").close()
    stop = os.path.join(finder.out, "stop")
    while not os.path.exists(stop):
        now = set(pids())
        for pid in now - known:
            held[pid] = []
        known = now
        for pid, opened in list(held.items()):
            # Again and again, as a process may execute another program.
            descriptors = open_all(pid) if len(opened) < MOST_HELD else None
            if descriptors:
                opened.append(descriptors)
            program = program_of(pid)
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    finder.look_at(file.read(), "cmdline", pid, program)
                with open(f"/proc/{pid}/environ", "rb") as file:
                    finder.look_at(file.read(), "environ", pid, program)
                for number in os.listdir(f"/proc/{pid}/fd"):
                    finder.look_at(read_descriptor(f"/proc/{pid}/fd/{number}"), f"fd/{number}", pid, program)
            except OSError:
                pass
            for environ, maps, memory in opened:
                try:
                    finder.look_at(read_all(environ), "environ", pid, program)
                    read_memory(read_all(maps), memory, lambda piece: finder.look_at(piece, "mem", pid, program))
                except OSError:
                    pass
            if not os.path.exists(f"/proc/{pid}"):
                for descriptor in sum(held.pop(pid), []):
                    os.close(descriptor)
    finder.say("watched")


def main():
    mode, out, *rest = sys.argv[1:]
    secrets, directories, skipped, only = {}, [], set(), set()
    words = iter(rest)
    for word in words:
        if word == "--directory":
            directories.append(next(words))
        elif word == "--skip":
            skipped.add(int(next(words)))
        elif word == "--only":
            only.add(int(next(words)))
        else:
            name, _, value = word.partition("=")
            secrets[name] = bytes.fromhex(value)
    finder = Finder(out, secrets)
    if mode == "search":
        search(finder, directories, skipped, only)
    else:
        watch(finder)


main()
