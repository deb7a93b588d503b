"""Input layers of each client's own: what a step trains, and what each client ends with."""

import threading
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from splitaudit.experiments.parts import Parts
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack
from splitaudit.learning.client import Client
from splitaudit.learning.state import part
from tests.conftest import small_parts
from tests.defenses.parts import HONEST, state_of, train
from tests.transport.conftest import nothing_runs_while_a_model_is_traced  # noqa: F401 (a fixture, of this module too)
from tests.transport.deployment import Deployment

DIVERSE = "defense.during=[diverse]"
THREE = (HONEST, "data.clients=3", "training.iterations=12", "training.momentum=0.9", "runtime.precision=float32")


def input_layers(parts: Parts) -> list[nn.Module]:
    """Of every client."""
    return [parts.session._layers.of(client).input.module for client in range(len(parts.data.partition.clients))]


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_they_begin_differently_and_a_step_trains_the_clients_own() -> None:
    """The first client's are those of the run's model; the other layers are shared."""
    parts = small_parts(*THREE, DIVERSE)
    own = input_layers(parts)
    assert own[0] is parts.model.F1
    begun = [flat(module) for module in own]
    assert not torch.equal(begun[1], begun[2])
    assert not torch.equal(begun[0], begun[1])
    for client, _ in enumerate(islice(parts.session.rounds(), 3)):
        moved = [not torch.equal(flat(module), begun[other]) for other, module in enumerate(own)]
        assert moved == [other <= client for other in range(3)]


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_it_is_the_training_of_models_that_share_all_but_their_input_layers(topology: str) -> None:
    """By hand, bit for bit: three models, each with an optimizer for its input layers, and one for what they share."""
    parts, plain = (small_parts(*THREE, DIVERSE, f"training.topology={topology}") for _ in range(2))
    config = plain.session._layers.input.config
    shared, own = plain.model, input_layers(plain)

    def sgd(*modules: nn.Module) -> torch.optim.SGD:
        parameters = [p for module in modules for p in module.parameters()]
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum, fused=True)

    optimizers, common = [sgd(module) for module in own], sgd(shared.F2, shared.F3)
    clients = [
        Client(number, plain.data.train, indices, config, plain.runtime)
        for number, indices in enumerate(plain.data.partition.clients)
    ]
    for iteration in range(config.iterations):
        batch, turn = divmod(iteration, 3)
        images, labels = clients[turn].batch(batch)
        F.cross_entropy(shared.F3(shared.F2(own[turn](images))), labels).backward()
        for optimizer in (optimizers[turn], common):
            optimizer.step()
            optimizer.zero_grad()
    train(parts)
    for trained, by_hand in zip(input_layers(parts), own, strict=True):
        for name, tensor in by_hand.state_dict().items():
            assert torch.equal(tensor, trained.state_dict()[name]), name
    expected = state_of(plain)
    assert all(torch.equal(expected[name], tensor) for name, tensor in state_of(parts).items())


def test_over_the_network_every_client_ends_with_its_own_model(tmp_path: Path) -> None:
    """The first one's is the model of a run in one process."""
    deployment = Deployment(tmp_path, DIVERSE)
    deployment.train()
    alone = train(small_parts(*deployment.overrides))
    first, second = (load_file(tmp_path / f"run-{name}" / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], tensor) for name, tensor in state_of(alone).items())
    assert not all(torch.equal(first[name], tensor) for name, tensor in second.items())
    own = input_layers(alone)[1].state_dict()
    alone.model.F1.load_state_dict(own)
    assert all(torch.equal(second[name], tensor) for name, tensor in state_of(alone).items())
    kept = part(deployment.final("b"), "clients/input/module")
    assert all(torch.equal(kept[name], tensor) for name, tensor in own.items())
    cosines = [attack(tmp_path / f"run-{n}", [], [], Reporter())[1].attack("noise").mean_cosine for n in ("a", "b")]
    assert cosines[0] != cosines[1]


def test_a_server_that_is_not_told_is_refused(tmp_path: Path) -> None:
    """It would expect smaller layers, and an audit's server would record the wrong batches."""
    deployment = Deployment(tmp_path, DIVERSE)
    server = threading.Thread(target=deployment.serve, args=("defense.during=[]",), daemon=True)
    server.start()
    deployment.wait_for_words("Serving at")
    deployment.join("a")
    assert "defense.during: 'diverse' at the client, None at the server" in str(deployment.errors[0])
