"""Split learning is SGD on the whole model, whoever holds which part."""

import copy
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.data import AuditData
from splitaudit.learning.client import Client
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel, build_split_model
from splitaudit.runtime import start_runtime
from tests.conftest import small_config


def build_model(data: AuditData, *overrides: str) -> SplitModel:
    config = small_config(*overrides)
    return build_split_model(config.model, num_classes=10, image_shape=data.train.shape, mean=[0.3], std=[0.4], seed=0)


def make_session(data: AuditData, model: SplitModel, *overrides: str) -> Session:
    config = small_config(*overrides)
    return Session(config.training, model, data, None, start_runtime(config))


def clients_of(data: AuditData, *overrides: str) -> list[Client]:
    config = small_config(*overrides)
    runtime = start_runtime(config)
    return [
        Client(index, data.train, indices, config.training, runtime)
        for index, indices in enumerate(data.partition.clients)
    ]


def train(session: Session) -> list[float]:
    return [float(loss) for done in session.rounds() for loss in done.losses]


def state_of(model: SplitModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.whole.state_dict().items()}


def centralised(whole: nn.Module, batches: list[tuple[Tensor, Tensor]], optimizer: torch.optim.SGD) -> list[float]:
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(whole(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", ["cnn", "resnet9"])
@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_round_robin_is_centralised_sgd(digits: AuditData, name: str, topology: str, augment: str) -> None:
    """Same batches in the same order: every parameter and buffer is equal bit for bit, and so is every loss."""
    settings = (
        f"model.name={name}",
        f"training.topology={topology}",
        f"training.augment={augment}",
        "training.momentum=0.9",
        "training.nesterov=true",
        "training.weight_decay=0.001",
        "training.learning_rate=0.02",
        "training.iterations=12",
    )
    split, whole = build_model(digits, *settings), build_model(digits, *settings).whole
    whole.to(memory_format=torch.channels_last).train()
    clients = clients_of(digits, *settings)
    batches = [clients[i % len(clients)].batch(i // len(clients)) for i in range(12)]
    optimizer = torch.optim.SGD(
        whole.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.001, fused=True
    )
    losses = train(make_session(digits, split, *settings))
    assert losses == centralised(whole, batches, optimizer)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, state_of(split)[name]), name


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_splitfed_v2_by_hand(digits: AuditData, topology: str) -> None:
    """Clients one after the other on their own copy, server layers shared, then the average."""
    settings = (
        "training.schedule=splitfed_v2",
        "training.local_steps=2",
        "training.iterations=20",
        "training.momentum=0.9",
        "training.learning_rate=0.05",
        f"training.topology={topology}",
    )
    split, reference = build_model(digits, *settings), build_model(digits, *settings)
    train(make_session(digits, split, *settings))

    at_client = ["F1"] if topology == "vanilla" else ["F1", "F3"]
    at_server = [part for part in ("F1", "F2", "F3") if part not in at_client]

    def sgd(modules: list[nn.Module]) -> torch.optim.SGD:
        return torch.optim.SGD([p for m in modules for p in m.parameters()], lr=0.05, momentum=0.9)

    parts = {part: getattr(reference, part).train() for part in ("F1", "F2", "F3")}
    server = sgd([parts[part] for part in at_server])
    copies = []
    for client in clients_of(digits, *settings):
        own = {**parts, **{part: copy.deepcopy(parts[part]) for part in at_client}}
        optimizer = sgd([own[part] for part in at_client])
        for step in range(2):
            images, labels = client.batch(step)
            F.cross_entropy(own["F3"](own["F2"](own["F1"](images))), labels).backward()
            for each in (optimizer, server):
                each.step()
                each.zero_grad()
        copies.append(own)
    sizes = torch.tensor([float(len(indices)) for indices in digits.partition.clients])
    for part in at_client:
        for name, parameter in getattr(split, part).named_parameters():
            stacked = torch.stack([dict(own[part].named_parameters())[name].detach() for own in copies])
            expected = (stacked * (sizes / sizes.sum()).view(-1, *[1] * parameter.dim())).sum(0)
            torch.testing.assert_close(parameter.detach(), expected)
    for part in at_server:
        for name, parameter in getattr(split, part).named_parameters():
            torch.testing.assert_close(parameter.detach(), dict(parts[part].named_parameters())[name].detach())


def test_splitfed_server_steps_once_for_all_clients(digits: AuditData) -> None:
    """One parallel step of SplitFedV1: every client meets the same server layers, which move by the mean gradient."""
    settings = (
        "training.schedule=splitfed",
        "training.local_steps=1",
        "training.iterations=10",
        "training.momentum=0",
        "training.learning_rate=0.1",
    )
    split, reference = build_model(digits, *settings), build_model(digits, *settings)
    train(make_session(digits, split, *settings))
    F2 = reference.F2.train()
    for client in clients_of(digits, *settings):
        images, labels = client.batch(0)
        F1, F3 = copy.deepcopy(reference.F1).train(), copy.deepcopy(reference.F3).train()
        (F.cross_entropy(F3(F2(F1(images))), labels) / 10).backward()
    for name, parameter in F2.named_parameters():
        assert parameter.grad is not None
        moved = (parameter - 0.1 * parameter.grad).detach()
        torch.testing.assert_close(split.F2.get_parameter(name).detach(), moved)


@pytest.mark.parametrize("schedule", ["round_robin", "splitfed", "splitfed_v2"])
@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_every_schedule_learns(digits: AuditData, schedule: str, topology: str) -> None:
    """The loss falls well below chance (ln 10) within a few rounds."""
    settings = (
        f"training.schedule={schedule}",
        f"training.topology={topology}",
        "training.local_steps=5",
        "training.iterations=300",
        "training.learning_rate=0.1",
    )
    losses = train(make_session(digits, build_model(digits, *settings), *settings))
    assert sum(losses[-10:]) / 10 < 0.7 < 2.0 < losses[0]


def test_state_goes_on_bit_for_bit(digits: AuditData) -> None:
    """A session loaded from another's state ends where the other ends, for any stop."""
    settings = ("training.momentum=0.9", "training.augment=crop_flip", "training.lr_schedule=one_cycle")
    undisturbed = build_model(digits, *settings)
    expected = train(make_session(digits, undisturbed, *settings))
    for stop in (1, 7, 19):
        first = make_session(digits, build_model(digits, *settings), *settings)
        list(islice(first.rounds(), stop))
        saved = {name: tensor.clone() for name, tensor in first.state().items()}
        model = build_model(digits, *settings)
        second = make_session(digits, model, *settings)
        second.load_state(saved)
        assert train(second) == expected[stop:]
        for name, tensor in undisturbed.whole.state_dict().items():
            assert torch.equal(tensor, model.whole.state_dict()[name]), name


def test_dropout_draws_nothing_from_the_global_generator(digits: AuditData) -> None:
    """Layers that draw at random are seeded by the run, not by what ran before it."""
    model = build_model(digits)
    outputs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        session = make_session(digits, copy.deepcopy(model))
        session.server.layers.module = nn.Dropout(0.5).train()
        outputs.append(session.server.forward(torch.ones(4, 100)))
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(*outputs)
    assert 0 < int((outputs[0] == 0).sum()) < 400


def test_precision_bf16_trains(digits: AuditData) -> None:
    """Under bf16 autocast activations cross the cut in bf16, parameters stay float32, and the loss falls."""
    settings = ("runtime.precision=bf16", "training.iterations=60", "training.learning_rate=0.05")
    model = build_model(digits, *settings)
    session = make_session(digits, model, *settings)
    seen = []
    forward = session.server.forward
    session.server.forward = lambda o1: seen.append(o1.dtype) or forward(o1)  # type: ignore[method-assign]
    losses = train(session)
    assert set(seen) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.whole.parameters())
    assert losses[-1] < losses[0] / 2
