"""`attack.layers`: label-free attacks on the features of several stages of the server layers at once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splitaudit.attacks.objectives import cosine_shift
from splitaudit.errors import ConfigError
from splitaudit.evaluation.attack import Attack, make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.measure import measure_clean, run_attack
from splitaudit.evaluation.target import Target
from splitaudit.experiments.parts import Parts
from splitaudit.models.stages import Stages
from tests.conftest import TRAINED, small_config, small_parts

LABEL_FREE = ("sladv", "fda", "ila", "sladv@untrained", "sladv-true-input", "sladv@whole", "sladv@proxy", "sladv+mi")


@pytest.fixture(scope="module")
def target(parts: Parts) -> Target:
    """The trained model, and another of the same architecture as the proxy."""
    return parts.target(proxy=small_parts("runtime.seed=1").model)


@pytest.fixture(scope="module")
def names(target: Target) -> list[str]:
    """The stages of the server layers."""
    return Stages(target.model.F2).names


@pytest.fixture(scope="module")
def x(parts: Parts) -> Tensor:
    return parts.runtime.pixels(parts.data.test.images[:16])


def named(name: str, target: Target, layers: list[str] | None) -> Attack:
    config = small_config(*TRAINED, f"attack.layers={layers or 'null'}")
    return make_attack(name, config, target, make_budget(config, target.model))


def perturb(attack: Attack, x: Tensor) -> Tensor:
    labels = torch.zeros(len(x), dtype=torch.long)
    return attack.perturb(x, labels, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", LABEL_FREE)
def test_layers_are_those_of_the_model_that_the_attack_goes_through(
    name: str, target: Target, names: list[str], x: Tensor
) -> None:
    """Each feature is that of its stage, the last one what the attack climbs by default."""
    alone, several = (named(name, target, layers).function(x) for layers in (None, names))
    assert isinstance(several, tuple)
    assert len(several) == len(names)
    torch.testing.assert_close(several[-1], alone)
    for stage, features in zip(names, several, strict=True):
        (once,) = named(name, target, [stage]).function(x)
        torch.testing.assert_close(once, features)


def test_a_stage_is_where_the_model_has_it(target: Target, x: Tensor) -> None:
    """block2's features are what the whole model has there."""
    seen: list[Tensor] = []
    hook = target.model.whole.get_submodule("network.block2").register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    target.model.whole(x)
    hook.remove()
    (features,) = named("sladv-true-input", target, ["block2"]).function(x)
    torch.testing.assert_close(features, seen[0])


def test_the_losses_of_the_layers_are_added(target: Target, names: list[str], x: Tensor) -> None:
    z = (x + 0.05 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    both, first, last = (
        cosine_shift(named("sladv", target, layers).function, x)(z)
        for layers in ([names[1], names[-1]], [names[1]], [names[-1]])
    )
    torch.testing.assert_close(both, first + last)


@pytest.mark.parametrize("name", ["sladv", "fda", "ila@true-input", "vmi-fgsm-label-free"])
def test_layers_change_what_is_climbed(name: str, target: Target, names: list[str], x: Tensor) -> None:
    """By default it is o2; several layers give other images, no matter in which order they are named."""
    default, last, several, turned = (
        perturb(named(name, target, layers), x)
        for layers in (None, names[-1:], ["block2", "flatten"], ["flatten", "block2"])
    )
    torch.testing.assert_close(last, default)
    torch.testing.assert_close(turned, several)
    assert not torch.allclose(several, default)


@pytest.mark.parametrize("name", ["noise", "noise@shadow", "sladv@nothing", "pgd", "fgsm@proxy"])
def test_attacks_that_climb_no_features_ignore_them(name: str, target: Target, x: Tensor) -> None:
    assert torch.equal(perturb(named(name, target, ["block2", "flatten"]), x), perturb(named(name, target, None), x))


@pytest.mark.parametrize("layer", ["block3", "block1.0", "linear", ""])
def test_a_layer_that_the_server_has_not_is_refused(layer: str, target: Target) -> None:
    """Also one of the client's: before anything is attacked, naming the nearest."""
    with pytest.raises(
        ConfigError, match=rf"attack\.layers: Unknown stage of the server layers '{layer}'.*Known: .*block2"
    ):
        named("sladv", target, ["flatten", layer])
    with pytest.raises(ConfigError, match="Did you mean 'block2'"):
        named("sladv", target, ["block3"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[]", r"attack\.layers.*at least 1"),
        ("flatten", r"attack\.layers.*valid tuple"),
        ("[flatten, flatten]", "each stage once"),
        ("[1.10]", r"attack\.layers.*valid string"),
    ],
)
def test_bad_settings(value: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        small_config(f"attack.layers={value}")


def test_cosine_of_results_stays_about_the_output(target: Target, parts: Parts) -> None:
    """Whatever layers were attacked, o2 is what is compared."""
    clean = measure_clean(target, parts.data.test.subset(torch.arange(16)), 16, parts.runtime)
    outcome = run_attack(named("sladv-true-input", target, ["block1", "block2"]), target, clean, 16, parts.runtime)
    o2 = target.model.F2(target.model.F1(outcome.images)).flatten(1)
    torch.testing.assert_close(outcome.cosine, torch.nn.functional.cosine_similarity(o2, clean.features.flatten(1)))


def test_features_are_float32_whatever_the_precision(target: Target, x: Tensor) -> None:
    fast = replace(target, runtime=replace(target.runtime, precision="bf16"))
    features = named("sladv", fast, ["block2", "flatten"]).function(x)
    assert {feature.dtype for feature in features} == {torch.float32}
    exact = named("sladv", target, ["block2", "flatten"]).function(x)
    assert not torch.equal(features[0], exact[0])
    torch.testing.assert_close(features, exact, rtol=0.1, atol=0.1)


def test_tapping_changes_nothing_of_the_target(target: Target, x: Tensor) -> None:
    before = target.features(x)
    perturb(named("fda", target, ["block1", "block2", "flatten"]), x)
    assert torch.equal(target.features(x), before)
    assert not any(module.training for part in target.parts() for module in part.modules())
