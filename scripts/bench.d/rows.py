"""The rows: what is done, by which systems, and what has to come out.

A row measures one sample of one system at a time; `Samples` are medians over the rounds. A sample
is a dictionary: `value` in the row's unit, and what else is known of it.
"""

import hashlib
import http.client
import os
import time
from statistics import median

from processes import Failure, run
from store import UNSHAPED, Clouds, Shape
from systems import (
    Aria2,
    Bare,
    Ceiling,
    Curl,
    Download,
    Nbd,
    Product,
    Rclone,
    RcloneCache,
    Wget,
    load,
)

MB = 1e6
US = Product.name
SLOW_PART = 128 << 20
"""Bytes that a system of one connection copies where each connection is slow."""


class Goal:
    """A number that should not fall below, or exceed, a bound."""

    def __init__(self, text, value, least=None, most=None):
        self.text, self.value, self.least, self.most = text, value, least, most

    @property
    def reached(self):
        """Whether it is; None if the comparison could not be made."""
        if self.value is None:
            return None
        return self.value >= self.least if self.most is None else self.value <= self.most

    @property
    def bound(self):
        """The bound in words."""
        return f">= {self.least:g}" if self.most is None else f"<= {self.most:g}"


def ratio(value, other):
    """`value / other`, if both are known."""
    return value / other if value and other else None


class Row:
    """One line of the goals."""

    key = ""
    title = ""
    unit = "MB/s"
    systems = (Product,)
    shape = UNSHAPED

    def __init__(self, store):
        self.store = store

    def measure(self, system):
        """One sample."""
        raise NotImplementedError

    def verify(self, system):
        """Compares what the system delivers with the original, byte by byte."""

    def goals(self, medians, samples):
        """The goals; `medians` by system, and this product's `samples`."""
        raise NotImplementedError


def copy(path, bytes_wanted, size):
    """`cp` to nowhere, or of the beginning only."""
    if bytes_wanted >= size:
        return run(["cp", path, "/dev/null"])
    return run(
        ["dd", f"if={path}", "of=/dev/null", "bs=1M", f"count={bytes_wanted >> 20}", "status=none"]
    )


def compare(path, artifact):
    """Fails unless the file at `path` is the artifact."""
    run(["cmp", path, artifact.path])


def per_gb(seconds, size):
    """Seconds of the processor per GB."""
    return seconds / (size / 1e9)


class Cold(Row):
    """A sequential copy with nothing cached."""

    systems = (Product, Rclone, RcloneCache, Nbd, Bare, Curl, Wget, Aria2)

    def amount(self, system):
        """How many bytes a system copies."""
        size = self.store.main.size
        return min(size, SLOW_PART) if system.slow and self.shape != UNSHAPED else size

    def measure(self, system):
        artifact, size = self.store.main, self.amount(system)
        if isinstance(system, Download):
            artifact = artifact if size == artifact.size else self.store.others[0]
            size = artifact.size
            dir = system.directory()
            try:
                done = system.download(self.shape, artifact, dir / "artifact")
            finally:
                run(["rm", "-rf", dir])
            cpu, rss = done.cpu, None
        else:
            with system.mounted(self.shape, artifact) as mount:
                path = mount.file(artifact)
                before = mount.cpu()
                done = copy(path, size, artifact.size)
                cpu, rss = done.cpu + mount.cpu() - before, mount.peak_rss()
        return {
            "value": size / done.seconds / MB,
            "cpu_s_per_gb": per_gb(cpu, size),
            "fetched_ratio": self.store.fetched() / size,
            "rss": rss,
        }

    def verify(self, system):
        artifact = self.store.others[0] if system.slow else self.store.main
        if isinstance(system, Download):
            dir = system.directory()
            try:
                system.download(self.shape, artifact, dir / "artifact")
                compare(dir / "artifact", artifact)
            finally:
                run(["rm", "-rf", dir])
        else:
            with system.mounted(self.shape, artifact) as mount:
                compare(mount.file(artifact), artifact)


class ColdUnshaped(Cold):
    """On loopback as it is."""

    key, title = "cold", "cold sequential copy, unshaped"

    def goals(self, medians, samples):
        us = medians.get(US)
        mounts = [medians.get(peer.name) for peer in (Rclone, RcloneCache, Nbd)]
        cpu = median(sample["cpu_s_per_gb"] for sample in samples) if samples else None
        fetched = max(sample["fetched_ratio"] for sample in samples) if samples else None
        return [
            Goal(
                "x the fastest peer mount", ratio(us, max(filter(None, mounts), default=None)), 1.5
            ),
            Goal("x a bare parallel download to disk", ratio(us, medians.get(Bare.name)), 0.8),
            Goal("CPU s/GB all together", cpu, most=1.2),
            Goal("bytes fetched / bytes delivered", fetched, most=1.005),
        ]


class Cold20(Cold):
    """With a round trip of 20 ms."""

    key, title = "cold-20", "cold sequential copy, 20 ms, 50 MB/s per connection"
    shape = Shape(20, 50)
    systems = (Product, Rclone, RcloneCache, Bare, Ceiling, Curl, Aria2)

    def goals(self, medians, samples):
        us = medians.get(US)
        rclone = [medians.get(peer.name) for peer in (Rclone, RcloneCache)]
        return [
            Goal("x what 16 connections allow", ratio(us, medians.get(Ceiling.name)), 0.9),
            Goal("x aria2c -x16", ratio(us, medians.get(Aria2.name)), 1.0),
            Goal("x rclone tuned", ratio(us, max(filter(None, rclone), default=None)), 2),
        ]


class Cold100(Cold):
    """With a round trip of 100 ms; each sample is followed by one at 20 ms."""

    key, title = "cold-100", "cold sequential copy, 100 ms, 50 MB/s per connection"
    shape = Shape(100, 50)
    systems = (Product, Ceiling, Aria2)

    def measure(self, system):
        sample = super().measure(system)
        if system.name == US:
            nearer = Cold20(self.store).measure(system)
            sample["value_at_20"] = nearer["value"]
        return sample

    def goals(self, medians, samples):
        nearer = median(sample["value_at_20"] for sample in samples) if samples else None
        return [Goal("x its own rate at 20 ms", ratio(medians.get(US), nearer), 0.9)]


class Native:
    """The file that the product's cache keeps, without any mount."""

    name = "native cp"
    needs = ()
    slow = False

    def __init__(self, product):
        self.product = product

    def missing(self):
        """Nothing."""
        return []


class Warm(Row):
    """A copy of a complete artifact after a remount on the same cache."""

    key, title = "warm", "warm copy of a complete artifact"
    systems = (Product, Native, RcloneCache)

    def measure(self, system):
        mounts = system.product if isinstance(system, Native) else system
        artifact, dir = self.store.main, mounts.directory()
        try:
            with mounts.mounted(self.shape, artifact, keep=dir) as mount:
                copy(mount.file(artifact), artifact.size, artifact.size)
            self.store.fetched()
            if mounts is not system:
                data = max(dir.rglob("*.data"), key=lambda path: path.stat().st_size)
                done = copy(data, artifact.size, artifact.size)
                return {
                    "value": artifact.size / done.seconds / MB,
                    "cpu_s_per_gb": per_gb(done.cpu, artifact.size),
                }
            with mounts.mounted(self.shape, artifact, keep=dir) as mount:
                path = mount.file(artifact)
                before = mount.cpu()
                done = copy(path, artifact.size, artifact.size)
                cpu, rss = done.cpu + mount.cpu() - before, mount.peak_rss()
        finally:
            run(["rm", "-rf", dir])
        return {
            "value": artifact.size / done.seconds / MB,
            "cpu_s_per_gb": per_gb(cpu, artifact.size),
            "fetched_ratio": self.store.fetched() / artifact.size,
            "rss": rss,
        }

    def verify(self, system):
        if isinstance(system, Native):
            return
        artifact, dir = self.store.main, system.directory()
        try:
            for _ in range(2):
                with system.mounted(self.shape, artifact, keep=dir) as mount:
                    compare(mount.file(artifact), artifact)
        finally:
            run(["rm", "-rf", dir])

    def goals(self, medians, samples):
        least = 0.95 if os.geteuid() == 0 else 0.25
        return [Goal("x native cp", ratio(medians.get(US), medians.get(Native.name)), least)]


class FirstByte(Row):
    """Opening an artifact whose size is known, and reading one byte."""

    key, title, unit = "first-byte", "first byte of a known artifact, 20 ms", "ms"
    shape = Shape(20, 50)
    systems = (Product, Rclone, RcloneCache, Nbd)

    def measure(self, system):
        artifact = self.store.main
        with system.mounted(self.shape, artifact) as mount:
            path = mount.file(artifact)
            start = time.monotonic()
            with open(path, "rb", buffering=0) as file:
                byte = file.read(1)
            seconds = time.monotonic() - start
        self.store.fetched()
        with open(artifact.path, "rb") as original:
            if byte != original.read(1):
                raise Failure("a wrong byte")
        return {"value": seconds * 1e3, "round_trip_ms": self.round_trip() * 1e3}

    def round_trip(self):
        """Seconds of a request on a connection that is open."""
        host = self.store.base_url(self.shape).removeprefix("http://")
        connection = http.client.HTTPConnection(host)
        for _ in range(2):
            start = time.monotonic()
            connection.request("GET", self.store.main.url_path, headers={"Range": "bytes=0-0"})
            connection.getresponse().read()
        seconds = time.monotonic() - start
        connection.close()
        return seconds

    def goals(self, medians, samples):
        us = medians.get(US)
        over = None
        if samples:
            over = us - 1.2 * median(sample["round_trip_ms"] for sample in samples)
        return [Goal("ms more than 1.2 round trips", over, most=2)]


class RandomReads(Row):
    """Random reads with nothing cached."""

    count = size = jobs = 0
    seed = 0

    def measure(self, system):
        artifact = self.store.main
        type(self).seed += 1
        with system.mounted(self.shape, artifact) as mount:
            path = mount.file(artifact)
            # What opening asked is no part of the reads.
            self.store.fetched()
            before = mount.cpu()
            done = load("random", path, artifact.path, self.count, self.size, self.jobs, self.seed)
            cpu = done["cpu"] + mount.cpu() - before
        wanted = self.count * self.size
        fetched = self.store.fetched()
        return {
            "value": wanted / done["seconds"] / MB,
            "p50_ms": median(done["latencies"]) * 1e3,
            "cpu_s_per_gb": per_gb(cpu, wanted),
            "fetched_ratio": fetched / wanted,
            "fetched_each": fetched / self.count,
        }


class Random1M(RandomReads):
    """64 reads of 1 MiB, eight at a time."""

    key, title = "random-1m", "64 random 1 MiB reads, 8 jobs, cold, unshaped"
    systems = (Product, Rclone, RcloneCache, Nbd)
    count, size, jobs = 64, 1 << 20, 8

    def goals(self, medians, samples):
        us = medians.get(US)
        peers = [value for name, value in medians.items() if name != US and value]
        fetched = max(sample["fetched_ratio"] for sample in samples) if samples else None
        return [
            Goal("x the best peer", ratio(us, max(peers, default=None)), 2),
            Goal("bytes fetched / bytes read", fetched, most=1.3),
        ]


class Random4K(RandomReads):
    """Small reads one after another."""

    key, title, unit = "random-4k", "100 random 4 KiB reads, cold, 20 ms", "p50 ms"
    systems = (Product, Nbd)
    shape = Shape(20, 50)
    count, size, jobs = 100, 4096, 1

    def measure(self, system):
        sample = super().measure(system)
        sample["value"] = sample["p50_ms"]
        return sample

    def goals(self, medians, samples):
        us = medians.get(US)
        each = median(sample["fetched_each"] for sample in samples) / 1024 if samples else None
        return [
            Goal("ms p50 more than the latency", us and us - self.shape.latency, most=5),
            Goal("KiB fetched for each read", each, most=128),
        ]


class Readers32(Row):
    """32 sequential readers in eight artifacts under a small budget."""

    key, title, unit = "rss", "32 readers of 8 artifacts, 20 ms, memory = 128MiB", "MiB resident"
    shape = Shape(20, 50)
    memory = 128

    def measure(self, system):
        artifacts = self.store.others
        keys = f'memory = "{self.memory}MiB"'
        with system.mounted(self.shape, None, keys=keys) as mount:
            parts, originals = [], []
            for artifact in artifacts:
                path = mount.file(artifact)
                quarter = artifact.size // 4
                for start in range(0, 4 * quarter, quarter):
                    parts.append(f"{path}:{start}:{start + quarter}")
                    originals.append(artifact.path)
            done = load("together", ",".join(originals), *parts)
            cpu, rss = mount.daemons[0].cpu(), mount.peak_rss()
        return {
            "value": rss / (1 << 20),
            "rate": done["bytes"] / done["seconds"] / MB,
            "cpu_s_per_gb": per_gb(done["cpu"] + cpu, done["bytes"]),
            "fetched_ratio": self.store.fetched() / done["bytes"],
        }

    def goals(self, medians, samples):
        us = medians.get(US)
        return [Goal("MiB more than the memory budget", us and us - self.memory, most=64)]


class EightReaders(Row):
    """Eight artifacts at once, compared with one."""

    key, title = "eight", "8 sequential readers of 8 artifacts, unshaped"

    def measure(self, system):
        with system.mounted(self.shape, None) as mount:
            one = load("together", "-", mount.file(self.store.main))
        with system.mounted(self.shape, None) as mount:
            paths = [mount.file(artifact) for artifact in self.store.others]
            for path in paths:
                with open(path, "rb"):
                    pass
            before = mount.cpu()
            done = load("together", "-", *paths)
            cpu = done["cpu"] + mount.cpu() - before
        size = self.store.main.size + done["bytes"]
        share = sum(done["at_first_end"]) / len(paths)
        return {
            "value": done["bytes"] / done["seconds"] / MB,
            "one": one["bytes"] / one["seconds"] / MB,
            "least_share": min(done["at_first_end"]) / share,
            "cpu_s_per_gb": per_gb(cpu, done["bytes"]),
            "fetched_ratio": self.store.fetched() / size,
        }

    def verify(self, system):
        with system.mounted(self.shape, None) as mount:
            paths = [mount.file(artifact) for artifact in self.store.others]
            originals = [artifact.path for artifact in self.store.others]
            load("together", ",".join(originals), *paths)
        self.store.fetched()

    def goals(self, medians, samples):
        one = median(sample["one"] for sample in samples) if samples else None
        least = median(sample["least_share"] for sample in samples) if samples else None
        return [
            Goal("x one reader's rate", ratio(medians.get(US), one), 0.9),
            Goal("x its share, the slowest reader", least, 0.5),
        ]


class Listing(Row):
    """`ls -lR` of a tree that was listed before, and `ls -l` of its long directories.

    Every file lies in two directories of its own: backup and shard.
    """

    key, title, unit = (
        "list",
        "ls -lR of 100 000 backups of a file each, listing cached",
        "entries/s",
    )
    files, clusters = 100_000, 10

    def measure(self, system):
        clouds = Clouds(
            self.store.programs,
            f"{self.store.dir}/clouds.log",
            f"--clusters={self.clusters}",
            f"--snapshots={self.files // self.clusters}",
        )
        try:
            with system.mounted(UNSHAPED, None, clouds=clouds) as mount:
                first = self.list(self.files, "-lR", mount.path)
                calls = sum(clouds.bill()["calls"].values())
                before = mount.cpu()
                again = self.list(self.files, "-lR", mount.path)
                flat = self.list(0, "-l", *(mount.path / "atlas").iterdir())
                return {
                    "value": again["entries"] / again["seconds"],
                    "first": first["entries"] / first["seconds"],
                    "flat": flat["entries"] / flat["seconds"],
                    "calls": calls,
                    "calls_again": sum(clouds.bill()["calls"].values()) - calls,
                    "cpu": again["cpu"] + mount.cpu() - before,
                    "rss": mount.peak_rss(),
                }
        finally:
            clouds.end()

    def list(self, files_wanted, *words):
        """Lists directories."""
        done = run(["ls", *words])
        kinds = [line[:1] for line in done.output.splitlines()]
        files = kinds.count(b"-")
        entries = files + kinds.count(b"d") + kinds.count(b"l")
        if files < files_wanted or entries < self.files:
            raise Failure(f"ls shows {entries} entries, {files} of them files")
        return {"seconds": done.seconds, "cpu": done.cpu, "entries": entries}

    def goals(self, medians, samples):
        flat = median(sample["flat"] for sample in samples) if samples else None
        calls = max(sample["calls_again"] for sample in samples) if samples else None
        return [
            Goal("entries/s of ls -lR", medians.get(US), 100_000),
            Goal("entries/s of ls -l in the long directories", flat, 100_000),
            Goal("calls of the provider while it is cached", calls, most=0),
        ]


class HugeCache(Row):
    """Mounting on a cache directory that earlier mounts have filled."""

    key, title, unit = "huge-cache", "mount on a cache of 1 000 000 blocks", "seconds"
    artifacts, blocks = 10_000, 100
    block = 128 << 10

    def __init__(self, store):
        super().__init__(store)
        self.dir = None

    def measure(self, system):
        self.dir = self.dir or self.fill(system)
        with system.mounted(UNSHAPED, None, keep=self.dir) as mount:
            return {"value": mount.ready_after, "rss": mount.peak_rss()}

    def fill(self, system):
        """A directory with the files of many artifacts; their data is one hole."""
        dir = system.directory()
        with system.mounted(UNSHAPED, None, keep=dir):
            pass
        (version,) = (dir / "cache").glob("v*")
        for number in range(self.artifacts):
            name = hashlib.sha256(b"%d" % number).hexdigest()
            shelf = version / name[:2]
            shelf.mkdir(mode=0o700, exist_ok=True)
            for suffix in ("data", "map"):
                file = os.open(shelf / f"{name}.{suffix}", os.O_CREAT | os.O_WRONLY, 0o600)
                if suffix == "data":
                    os.truncate(file, self.blocks * self.block)
                else:
                    os.write(file, os.urandom(4096 + 8 * self.blocks))
                os.close(file)
        return dir

    def goals(self, medians, samples):
        return [Goal("seconds until it is ready", medians.get(US), most=2)]


def at_latency(milliseconds):
    """A point of the plot: cold copies at a latency."""

    class AtLatency(Cold):
        """Without goals."""

        key = f"latency-{milliseconds}"
        title = f"cold sequential copy, {milliseconds} ms, 50 MB/s per connection"
        shape = Shape(milliseconds, 50)
        systems = (Product, Rclone, Bare, Ceiling, Curl, Aria2)

        def goals(self, medians, samples):
            return []

    return AtLatency


class Connections(Cold):
    """The other points: bare downloads over more and more connections."""

    key, title = "connections", "bare downloads by connections, 20 ms, 50 MB/s per connection"
    shape = Shape(20, 50)
    systems = tuple(
        type(f"Bare{number}", (Bare,), {"name": f"{number} connections", "connections": number})
        for number in (1, 2, 4, 8, 16)
    )

    def amount(self, system):
        return self.store.others[0].size

    def goals(self, medians, samples):
        return []


ROWS = (
    ColdUnshaped,
    Cold20,
    Cold100,
    Warm,
    FirstByte,
    Random1M,
    Random4K,
    Readers32,
    EightReaders,
    Listing,
    HugeCache,
)
"""The rows that have goals, in their order."""

PLOT_ROWS = (*map(at_latency, (0, 20, 50, 100)), Connections)
"""What the plot shows besides."""
