"""Runs commands in forks of a process that has loaded everything, and measures each.

    python forks.py

A line of stdin asks for a command, as JSON; a line of stdout says what came of it. With "warm" the
process runs the command itself, so that its forks find compiled and loaded what that needed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import resource
import shlex
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

# What changes names on the disk; a file that is opened to be written counts as well.
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir", "os.truncate"}
# More than this is asked for by nobody, and this machine has other work.
ADDRESSES = 8 * 2**30


def load() -> None:
    """Import all of unetkit."""
    import unetkit

    for found in pkgutil.walk_packages(unetkit.__path__, "unetkit."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def pages(number: int) -> int:
    """Return the addresses (0) or the memory (1) that this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[number]) * resource.getpagesize()


def count_steps(at: int | None, number: int) -> list[int]:
    """Count what changes the disk from now on; before step `at` comes signal `number`."""
    passed = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in STEPS:
            passed[0] += 1
            if passed[0] == at:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    return passed


def run(asked: dict[str, Any]) -> int:
    """Run a command in its folder, as the shell would."""
    from unetkit.cli.app import main

    os.chdir(asked["folder"])
    code = main(shlex.split(asked["command"]))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def child(asked: dict[str, Any], out: int, err: int, report: int) -> None:
    """Run one command and end."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
        resource.setrlimit(resource.RLIMIT_AS, (pages(0) + ADDRESSES, resource.RLIM_INFINITY))
        before = pages(1)
        passed = count_steps(asked.get("step"), asked.get("signal", signal.SIGKILL))
        os.write(report, b"%d " % before)
        if "after" in asked:
            # Of computing, however busy the machine is; nobody handles this signal, so that it ends
            # a process as SIGKILL does.
            signal.setitimer(signal.ITIMER_PROF, asked["after"])
        code = run(asked)
        os.write(report, b"%d" % passed[0])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a fork; return what came of it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        read, write = os.pipe()
        # Else the first collection of a fork would copy nearly all of the memory.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            child(asked, out.fileno(), err.fileno(), write)
        os.close(write)
        _, status, used = os.wait4(pid, 0)
        said = os.read(read, 100).split()
        os.close(read)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": used.ru_utime + used.ru_stime,
            "grown": used.ru_maxrss * 1024 - int(said[0]),
            "steps": int(said[1]) if len(said) > 1 else None,
            "out": out.read().decode(errors="replace"),
            "err": err.read().decode(errors="replace"),
        }


def serve() -> None:
    """Answer line by line until there are none."""
    # No power is cut here, and waiting for the disk would take most of the time.
    del os.sync
    os.fsync = lambda handle: None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load()
    for line in sys.stdin:
        asked = json.loads(line)
        done = {"code": run(asked)} if asked.get("warm") else answer(asked)
        print(json.dumps(done), file=answers, flush=True)


if __name__ == "__main__":
    serve()
