"""The artifacts and who serves them: nginx, the shaping proxy before it, and the simulated clouds
whose signed links lead there."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass

from processes import Daemon, run, wait_until

NGINX = """
daemon off;
{user}
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    log_format bytes '$body_bytes_sent';
    access_log {dir}/nginx-access.log bytes;
    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    keepalive_requests 1000000;
    keepalive_timeout 300;
    default_type application/octet-stream;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    server {{
        listen unix:{dir}/nginx.socket;
        listen 127.0.0.1:{port} backlog=1024;
        root {dir}/served;
        # A signed link of the simulated clouds: the last part of its path names the snapshot.
        location ~ ^/atlas-snapshots/.*/(?<snapshot>[^/]+)$ {{ try_files /links/$snapshot =404; }}
        # The same files for peers, one in each directory.
        location /files/ {{ autoindex on; }}
    }}
}}
"""


@dataclass(frozen=True)
class Shape:
    """A network: milliseconds of a round trip, megabytes per second of a connection (0: any)."""

    latency: int = 0
    rate: int = 0

    def __str__(self):
        if self == UNSHAPED:
            return "unshaped"
        return f"{self.latency} ms, {self.rate} MB/s per connection"


UNSHAPED = Shape()


class Artifact:
    """A file of random bytes that the store serves."""

    def __init__(self, number, path, size):
        self.number, self.path, self.size = number, path, size
        with open(path, "wb") as file:
            for start in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - start)))

    @property
    def url_path(self):
        """Where peers find it."""
        return f"/files/{self.number}/artifact"


class Store:
    """nginx with artifacts: the first of `size` bytes, the others of an eighth each."""

    def __init__(self, dir, programs, size, others=8):
        self.dir, self.programs = dir, programs
        self.proxies, self.clouds = {}, {}
        os.makedirs(f"{dir}/served/links")
        self.artifacts = []
        for number in range(1 + others):
            os.makedirs(f"{dir}/served/files/{number}")
            path = f"{dir}/served/files/{number}/artifact"
            length = size if number == 0 else max(size // 8, 1)
            self.artifacts.append(Artifact(number, path, length))
        self.log_path = f"{dir}/nginx-access.log"
        self.log_at = 0
        self.port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        with open(f"{dir}/nginx.conf", "w", encoding="utf-8") as config:
            config.write(NGINX.format(dir=dir, port=self.port, user=user))
        nginx = ["nginx", "-e", f"{dir}/nginx-error.log", "-c", f"{dir}/nginx.conf", "-p", dir]
        self.nginx = Daemon(nginx, f"{dir}/nginx.log")
        try:
            self.nginx.ready(lambda: os.path.exists(f"{dir}/nginx.pid"), "no pid file")
        except BaseException:
            self.end()
            raise

    @property
    def main(self):
        """The large artifact."""
        return self.artifacts[0]

    @property
    def others(self):
        """The small artifacts."""
        return self.artifacts[1:]

    def base_url(self, shape):
        """Where the store is reached through a network of that shape."""
        if shape == UNSHAPED:
            return f"http://127.0.0.1:{self.port}"
        if shape not in self.proxies:
            proxy = Daemon(
                [
                    self.programs / "shaping-proxy",
                    f"--upstream=127.0.0.1:{self.port}",
                    f"--latency={shape.latency}",
                    f"--rate={shape.rate}",
                ],
                f"{self.dir}/proxy.log",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.proxies[shape] = proxy, proxy.line()
        return f"http://{self.proxies[shape][1]}"

    def url(self, artifact, shape):
        """Where a peer finds an artifact."""
        return self.base_url(shape) + artifact.url_path

    def clouds_for(self, shape):
        """Simulated clouds with one snapshot per artifact."""
        if shape not in self.clouds:
            clouds = Clouds(
                self.programs,
                f"{self.dir}/clouds.log",
                f"--links-to={self.base_url(shape)}",
                "--clusters=1",
                f"--snapshots={len(self.artifacts)}",
            )
            self.clouds[shape] = clouds
            for artifact, snapshot in zip(
                self.artifacts, clouds.snapshots("cluster-0"), strict=True
            ):
                os.symlink(artifact.path, f"{self.dir}/served/links/{snapshot}.tgz")
        return self.clouds[shape]

    def fetched(self):
        """Bytes of bodies that were sent since this was last asked."""
        size = os.path.getsize(self.log_path)
        since = time.monotonic()

        def quiet():
            nonlocal size, since
            now = os.path.getsize(self.log_path)
            if now != size:
                size, since = now, time.monotonic()
            return time.monotonic() - since > 0.15

        # A request is logged when its answer has ended.
        wait_until(quiet, "nginx does not come to rest")
        with open(self.log_path, encoding="ascii") as log:
            log.seek(self.log_at)
            sent = sum(int(line) for line in log)
            self.log_at = log.tell()
        return sent

    def end(self):
        """Ends every server."""
        for clouds in self.clouds.values():
            clouds.end()
        for proxy, _ in self.proxies.values():
            proxy.end()
        self.nginx.end()


class Clouds:
    """The simulated clouds on their own."""

    def __init__(self, programs, log, *options):
        self.daemon = Daemon(
            [programs / "simulated-clouds", *options],
            log,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.described = json.loads(self.daemon.line())

    def __getitem__(self, member):
        return self.described[member]

    def snapshots(self, cluster):
        """The ids of a cluster's snapshots."""
        return self["snapshots"][cluster]

    def bill(self):
        """What was asked of the clouds so far."""
        with urllib.request.urlopen(f"{self['base_url']}/_sim/bill") as answer:
            return json.load(answer)

    def end(self):
        """Ends them."""
        self.daemon.end()


def free_port():
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def download(programs, url, file, connections, part):
    """A bare parallel download to disk."""
    argv = [
        programs / "ranged-download",
        url,
        file,
        f"--connections={connections}",
        f"--part={part}",
    ]
    return run(argv)
