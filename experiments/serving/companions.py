"""What stands beside a service in experiments: nginx in front of it, Redis behind it."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.serving import service_process

NGINX_CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"


class Missing(Exception):
    """A program that a fault needs is not installed."""


def program(name: str) -> str:
    """The path of a program.

    Raises:
      Missing: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is not installed")
    return path


@contextlib.contextmanager
def nginx(*ports: int) -> Iterator[str]:
    """Runs nginx with the configuration of deploy/, in front of these ports; yields its URL."""
    port = service_process.free_port()
    text = NGINX_CONF.read_text().replace("listen 8080;", f"listen 127.0.0.1:{port};")
    with tempfile.TemporaryDirectory() as folder:
        text = text.replace("/tmp/nginx", f"{folder}/nginx")  # nosec B108
        for number, upstream in enumerate(ports, 1):
            text = text.replace(f"mmllm-{number}:8000", f"127.0.0.1:{upstream}")
        conf = Path(folder) / "nginx.conf"
        conf.write_text(text)
        command = [program("nginx"), "-c", str(conf), "-g", "daemon off;"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        service = service_process.Service(process, f"http://127.0.0.1:{port}")  # type: ignore
        try:
            service_process.wait_until(lambda: service.get("/healthz/live")[0] == 200, 10.0)
            yield service.url
        finally:
            service.end()


@contextlib.contextmanager
def redis(port: int) -> Iterator[Callable[[], None]]:
    """Runs a Redis that keeps nothing on disk; yields what kills it."""
    command = [program("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill() -> None:
        process.kill()
        process.wait()

    try:
        service_process.wait_until(lambda: _connects(port), 10.0)
        yield kill
    finally:
        kill()


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
