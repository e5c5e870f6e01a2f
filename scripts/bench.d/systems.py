"""What is measured: this product's mount, the peers' mounts, and plain downloads.

A system is started afresh for each sample, with an empty cache unless it is told to keep one.
"""

import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import Daemon, Failure, detach, run

GENTLE = 0o700


class Mount:
    """A running mount; leaving the context unmounts it and removes its directory."""

    def __init__(self, dir, daemons):
        self.dir, self.daemons = dir, daemons

    def file(self, artifact):
        """The path of an artifact."""
        raise NotImplementedError

    def cpu(self):
        """Seconds of processor time of the mount's processes."""
        return sum(daemon.cpu() for daemon in self.daemons)

    def peak_rss(self):
        """The most resident bytes of the mount's processes."""
        return sum(daemon.peak_rss() for daemon in self.daemons)


class System:
    """Something that reads artifacts from the store."""

    name = ""
    needs = ()
    """Commands that it consists of."""
    slow = False
    """Whether one connection carries everything: shaped rows then copy a part only."""

    def __init__(self, store, work):
        self.store, self.work = store, work

    def missing(self):
        """Commands that are not installed."""
        return [command for command in self.needs if not shutil.which(command)]

    def directory(self):
        """A new directory for one sample."""
        return Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=self.work))


class MountSystem(System):
    """A system that is mounted."""

    def start(self, dir, mountpoint, shape, artifact):
        """The daemons, ready, and the function from artifact to path."""
        raise NotImplementedError

    @contextlib.contextmanager
    def mounted(self, shape, artifact, keep=None, **options):
        """A mount on a fresh directory, or on what an earlier one left in `keep`."""
        dir = keep or self.directory()
        mountpoint = dir / "mnt"
        mountpoint.mkdir(mode=GENTLE, exist_ok=True)
        mount = Mount(dir, [])
        try:
            self.start(mount, mountpoint, shape, artifact, **options)
            yield mount
        finally:
            self.stop(mount, mountpoint)
            if not keep:
                shutil.rmtree(dir, ignore_errors=True)

    def stop(self, mount, mountpoint):
        """Ends the daemons, which unmount."""
        for daemon in reversed(mount.daemons):
            daemon.end()
        detach(mountpoint)


class Product(MountSystem):
    """This project's mount: real links through the simulated clouds."""

    name = "mongo-backupfs"

    def __init__(self, store, work, binary):
        super().__init__(store, work)
        self.binary = binary

    def start(self, mount, mountpoint, shape, artifact, keys="", clouds=None):
        clouds = clouds or self.store.clouds_for(shape)
        config = mount.dir / "config.toml"
        config.unlink(missing_ok=True)
        config.touch(mode=0o600)
        config.write_text(
            "[mount]\n"
            f'cache_dir = "{mount.dir}/cache"\n'
            f'state_dir = "{mount.dir}/state"\n'
            'list_ttl = "1h"\n'
            f"{keys}\n"
            "[[provider]]\n"
            'name = "atlas"\n'
            'kind = "atlas"\n'
            f'endpoint = "{clouds["base_url"]}"\n'
            f'project_id = "{clouds["project_id"]}"\n'
            f'public_key = "{clouds["public_key"]}"\n'
            f'private_key = "{clouds["private_key"]}"\n'
            'poll_interval = "50ms"\n'
            "allow_http = true\n",
            encoding="utf-8",
        )
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MONGO_BACKUPFS_") and not name.lower().endswith("_proxy")
        }
        start = time.monotonic()
        daemon = Daemon(
            [self.binary, "--config", config, "mount", mountpoint],
            mount.dir / "log",
            stdout=subprocess.PIPE,
            env=environment,
        )
        mount.daemons.append(daemon)
        daemon.line()
        mount.ready_after = time.monotonic() - start

        def file(wanted):
            snapshot = clouds.snapshots("cluster-0")[wanted.number]
            found = glob.glob(f"{mountpoint}/atlas/cluster-0/*-{snapshot}/*/*")
            if len(found) != 1:
                raise Failure(f"snapshot {snapshot} has {len(found)} files")
            return Path(found[0])

        mount.file = file
        mount.path = mountpoint
        if artifact:
            # The download task exists and the size is known: what is measured is the read path.
            with open(file(artifact), "rb"):
                pass


class Rclone(MountSystem):
    """rclone's mount of an HTTP server."""

    name = "rclone"
    needs = ("rclone", "fusermount3")
    slow = True
    options = ("--vfs-cache-mode=off", "--buffer-size=64Mi")

    def start(self, mount, mountpoint, shape, artifact):
        base = self.store.base_url(shape)
        daemon = Daemon(
            [
                "rclone",
                "mount",
                ":http:",
                mountpoint,
                "--config=/dev/null",
                f"--http-url={base}/files/{artifact.number}/",
                "--read-only",
                f"--cache-dir={mount.dir}/cache",
                "--vfs-read-chunk-size=32Mi",
                "--max-read-ahead=1Mi",
                *self.options,
            ],
            mount.dir / "log",
        )
        mount.daemons.append(daemon)
        path = mountpoint / "artifact"
        mount.file = lambda _: path
        daemon.ready(path.exists, "no mount")


class RcloneCache(Rclone):
    """The same with its cache on disk."""

    name = "rclone cache"
    options = ("--vfs-cache-mode=full", "--vfs-read-ahead=256Mi", "--buffer-size=64Mi")


class Nbd(MountSystem):
    """nbdkit's curl plugin, shown as a file by nbdfuse."""

    name = "nbdkit"
    needs = ("nbdkit", "nbdfuse", "fusermount3")
    slow = True

    def start(self, mount, mountpoint, shape, artifact):
        socket = mount.dir / "socket"
        url = self.store.url(artifact, shape)
        kit = Daemon(
            ["nbdkit", "-f", "-r", "-U", socket, "curl", url, "timeout=60"], mount.dir / "log"
        )
        mount.daemons.append(kit)
        kit.ready(socket.exists, "no socket")
        path = mountpoint / "artifact"
        fuse = Daemon(["nbdfuse", "-r", path, f"nbd+unix:///?socket={socket}"], mount.dir / "log")
        mount.daemons.append(fuse)
        mount.file = lambda _: path
        fuse.ready(path.exists, "no mount")

    def stop(self, mount, mountpoint):
        with contextlib.suppress(OSError):
            subprocess.run(["fusermount3", "-u", mountpoint], capture_output=True, check=False)
        super().stop(mount, mountpoint)


class Download(System):
    """A program that downloads a whole file."""

    def argv(self, url, target):
        """Its command line."""
        raise NotImplementedError

    def download(self, shape, artifact, target):
        """Downloads an artifact."""
        return run(self.argv(self.store.url(artifact, shape), target))


class Bare(Download):
    """The yardstick: ranges of 4 MiB over eight or sixteen connections."""

    name = "bare download"
    connections, part = 8, 4

    def argv(self, url, target):
        program = self.store.programs / "ranged-download"
        return [program, url, target, f"--connections={self.connections}", f"--part={self.part}"]


class Ceiling(Bare):
    """What sixteen connections allow: each asks once and then only receives."""

    name = "16 connections"
    connections, part = 16, 0


class Curl(Download):
    """curl, one connection."""

    name = "curl"
    needs = ("curl",)
    slow = True

    def argv(self, url, target):
        return ["curl", "--silent", "--fail", "--noproxy", "*", "--output", target, url]


class Wget(Download):
    """wget, one connection."""

    name = "wget -c"
    needs = ("wget",)
    slow = True

    def argv(self, url, target):
        return ["wget", "--quiet", "--no-proxy", "-c", "-O", target, url]


class Aria2(Download):
    """aria2c with sixteen connections."""

    name = "aria2c -x16"
    needs = ("aria2c",)

    def argv(self, url, target):
        return [
            "aria2c", "--no-conf", "--quiet", "-x16", "-s16", "-k1M", "--file-allocation=none",
            "--all-proxy=", f"--dir={target.parent}", f"--out={target.name}", url,
        ]  # fmt: skip


PEERS = (Rclone, RcloneCache, Nbd, Bare, Ceiling, Curl, Wget, Aria2)
"""Everything that the product is compared with."""


def load(*words):
    """Runs a reader of `load.py`."""
    answer = json.loads(run([sys.executable, Path(__file__).with_name("load.py"), *words]).output)
    if answer["wrong"]:
        raise Failure(f"{answer['wrong']} wrong reads")
    return answer


def interrupt(_number, _frame):
    """The handler of signals that end a run: everything is then ended in order."""
    raise SystemExit(128 + signal.SIGTERM)
