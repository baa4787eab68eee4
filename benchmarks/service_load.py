"""The example service under load: latency and requests a second over loopback.

    python benchmarks/service_load.py --groups 1e6 --connections 1 8

A server of one process (uvicorn) runs `examples/service/service.py`; the client is plain asyncio
with connections that stay open. Both share the cores of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SERVICE = Path(__file__).resolve().parents[1] / "examples" / "service"
SECONDS = 5.0


@contextmanager
def running(model: Path) -> Iterator[int]:
    """Port of a service of a model file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)]
    command += ["--log-level", "error", "--no-access-log"]
    server = subprocess.Popen(command, cwd=SERVICE, env=os.environ | {"LMMFAST_MODEL": str(model)})
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def request(rows: list[dict[str, Any]]) -> bytes:
    """The bytes of one request."""
    body = json.dumps({"rows": rows}).encode()
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, requests: list[bytes], until: float, taken: list[float]) -> None:
    """Send one request after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    k = 0
    while time.perf_counter() < until:
        start = time.perf_counter()
        writer.write(requests[k % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        taken.append(time.perf_counter() - start)
        k += 1
    writer.close()


async def load(port: int, requests: list[bytes], connections: int, seconds: float) -> list[float]:
    """Times of all requests, in seconds."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(
        *(ask(port, requests[k::connections], until, taken) for k in range(connections))
    )
    return taken


def measure(
    model: Path, rows: list[dict[str, Any]], connections: list[int], seconds: float = SECONDS
) -> list[list[str]]:
    """Rows of a table: connections, requests a second, median and 99th percentile."""
    requests = [request([row]) for row in rows]
    table = []
    with running(model) as port:
        asyncio.run(load(port, requests, 1, 0.5))
        for n in connections:
            taken = asyncio.run(load(port, requests, n, seconds))
            median, late = 1e3 * np.quantile(taken, [0.5, 0.99])
            table.append([str(n), f"{len(taken) / seconds:,.0f}", f"{median:.2f} / {late:.2f}"])
    return table


def main() -> None:
    """Fit, save, serve and ask."""
    import production

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=float, default=1e6)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    for text in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            model, rows = production.saved(int(options.groups), text, Path(folder))
            for line in measure(model, rows, options.connections):
                print("text" if text else "integers", *line)


if __name__ == "__main__":
    main()
