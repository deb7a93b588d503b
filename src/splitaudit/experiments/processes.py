"""A distributed training on one machine: a server process and a process for each client, over loopback with mutual TLS.

They are the very commands that run on machines of their own, `splitaudit serve` and `splitaudit join`. What they leave
becomes the checkpoint and the curves of the run's folder, as the training in one process would have left them.
"""

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.errors import RunError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.experiments.training import save_state
from splitaudit.learning.checkpoint import Checkpoint, load_checkpoint
from splitaudit.learning.layers import learning_rate
from splitaudit.learning.state import join, part
from splitaudit.transport import certificates

ENDING_WITH_PARENT = """
import ctypes, os, signal, sys
parent = int(sys.argv.pop(1))
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The process that started this one is gone.")
from splitaudit.cli import main
main()
"""
"""The command line after its parent's id, in a process that Linux ends when that ends, whatever ends it; elsewhere
nothing happens. Said by the process itself: what is run for it between fork and exec can crash, where this one has
threads."""


def train_in_processes(config: RunConfig, data: AuditData, folder: RunFolder, reporter: Reporter) -> None:
    """Train a resolved config's model in processes; or go on where an earlier call was stopped.

    Raises RunError, with what it said last, if a process fails.
    """
    total = config.training.iterations
    done = load_checkpoint(folder.checkpoints, reporter.warn)
    if done is not None and done.iteration == total:
        return
    base = folder.path / "parties"
    names = [f"client-{index}" for index in range(config.data.clients)]
    _prepare(config, data, base, names)
    commands = {"server": ["serve", "server.yaml", "--clients", "ca/clients.txt"]}
    commands |= {name: ["join", "client.yaml"] for name in names}
    address = f"127.0.0.1:{_free_port()}"
    with _started(base, commands, address) as processes, reporter.training(0, total) as progress:
        told = 0
        while any(process.poll() is None for process in processes.values()):
            _check(processes, base)
            served = _last_row(base / "server")
            if served is not None and served["iteration"] > told:
                told = served["iteration"]
                losses = [row["loss"] for row in (_last_row(base / name) for name in names) if row is not None]
                progress(told, sum(losses) / max(1, len(losses)), served["images_per_second"])
            time.sleep(1)
        _check(processes, base)
    _assemble(config, folder, base, names, reporter)


def _prepare(config: RunConfig, data: AuditData, base: Path, names: Sequence[str]) -> None:
    """Certificates, and a config for either side. What an earlier call made is kept: layers are sealed with its key."""
    ca = base / "ca"
    if not (ca / "ca.key").exists():
        certificates.init(ca)
    certificates.issue(ca, "server", "server", base / "server" / "certs", ["127.0.0.1"])
    for name in names:
        certificates.issue(ca, "client", name, base / name / "certs", [])
    told = {"image_shape": data.train.shape, "classes": len(data.train.classes)}
    server = config.model_copy(update={"transport": config.transport.model_copy(update=told)})
    # Clients need none of the attacker's images; those that no client holds are loaded anyway.
    source = config.data.name if len(data.partition.reserve) else "patches"
    client = server.model_copy(update={"attacker": config.attacker.model_copy(update={"source": source, "images": 1})})
    for file, content in (("server.yaml", server), ("client.yaml", client)):
        write_whole(base / file, content.to_yaml().encode())


@contextmanager
def _started(
    base: Path, commands: dict[str, list[str]], address: str
) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """The processes, ended at the end of the block whatever happens."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    # Whoever waits for its turn must not keep a core busy.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        for name, command in commands.items():
            options = ["--certs", f"{name}/certs", "--out", f"{name}/run", "--set", f"transport.address={address}"]
            with (base / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    [sys.executable, "-c", ENDING_WITH_PARENT, str(os.getpid()), *command, *options],
                    cwd=base,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        yield processes
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
        for process in processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _check(processes: dict[str, "subprocess.Popen[bytes]"], base: Path) -> None:
    for name, process in processes.items():
        if process.poll() not in {None, 0}:
            log = base / f"{name}.log"
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            raise RunError(f"The process {name} ended with code {process.returncode} ({log}):\n  " + "\n  ".join(said))


def _assemble(config: RunConfig, folder: RunFolder, base: Path, names: Sequence[str], reporter: Reporter) -> None:
    """The state and the curves of the whole training, from those of the parties."""
    total = config.training.iterations
    server, client = (_final(base / name, total, reporter) for name in ("server", names[0]))
    watching = sum(_final(base / name, total, reporter).extra.get("watching", math.nan) for name in names)
    losses = {row["iteration"]: row for name in names for row in _rows(base / name)}
    rows, last = [], 0
    for served in _rows(base / "server"):
        iteration = served["iteration"]
        within = [losses[i]["loss"] for i in range(last + 1, iteration + 1) if i in losses]
        figures = {"iteration": iteration, "learning_rate": learning_rate(config.training, iteration - 1)}
        noticed = {key: value for key, value in losses.get(iteration, {}).items() if key == "detectors"}
        rows.append(figures | {"loss": sum(within) / max(1, len(within))} | served | noticed)
        last = iteration
    write_whole(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())
    state = join(clients=part(client.state, "clients"), server=part(server.state, "server"))
    save_state(folder, total, {"iteration": torch.tensor(total), **state}, float(server.extra["seconds"]), watching)


def _final(party: Path, total: int, reporter: Reporter) -> Checkpoint:
    checkpoint = load_checkpoint(party / "run" / "checkpoint", reporter.warn)
    if checkpoint is None or checkpoint.iteration != total:
        raise RunError(f"{party} has no checkpoint of iteration {total}: run the same command again.")
    return checkpoint


def _last_row(party: Path) -> dict[str, Any] | None:
    """The last whole row that a party has logged so far, without reading all of them."""
    file = RunFolder(party / "run").metrics
    if not file.exists():
        return None
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 4096))
        lines = opened.read().split(b"\n")[-2:-1]
    try:
        return dict(json.loads(lines[0])) if lines else None
    except ValueError:
        return None


def _rows(party: Path) -> list[dict[str, Any]]:
    return RunFolder(party / "run").read_metrics()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
