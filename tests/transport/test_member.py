"""Clients that train with a coordinator end with the parameters of the run in one process, and tell it nothing else."""

import threading

import grpc
import pytest
import torch
from torch import Tensor

from splitaudit.data import AuditData, load_audit_data
from splitaudit.errors import TransportError
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.handover import Averaged
from splitaudit.transport.protocol import GivenLayers, Request
from splitaudit.transport.refusal import Refusal
from tests.adversary.reach import reachable
from tests.transport.parts import (
    BATCH_NORM,
    MemoryRecords,
    Party,
    assert_same,
    final_state,
    in_process,
    make_coordinator,
    run_together,
    tiny_config,
)


@pytest.mark.parametrize(
    ("schedule", "topology"), [("round_robin", "vanilla"), ("splitfed", "u_shaped"), ("splitfed_v2", "u_shaped")]
)
def test_as_in_one_process(schedule: str, topology: str) -> None:
    """Bit for bit, with BatchNorm on every side. What goes over a network is in `test_grpc`."""
    config = tiny_config(f"training.schedule={schedule}", f"training.topology={topology}", *BATCH_NORM)
    data = load_audit_data(config)
    coordinator = make_coordinator(config)
    parties = [Party(index, config, data, coordinator) for index in range(3)]
    run_together(parties)
    expected = in_process(config)
    for party in parties:
        assert_same((final_state(config, coordinator, party), expected))
        assert party.delivered is not None
    assert sorted(iteration for party in parties for iteration in party.losses) == list(range(12))


def test_a_server_that_is_replaced_amid_a_round() -> None:
    """Splitfed: what clients have learned in the round is thrown away, and learned again."""
    config = tiny_config("training.schedule=splitfed")
    data = load_audit_data(config)
    records = MemoryRecords()

    class Replaced:
        """A coordinator that dies in its tenth backward, and is there again, from the records, in the next call."""

        def __init__(self) -> None:
            self._coordinator, self._backwards, self._lock = make_coordinator(config, records), 0, threading.Lock()

        def backward(self, request: Request, do2: Tensor) -> Tensor:
            with self._lock:
                self._backwards += 1
                if self._backwards == 10:
                    self._coordinator = make_coordinator(config, records)
            return self._coordinator.backward(request, do2)

        def __getattr__(self, name: str) -> object:
            return getattr(self._coordinator, name)

    server = Replaced()
    parties = [Party(index, config, data, server) for index in range(3)]  # type: ignore[arg-type]
    run_together(parties)
    assert any(len(party.starts) > 1 for party in parties)
    expected = in_process(config)
    for party in parties:
        assert_same((final_state(config, server._coordinator, party), expected))


def test_the_server_has_nothing_of_the_clients(digits: AuditData) -> None:
    """Not in what can be reached from it, nor in what it keeps: no parameter of F1 and F3, no image, no label."""
    config, records = tiny_config(), MemoryRecords()
    coordinator = make_coordinator(config, records)
    parties = [Party(index, config, digits, coordinator) for index in range(3)]
    secrets = [tensor.clone() for party in parties for tensor in party.layers.state().values()]
    run_together(parties)
    for party in parties:
        secrets += list(party.layers.state().values())
        images, labels = party.member._client.batch(0)
        secrets += [images, labels, party.member._client.data.images[party.member._client.indices]]
    telling = [secret for secret in secrets if len(secret.unique()) > 4]  # not BatchNorm's initial zeros and ones
    needles = [secret.contiguous().numpy().tobytes()[:64] for secret in telling]
    assert len(needles) > 20
    found = list(reachable([coordinator, records]))
    held = [bytes(item) for item in found if isinstance(item, bytes | bytearray)]
    tensors = [item.detach() for item in found if isinstance(item, Tensor)]
    held += [tensor.contiguous().numpy().tobytes() for tensor in tensors]
    assert len(tensors) > 10, "the walk is blind"
    assert not [needle for needle in needles if any(needle in haystack for haystack in held)]


def test_layers_that_are_not_the_last_ones_are_found_out(digits: AuditData) -> None:
    """A server that passes on what was given earlier, to have a client train an old state."""
    config = tiny_config("transport.patience_seconds=1")

    class Stale(Coordinator):
        def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
            turn, given = super().take(request, layers=layers, timeout=timeout)
            if layers and given is not None and request.turn == 1:
                self.first = given
            return turn, self.first if layers and request.turn == 3 and given is not None else given

    coordinator = make_coordinator(config)
    coordinator.__class__ = Stale
    parties = [Party(index, config, digits, coordinator) for index in range(2)]
    with pytest.raises(TransportError):
        run_together(parties)
    assert "holds back" in str(parties[1].error)


def test_a_server_that_has_a_client_start_over_for_ever(digits: AuditData) -> None:
    """It says hello, and then each time that it went back to its last checkpoint. The client's patience ends."""
    config = tiny_config("transport.patience_seconds=0.5")

    class Undone(Coordinator):
        def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
            raise Refusal(grpc.StatusCode.ABORTED, "say hello again")

    coordinator = make_coordinator(config)
    coordinator.__class__ = Undone
    party = Party(0, config, digits, coordinator)
    with pytest.raises(TransportError, match="start over again and again, and never got past turn 1"):
        run_together([party])
    assert len(party.starts) > 1


def test_an_average_over_those_who_came(digits: AuditData) -> None:
    """Where clients were passed over, the others' weights add up to one again."""
    party = Party(0, tiny_config("training.schedule=splitfed"), digits, make_coordinator(tiny_config()))
    averaged = Averaged(party.layers, 20, 60)
    before = {name: tensor.clone() for name, tensor in averaged.initial().items()}
    alone = averaged.end({})
    assert int(alone["images"]) == 20
    averaged.begin(alone)
    after = averaged.initial()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor)
