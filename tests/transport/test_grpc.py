"""Over gRPC with mutual TLS: the same parameters, whoever is not on the list kept out, and a bad network survived."""

import datetime
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from splitaudit.errors import SplitAuditError, TransportError
from splitaudit.experiments.run import attack
from splitaudit.experiments.serving import build_server, serve
from splitaudit.experiments.store import RunFolder
from splitaudit.learning.state import part
from splitaudit.runtime import start_runtime
from splitaudit.transport import certificates, frames, grpc_client
from splitaudit.transport.certificates import Credentials, read_credentials
from splitaudit.transport.grpc_client import GrpcTransport, open_channel
from splitaudit.transport.grpc_server import LONGEST_CALL_SECONDS, SERVICE
from splitaudit.transport.protocol import Request
from splitaudit.transport.settings import shared_settings
from splitaudit.transport.slots import CALLS_PER_CLIENT
from tests.transport.deployment import Deployment, serving_clients
from tests.transport.parts import assert_same, in_process
from tests.transport.proxy import Proxy


@pytest.mark.parametrize("schedule", ["round_robin", "splitfed"])
@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_as_in_one_process(schedule: str, topology: str, tmp_path: Path) -> None:
    """Bit for bit; every client has the whole model, and the server has said what it is."""
    deployment = Deployment(tmp_path, f"training.schedule={schedule}", f"training.topology={topology}")
    deployment.train()
    deployment.assert_as_in_one_process()
    models = [load_file(tmp_path / f"run-{name}" / "model.safetensors") for name in ("a", "b")]
    assert_same((models[0], models[1]))
    assert any("honest server" in line for line in deployment.said)
    assert any("says it is: honest" in line for line in deployment.said)


def test_bf16_on_the_wire_halves_what_is_sent(tmp_path: Path) -> None:
    """Trained to the end, and not to the same bits."""
    received = {}
    for wire in ("exact", "bf16"):
        deployment = Deployment(tmp_path / wire, "runtime.precision=float32", f"transport.wire={wire}")
        deployment.train()
        rows = RunFolder(tmp_path / wire / "run-server").read_metrics()
        received[wire] = max(int(row["bytes_received"]) for row in rows if "bytes_received" in row)
    assert 0.4 < received["bf16"] / received["exact"] < 0.7
    trained = [load_file(tmp_path / wire / "run-a" / "model.safetensors") for wire in received]
    assert any(not torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which a step's tensors take several."""
    for module in (frames, grpc_client):
        monkeypatch.setattr(module, "PIECE_BYTES", 5000)


def test_over_a_bad_network_and_ready_for_an_attack(tmp_path: Path, small_pieces: None) -> None:
    """Delays and resets both ways change nothing; what a client ends with can be attacked like any run."""
    deployment = Deployment(tmp_path)
    proxy = Proxy(deployment.port, delay=0.005, reset_share=0.02)
    deployment.train(proxy.port)
    proxy.close()
    assert proxy.resets > 0
    deployment.assert_as_in_one_process()
    _, result = attack(tmp_path / "run-a", ["mi-fgsm@whole"], [], deployment.reporter())
    assert result.training.iterations == 12
    assert result.attack("pgd").accuracy <= result.clean.accuracy


@pytest.mark.slow
def test_over_a_slow_network(tmp_path: Path, small_pieces: None) -> None:
    """50 ms for every piece of up to 64 KiB, one in a hundred of which resets the connection instead."""
    deployment = Deployment(tmp_path, "training.iterations=24")
    proxy = Proxy(deployment.port, delay=0.05, reset_share=0.01)
    deployment.train(proxy.port)
    proxy.close()
    assert proxy.resets > 0
    deployment.assert_as_in_one_process()


@pytest.mark.slow
def test_a_network_that_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than a ping waits for its answer, amid a step: the client asks again, and what it sent comes late."""
    deployment = Deployment(tmp_path)
    proxy = Proxy(deployment.port)
    backward = GrpcTransport.backward

    def cut_off(transport: GrpcTransport, request: Request, do2: Tensor) -> Tensor:
        if request.client == 1 and proxy.cuts == 0:
            threading.Thread(target=proxy.cut, args=(40,), daemon=True).start()
            while proxy.cuts == 0:
                time.sleep(0.01)
        return backward(transport, request, do2)

    monkeypatch.setattr(GrpcTransport, "backward", cut_off)
    deployment.train(proxy.port)
    proxy.close()
    assert proxy.cuts == 1
    assert any("Waiting for the server" in line for line in deployment.said), "a ping went unanswered"
    deployment.assert_as_in_one_process()


class GoneError(Exception):
    """A party was killed."""


def test_killed_before_it_could_say_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has the whole model says so when it is started again; the server need not wait any longer."""
    deployment = Deployment(tmp_path)
    leave, gone = GrpcTransport.leave, threading.Event()

    def vanishes(transport: GrpcTransport, client: int) -> None:
        if client == 1 and not gone.is_set():
            gone.set()
            raise GoneError
        leave(transport, client)

    monkeypatch.setattr(GrpcTransport, "leave", vanishes)
    server, a, b = deployment.start()
    b.join(200)
    assert [type(error) for error in deployment.errors] == [GoneError], deployment.said
    deployment.errors.clear()
    a.join(200)
    assert server.is_alive()
    deployment.join("b")
    deployment.wait_for([server])
    deployment.assert_as_in_one_process()


def test_going_on_without_a_client_until_it_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy skip: one is gone between forward and backward. The other trains on, and both end with the same model."""
    deployment = Deployment(tmp_path, "transport.missing=skip", "transport.step_seconds=2", "training.iterations=24")
    backward, calls = GrpcTransport.backward, 0

    def vanishes(transport: GrpcTransport, request: Request, do2: Tensor) -> Tensor:
        nonlocal calls
        calls += request.client == 1
        if request.client == 1 and calls == 2:
            raise GoneError
        return backward(transport, request, do2)

    monkeypatch.setattr(GrpcTransport, "backward", vanishes)
    server, a, b = deployment.start()
    b.join(200)
    assert [type(error) for error in deployment.errors] == [GoneError], deployment.said
    deployment.errors.clear()
    again = threading.Thread(target=deployment.join, args=("b",), daemon=True)
    deployment.wait_for_words("client 1 does not answer: going on without it")
    again.start()
    deployment.wait_for([server, a, again])
    assert any("turn 7 goes by without client 1" in line for line in deployment.said), deployment.said
    models = [load_file(tmp_path / f"run-{name}" / "model.safetensors") for name in ("a", "b")]
    assert_same((models[0], models[1]))
    trained, undisturbed = deployment.final("server"), in_process(deployment.config())
    assert any(
        not torch.equal(tensor, undisturbed[f"server/{name}"]) for name, tensor in part(trained, "server").items()
    )


def test_plaintext_on_loopback_only(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.train(insecure=True)
    deployment.assert_as_in_one_process()
    assert any("plaintext" in line for line in deployment.said)
    deployment.overrides = (*deployment.overrides, "training.iterations=24")
    (tmp_path / "run-server" / "config.yaml").unlink()
    config = deployment.config()
    outside = config.model_copy(update={"transport": config.transport.model_copy(update={"address": "0.0.0.0:1"})})
    with pytest.raises(SplitAuditError, match="loopback addresses only"):
        serve(
            outside,
            tmp_path / "server",
            tmp_path / "elsewhere",
            deployment.reporter(),
            clients=tmp_path / "ca" / "clients.txt",
            insecure=True,
        )


@pytest.fixture(scope="module")
def served(
    nothing_runs_while_a_model_is_traced: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """One for all tests below, none of which leaves a trace."""
    with serving_clients(tmp_path_factory.mktemp("served")) as deployment:
        yield deployment


@contextmanager
def talking(
    deployment: Deployment, credentials: Credentials, *more: str, address: str | None = None, patience: int = 60
) -> Iterator[GrpcTransport]:
    """A way to the server for a party with these credentials."""
    config = deployment.config(None, f"transport.patience_seconds={patience}", *more)
    _, specs, _ = build_server(config, start_runtime(config))
    settings = shared_settings(config, (1, 8, 8), specs)
    with open_channel(address or config.transport.address, credentials) as channel:
        yield GrpcTransport(channel, settings, specs, 10_000, config.transport, torch.device("cpu"), lambda _text: None)


def say_hello(
    deployment: Deployment, credentials: Credentials, *more: str, address: str | None = None, patience: int = 60
) -> tuple[int, str]:
    """What the server answers to such a party."""
    with talking(deployment, credentials, *more, address=address, patience=patience) as transport:
        return transport.introduce()


def test_without_a_certificate_of_this_authority(served: Deployment, tmp_path: Path) -> None:
    """None, one of another authority, or a self-signed one: no connection."""
    certificates.init(tmp_path / "ca")
    certificates.issue(tmp_path / "ca", "client", "a", tmp_path / "a", [])
    known, other = read_credentials(served.folder / "a"), read_credentials(tmp_path / "a")
    for certificate, key in ((other.certificate, other.key), (None, None)):
        with pytest.raises(TransportError, match="No answer"):
            say_hello(served, Credentials(known.ca, certificate, key), patience=3)  # type: ignore[arg-type]
    with pytest.raises(TransportError, match="not the server"):
        say_hello(served, other, patience=3)


def test_an_expired_certificate(served: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.now(tz) - datetime.timedelta(days=10)

    class Calendar:
        datetime, timedelta, UTC = Past, datetime.timedelta, datetime.UTC

    monkeypatch.setattr(certificates, "datetime", Calendar)
    listed = (served.folder / "ca" / "clients.txt").read_text()
    certificates.issue(served.folder / "ca", "client", "b", tmp_path / "late", [], days=1)
    (served.folder / "ca" / "clients.txt").write_text(listed)
    with pytest.raises(TransportError, match="No answer"):
        say_hello(served, read_credentials(tmp_path / "late"), patience=3)


def test_a_server_for_another_host(served: Deployment) -> None:
    """The certificate is for 127.0.0.1: by another name it is not trusted."""
    with pytest.raises(TransportError, match=r"No answer|not the server"):
        say_hello(served, read_credentials(served.folder / "a"), address=f"localhost:{served.port}", patience=3)


def test_a_client_s_certificate_is_none_for_a_server(served: Deployment, tmp_path: Path) -> None:
    """Nor the other way round: the server's own certificate is on no list."""
    with pytest.raises(TransportError, match=r"No answer|not, or no longer, on the list"):
        say_hello(served, read_credentials(served.folder / "server"), patience=3)


def test_revoked_and_let_in_again(served: Deployment) -> None:
    """From the next request on, without a restart."""
    credentials = read_credentials(served.folder / "a")
    assert say_hello(served, credentials)[0] == 0
    file = served.folder / "ca" / "clients.txt"
    listed = file.read_text()
    certificates.revoke(served.folder / "ca", "a")
    with pytest.raises(TransportError, match="not, or no longer, on the list"):
        say_hello(served, credentials)
    file.write_text(listed)
    assert say_hello(served, credentials) == (0, "honest")


def test_a_list_that_cannot_be_used_is_told_of(served: Deployment, tmp_path: Path) -> None:
    """It counts as it was; and who is added has no place in a training for so many clients."""
    credentials = read_credentials(served.folder / "a")
    file = served.folder / "ca" / "clients.txt"
    listed = file.read_text()
    certificates.issue(served.folder / "ca", "client", "z", tmp_path / "z", [])
    with pytest.raises(TransportError, match="not, or no longer, on the list"):
        say_hello(served, read_credentials(tmp_path / "z"))
    for content, reason in (("a\n", "each line must be"), ("", "has fewer clients than before")):
        file.write_text(content)
        assert say_hello(served, credentials) == (0, "honest")
        assert any(reason in line and "list as it was" in line for line in served.said)
    file.write_text(listed)


def test_a_call_without_a_deadline(served: Deployment) -> None:
    with open_channel(served.config().transport.address, read_credentials(served.folder / "a")) as channel:
        for timeout in (None, 2 * LONGEST_CALL_SECONDS):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/{SERVICE}/Hello")(b"", timeout=timeout)
            assert "expected at most 3600" in str(refused.value)


def test_other_settings_are_named(served: Deployment) -> None:
    with pytest.raises(TransportError, match=r"training\.learning_rate: 0\.5 at the client, 0\.05 at the server"):
        say_hello(served, read_credentials(served.folder / "a"), "training.learning_rate=0.5")


def test_who_is_slow_to_send_keeps_nobody_waiting(served: Deployment) -> None:
    """Client 1 opens more calls than the server has threads, and sends nothing: all but its own few are refused."""
    silence = threading.Event()

    def unsent() -> Iterator[bytes]:
        silence.wait(60)
        yield b""

    with open_channel(served.config().transport.address, read_credentials(served.folder / "b")) as channel:
        hello: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Hello")
        calls = [hello.future(unsent(), timeout=60) for _ in range(4 * CALLS_PER_CLIENT)]
        while sum(call.done() for call in calls) < len(calls) - CALLS_PER_CLIENT:
            time.sleep(0.01)
        refused = Counter(call.code() for call in calls if call.done())
        assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert say_hello(served, read_credentials(served.folder / "a")) == (0, "honest")
        assert sum(call.done() for call in calls) == len(calls) - CALLS_PER_CLIENT, "these wait still"
        silence.set()
        assert Counter(call.code() for call in calls) == refused + Counter(
            {grpc.StatusCode.INVALID_ARGUMENT: CALLS_PER_CLIENT}
        )
