"""Split equals whole, and what cannot be cut is refused with its remedy."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models import Split, build_model, cut, model_names, named_depths
from splitaudit.randomness import isolated_global_rng

DEPTHS = [(name, depth) for name in model_names() for depth in named_depths(name)]


def small_model(name: str) -> nn.Module:
    width = 8 if name in {"cnn", "resnet9", "resnet18"} else None
    return build_model(ModelConfig(name=name, width=width), num_classes=10, channels=3, seed=0).double()


def random_images() -> Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def train_whole(model: nn.Module, images: Tensor) -> Tensor:
    with isolated_global_rng(0, "dropout"):
        scores = model(images)
    F.cross_entropy(scores, torch.arange(3)).backward()
    return scores


def train_split(split: Split, images: Tensor) -> Tensor:
    """One step as client and server do it: each cut is a detached tensor, gradients are passed by hand."""
    with isolated_global_rng(0, "dropout"):
        o1 = split.F1(images)
        received_by_server = o1.detach().requires_grad_()
        o2 = split.F2(received_by_server)
        received_by_client = o2.detach().requires_grad_()
        scores = split.F3(received_by_client)
    F.cross_entropy(scores, torch.arange(3)).backward()
    o2.backward(received_by_client.grad)
    o1.backward(received_by_server.grad)
    return scores


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_split_equals_whole(name: str, depth: str) -> None:
    whole, model, images = small_model(name), small_model(name), random_images()
    split = cut(model, named_depths(name)[depth], "flatten")

    assert torch.equal(train_split(split, images), train_whole(whole, images))

    expected = dict(whole.named_parameters())
    for parameter_name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[parameter_name].grad), parameter_name
    for (buffer_name, buffer), other in zip(model.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(buffer, other), buffer_name

    for part in split:
        part.eval()
    whole.eval()
    with torch.no_grad():
        assert torch.equal(split.F3(split.F2(split.F1(images))), whole(images))


@pytest.mark.parametrize("name", model_names())
def test_parts_hold_the_models_own_parameters_under_their_names(name: str) -> None:
    model = small_model(name)
    split = cut(model, named_depths(name)["depth1"], "flatten")
    expected = dict(model.named_parameters())
    found = [pair for part in split for pair in part.named_parameters()]
    assert len(found) == len(expected)
    assert all(parameter is expected[parameter_name] for parameter_name, parameter in found)


def test_parts_follow_the_models_mode_format_and_copies() -> None:
    model = small_model("efficientnet_b0")
    split = cut(model, "features.0.1", "flatten")
    model.eval()
    assert not split.F3.get_submodule("classifier.0").training
    split.F3.train()
    assert model.classifier[0].training

    model.to(memory_format=torch.channels_last)
    weight = split.F2.get_parameter("features.1.0.block.0.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)

    model.eval()
    images = random_images().contiguous(memory_format=torch.channels_last)
    copied = copy.deepcopy(nn.Sequential(*split))
    copied.eval()
    assert torch.equal(copied(images), model(images))
    assert copied[0].get_parameter("features.0.0.weight") is not model.features[0][0].weight


def test_no_part_overwrites_what_it_receives() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True))
    model = nn.Sequential(layers, nn.Linear(4 * 16 * 16, 10)).double()
    split = cut(model, "0.0", "0.2")
    o1 = split.F1(random_images())
    before = o1.clone()
    o2 = split.F2(o1)
    assert torch.equal(o1, before)
    before = o2.clone()
    split.F3(o2)
    assert torch.equal(o2, before)


def test_the_model_stays_as_it_was() -> None:
    model = Constant().train()
    model.layers[0].eval()
    attributes, state = set(vars(model)), copy.deepcopy(model.state_dict())
    cut(model, "layers.0", "layers.1")
    assert set(vars(model)) == attributes
    assert model.training
    assert not model.layers[0].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_module_path_means_its_last_operation_and_an_operation_goes_first() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Repeated(), nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).double()
    images = random_images()
    last, first = cut(model, "1.relu", "2"), cut(model, "_1_relu", "2")
    assert torch.equal(last.F1(images), model[1](model[0](images)))
    assert torch.equal(first.F1(images), torch.relu(model[0](images)))


class Toy(nn.Module):
    """Layers that a subclass's forward puts together."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 1) for _ in range(4)])
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3 * 16 * 16, 10)
        self.scale = nn.Parameter(torch.full((3, 1, 1), 2.0))
        self.register_buffer("shift", torch.full((3, 1, 1), 0.5))
        self.double()

    def head(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(x, 1))


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.relu(x) - 0.5)


class DirectTensors(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        x = self.layers[1](x * self.scale - self.shift.exp())
        return self.head(x)


class Constant(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[1](self.layers[0](x) * torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64)[:, None, None])
        return self.head(x)


class DefaultArguments(Toy):
    def forward(self, x: Tensor, mask: Tensor | None = None, flag: bool = False) -> Tensor:
        x = self.layers[0](x)
        if mask is not None:
            x = x * mask
        return self.head(self.layers[1](-x if flag else x))


class Stochastic(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.drop = StochasticDepth(0.5, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        return self.head(self.layers[1](x + self.drop(x)))


class Chunks(Toy):
    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers[0](x).chunk(3, dim=1)
        return self.head(self.layers[1](torch.cat([third, second, first], dim=1)))


class Resized(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[1](self.layers[0](x))
        return self.linear(x.view(x.size(0), x.shape[1] * x.shape[2] * x.shape[3]))


@pytest.mark.parametrize("kind", [DirectTensors, Constant, DefaultArguments, Stochastic, Chunks, Resized])
@pytest.mark.parametrize("training", [True, False])
def test_any_traceable_model_can_be_cut(kind: type[Toy], training: bool) -> None:
    model = kind()
    split = cut(model, "layers.0", "layers.1")
    whole = copy.deepcopy(model)
    for module in (whole, *split):
        module.train(training)
    assert torch.equal(train_split(split, random_images()), train_whole(whole, random_images()))
    for parameter, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other.grad)


class SizeCrosses(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        batch = x.shape[0]
        return self.linear(self.layers[1](x).reshape(batch, -1))


class OnlySizeNeeded(Toy):
    def forward(self, x: Tensor) -> Tensor:
        features = self.layers[0](x).size(1) * 2
        return torch.ones(1) * features


class TiedWeights(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(self.layers[1](self.layers[0](x)), self.layers[0].weight))
        return self.head(self.layers[2](x))


class SharedNorm(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers[1](self.norm(self.layers[0](x)))))


class DataDependent(Toy):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = self.layers[0](x)
        return self.head(x)


class FunctionalDropout(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[1](F.dropout(self.layers[0](x), training=self.training)))


class FrozenNoise(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[1](self.layers[0](x) + torch.randn(3, 1, 1, dtype=torch.float64)))


class TwoOutputs(Toy):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers[0](x)
        return self.head(x), x


class AssertsFirst(Toy):
    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.dim() == 4, "images")
        return self.head(self.layers[0](x))


class TwoInputs(Toy):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(x + y)


@pytest.mark.parametrize(
    ("model", "input_end", "server_end", "texts"),
    [
        (
            "resnet18",
            "layer1.0.conv1",
            "flatten",
            ["2 values", "'maxpool', 'layer1.0.conv1'", "'maxpool' before it", "'add' after"],
        ),
        (
            "resnet18",
            "bn1",
            "layer4.1.bn1",
            ["server_end='layer4.1.bn1'", "'layer4.0' before it", "'add_7' after"],
        ),
        ("resnet18", "layer9", "flatten", ["no layer 'layer9'", "Nearest: 'layer4'", "splitaudit cuts"]),
        ("resnet18", "layer2", "layer1", ["'layer2' must come before", "'layer1'"]),
        ("resnet18", "layer2", "layer2", ["must come before"]),
        ("resnet18", "x", "flatten", ["no operation would come before it", "'conv1' after it"]),
        ("resnet18", "bn1", "fc", ["no operation would come after it", "'flatten' before it"]),
        (
            "densenet",
            "features.denseblock1.denselayer1",
            "flatten",
            ["2 values", "'features.denseblock1' after"],
        ),
        (SizeCrosses, "layers.0", "layers.1", ["2 values", "'getitem'", "'layers.0'"]),
        (OnlySizeNeeded, "layers.0", "mul", ["not a tensor"]),
        (Chunks, "chunk", "layers.1", ["'chunk'", "not a tensor", "'layers.0' before it", "'cat' after it"]),
        (TiedWeights, "layers.0", "layers.2", ["'layers.0.weight'", "before and after"]),
        (SharedNorm, "norm", "flatten", ["'norm.weight'", "before and after"]),
        (DataDependent, "layers.0", "flatten", ["cannot be traced", "control flow", "torch.fx.wrap"]),
        (TwoInputs, "layers.0", "flatten", ["cannot be traced", "'y'"]),
        (FunctionalDropout, "layers.0", "flatten", ["train and in eval mode", "dropout", "nn.Dropout"]),
        (FrozenNoise, "layers.0", "flatten", ["train and in eval mode", "differs from one call to the next"]),
        (TwoOutputs, "layers.0", "flatten", ["must return one tensor"]),
        (AssertsFirst, "_assert", "layers.0", ["no operation would come before it", "'layers.0' after it"]),
    ],
)
def test_refused_with_the_remedy(model: str | type[Toy], input_end: str, server_end: str, texts: list[str]) -> None:
    built = small_model(model) if isinstance(model, str) else model()
    with pytest.raises(ModelError) as refusal:
        cut(built, input_end, server_end)
    for text in texts:
        assert re.search(re.escape(text), str(refusal.value)), str(refusal.value)
    assert "\n" not in str(refusal.value)
