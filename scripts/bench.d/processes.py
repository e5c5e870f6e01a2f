"""Processes of a measurement: started as children, measured through /proc, ended by their id."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass

PATIENCE = 60.0
"""Seconds that anything may take to begin or to end."""

TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A measurement that could not be made, or a wrong answer; the text says which."""


def wait_until(condition, what, patience=PATIENCE):
    """The first true answer of `condition`."""
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {patience:.0f} s")
        time.sleep(0.005)
    return answer


class Daemon:
    """A server or mount that runs while something is measured."""

    def __init__(self, argv, log, **options):
        self.name = os.path.basename(str(argv[0]))
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", output),
                stderr=output,
                **options,
            )

    def check(self):
        """Fails if it has ended."""
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                last = log.read().strip().splitlines()[-3:]
            raise Failure(f"{self.name} ended with {self.process.returncode}: {' | '.join(last)}")

    def ready(self, condition, what):
        """Waits for `condition` while it runs."""

        def holds():
            self.check()
            return condition()

        return wait_until(holds, f"{self.name}: {what}")

    def line(self):
        """The line that it prints when it is ready."""
        line = self.process.stdout.readline().decode().strip()
        if not line:
            self.process.wait(PATIENCE)
            self.check()
        return line

    def cpu(self):
        """Seconds of processor time so far, user and system."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_rss(self):
        """The most bytes of memory that were resident."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    def end(self, number=signal.SIGTERM, patience=30):
        """Ends it, by force if it does not comply."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


@dataclass
class Run:
    """A program that ran to its end."""

    seconds: float
    cpu: float
    output: bytes


def run(argv, patience=300.0):
    """Runs a program to its end, which must be a success."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        child = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.monotonic() - start
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        output.seek(0)
        if child.returncode:
            errors.seek(0)
            words = (output.read() + errors.read()).decode(errors="replace").strip()
            last = " | ".join(words.splitlines()[-2:])
            raise Failure(f"{os.path.basename(str(argv[0]))}: exit {child.returncode}: {last}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, output.read())


def too_slow(_number, _frame):
    """The handler of SIGALRM."""
    raise Failure("took too long")


def detach(mountpoint):
    """Unmounts what a process left behind."""
    if not os.path.ismount(mountpoint):
        return
    for command in (["umount", "-l"], ["fusermount3", "-uz"]):
        with contextlib.suppress(OSError):
            done = subprocess.run([*command, mountpoint], capture_output=True, check=False)
            if done.returncode == 0:
                return
