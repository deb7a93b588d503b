"""The server that hardens its own surrogate: with what it has, and away from where it was."""

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary import own_runtime
from splitaudit.adversary.adaptive import WITHIN, ServerSide, _as_clients_see, _clustered, make_surrogates
from splitaudit.attacks import Budget
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_label_free, turned_from
from splitaudit.defenses.fine_tuning import Share
from splitaudit.errors import DivergenceError
from splitaudit.runtime import Runtime
from tests.conftest import TRAINED, small_parts

RUNTIME = Runtime(torch.device("cpu"), "float32", 5)


def test_hardened_surrogates_turn_less_under_attacks_on_the_stale_one() -> None:
    parts = small_parts(*TRAINED, "adversary.kind=aligned")
    list(parts.session.rounds())
    model, runtime, images = parts.model, own_runtime(parts.runtime), parts.data.attacker.images
    parts.target()
    side = ServerSide(model.F1, model.F2, images, parts.session.server.layers.config, runtime)
    before = [tensor.clone() for part in (model.F1, model.F2) for tensor in part.state_dict().values()]
    budget = Budget("linf", 0.2)
    config = HardenConfig(epochs=6, batch_size=16, learning_rate=0.1, overshoot=1.0)
    surrogates = make_surrogates(side, budget, config, 10, pytest.fail)
    found = surrogates.hardened
    after = [tensor for part in (model.F1, model.F2) for tensor in part.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    stale = composed(runtime, model.F1, model.F2)
    crafted, _ = craft_label_free(stale, images, budget, 3, runtime, "adaptive")

    def turned(*layers: nn.Module) -> float:
        function = composed(runtime, *layers)
        with torch.no_grad():
            clean, attacked = (function(runtime.pixels(x)).flatten(1) for x in (images, crafted))
        return float(1 - torch.cosine_similarity(clean, attacked, dim=1).mean())

    assert turned(*found["features"]) < 0.7 * turned(model.F1, model.F2)
    assert set(found) == {"features", "clusters"}
    assert not surrogates.mirrored
    assert surrogates.suspicion is not None
    with torch.no_grad():
        clean, attacked = (surrogates.suspicion(runtime.pixels(x)) for x in (images, crafted))
    assert float(attacked.mean() - clean.mean()) > 1


@pytest.mark.parametrize(
    ("overshoot", "names"), [(1.0, ["features", "clusters"]), (2.0, ["features", "clusters", WITHIN])]
)
def test_where_clients_overshoot_another_surrogate_does_not(overshoot: float, names: list[str]) -> None:
    """It is hardened on images within the budget, the others on images beyond it."""
    parts = small_parts(*TRAINED, "adversary.kind=aligned")
    parts.target()
    images, training = parts.data.attacker.images, parts.session.server.layers.config
    side = ServerSide(parts.model.F1, parts.model.F2, images, training, own_runtime(parts.runtime))
    config = HardenConfig(epochs=1, batch_size=16, gate=False, modifiers=(), overshoot=overshoot)
    shown: list[Tensor] = []

    def watch(_learner: object, shares: list[Share], *_: object, **__: object) -> None:
        shown.append(shares[0].variants)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splitaudit.adversary.adaptive.fine_tune", watch)
        assert list(make_surrogates(side, Budget("linf", 0.1), config, 10, pytest.fail).hardened) == names
    furthest = [float((variants[:, 1] / 255 - variants[:, 0] / 255).abs().max()) for variants in shown]
    assert furthest == pytest.approx([0.1 * overshoot] * 2 + [0.1] * (len(names) - 2), abs=1 / 255)


def test_it_goes_without_a_surrogate_or_a_gate_that_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_parts(*TRAINED, "adversary.kind=aligned")
    parts.target()
    images, training = parts.data.attacker.images, parts.session.server.layers.config
    side = ServerSide(parts.model.F1, parts.model.F2, images, training, own_runtime(parts.runtime))

    def diverges(*arguments: object, **_: object) -> None:
        if "adaptive features" in arguments:
            raise DivergenceError("It became infinite.")

    def no_gate(*_: object) -> None:
        raise DivergenceError("It, too.")

    monkeypatch.setattr("splitaudit.adversary.adaptive.fine_tune", diverges)
    monkeypatch.setattr("splitaudit.defenses.gate.Suspicion.learn", no_gate)
    told: list[str] = []
    config = HardenConfig(epochs=1, batch_size=16, modifiers=())
    found = make_surrogates(side, Budget("linf", 0.1), config, 10, told.append)
    assert list(found.hardened) == ["clusters", WITHIN]
    assert found.suspicion is None
    assert [warning.split("goes without ")[1] for warning in told] == [
        "one of its surrogates, so it is weaker. It became infinite.",
        "a gate of its own, so it is weaker. It, too.",
    ]


def test_its_own_images_take_one_more_step_away_from_what_they_are_to_be_taken_for() -> None:
    """As the clients' do: of the attacked ones a share, within the budget."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 6)).requires_grad_(False)
    clean = torch.rand(8, 3, 4, 4, generator=generator)
    attacked = (clean + 0.2 * torch.randn(clean.shape, generator=generator).sign()).clamp(0, 1)
    features, shown = network(clean), []

    def loss(_model: object, pixels: Tensor, _targets: Tensor, _generator: torch.Generator) -> Tensor:
        shown.append(pixels)
        return pixels.sum()

    class Settled:
        settled = network

    budget, config = Budget("linf", 0.1), HardenConfig(overshoot=2.0, stepped=0.5, grey=0.0)
    pixels = torch.stack([clean, attacked])
    _as_clients_see(loss, turned_from, config, budget, Settled(), pixels, features, generator)  # type: ignore[arg-type]
    as_it_is, reached = shown[0]
    assert torch.equal(as_it_is, clean)
    assert torch.equal(reached[4:], attacked[4:])
    assert float((reached - clean)[:4].abs().max()) <= 0.1 + 1e-6
    begun = torch.lerp(clean, attacked, 0.5)
    near, nearer = (torch.cosine_similarity(network(x), features, dim=1)[:4] for x in (reached, begun))
    assert (near < nearer).all()


def test_some_of_its_own_attacks_have_no_colours() -> None:
    """As the clients' do."""
    generator, shown = torch.Generator().manual_seed(0), []
    clean = torch.full((2000, 3, 4, 4), 0.5)
    attacked = clean + 0.1 * torch.randn(clean.shape, generator=generator).sign()

    def loss(_model: object, pixels: Tensor, _targets: Tensor, _generator: torch.Generator) -> Tensor:
        shown.append(pixels)
        return pixels.sum()

    class Settled:
        settled = nn.Identity()

    pixels, config = torch.stack([clean, attacked]), HardenConfig(stepped=0.0, grey=0.25)
    _as_clients_see(loss, turned_from, config, Budget("linf", 0.1), Settled(), pixels, clean, generator)  # type: ignore[arg-type]
    added = shown[0][1] - clean
    alike = (added == added[:, :1]).flatten(1).all(1)
    assert float(alike.float().mean()) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(added[~alike], (attacked - clean)[~alike])


def test_the_head_names_the_nearest_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(5, 16, generator=generator)
    features = centres.repeat(40, 1) + torch.randn(200, 16, generator=generator)
    head, names = _clustered(features, 5, RUNTIME)
    assert names.unique().numel() == 5
    assert torch.equal(head(features).argmax(1), names)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize(
    "features",
    [
        pytest.param(torch.eye(4, 6), id="fewer than clusters"),
        pytest.param(torch.eye(4, 6)[:1], id="one image"),
        pytest.param(torch.ones(40, 6), id="constant"),
        pytest.param(torch.zeros(40, 6), id="dead"),
    ],
)
def test_few_images_and_features_that_coincide_make_a_usable_head(features: Tensor) -> None:
    """And nobody else's random draws change."""
    before = torch.get_rng_state()
    head, names = _clustered(features, 10, RUNTIME)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.isfinite().all() for parameter in head.parameters())
    logits = head(features)
    assert logits.shape == (len(features), max(1, min(10, len(features) // 2)))
    loss = torch.nn.functional.cross_entropy(logits, names)
    (gradient,) = torch.autograd.grad(loss, head.weight)
    assert gradient.isfinite().all()
