"""Transfer attacks through a proxy of the attacker's own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from splitaudit.errors import ConfigError, DataError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.proxy import obtain_proxy
from splitaudit.experiments.run import attack, run
from tests.conftest import TRAINED, small_config, small_parts

PROXY = (*TRAINED, "proxy.images=128", "proxy.iterations=60")


def test_proxy_learns_from_images_no_client_holds(tmp_path: Path) -> None:
    """It classifies test images well above chance, differs from the target, and is kept and reused."""
    parts, config = small_parts(*PROXY), small_config(*PROXY)
    said: list[str] = []
    proxy = obtain_proxy(config, parts.data, tmp_path, parts.runtime, said.append)
    test, labels = parts.data.test.images.float() / 255, parts.data.test.labels
    proxy.whole.eval()
    assert float((proxy.whole(test).argmax(1) == labels).float().mean()) > 0.5
    again = obtain_proxy(config, parts.data, tmp_path, parts.runtime, said.append)
    assert len(said) == 1
    for name, tensor in proxy.whole.state_dict().items():
        assert torch.equal(tensor, again.whole.state_dict()[name])
    first_weights = (model.F1.get_parameter("network.block1.0.weight") for model in (proxy, parts.model))
    assert not torch.equal(*first_weights)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("data.size=16", "image_shape '1x8x8'"),
        ("model.width=4", "model 'cnn, width 8'"),
        ("proxy.images=64", "labelled_images '128'"),
    ],
)
def test_proxy_of_another_run_is_refused(tmp_path: Path, change: str, text: str) -> None:
    """A proxy trained for another input size, model or volume is named, with the remedy."""
    parts = small_parts(*PROXY)
    obtain_proxy(small_config(*PROXY), parts.data, tmp_path, parts.runtime, lambda _text: None)
    file = f"proxy.file={tmp_path / 'proxy-128-60.safetensors'}"
    other = small_parts(*PROXY, change)
    with pytest.raises(ConfigError, match=text):
        obtain_proxy(small_config(*PROXY, change, file), other.data, tmp_path, other.runtime, lambda _text: None)


def test_damaged_or_missing_proxy(tmp_path: Path) -> None:
    parts = small_parts(*PROXY)
    for content in (None, b"", b"not safetensors at all"):
        path = tmp_path / "own.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read as a proxy"):
            obtain_proxy(small_config(*PROXY, f"proxy.file={path}"), parts.data, tmp_path, parts.runtime, print)


def test_too_few_labelled_images(tmp_path: Path) -> None:
    parts = small_parts(*PROXY)
    with pytest.raises(DataError, match=r"5,?000"):
        obtain_proxy(small_config(*PROXY, "proxy.images=5000"), parts.data, tmp_path, parts.runtime, print)


def test_table_2_on_a_finished_run(tmp_path: Path) -> None:
    """VR and SSA beside SLADV and the anchors, with curves; the run itself is left as it is."""
    folder = tmp_path / "run"
    quick = ("evaluation.images=30", "evaluation.curve_images=20", "evaluation.eps_grid=[0, 0.1, 0.3]")
    first = run(small_config(*PROXY, *quick), folder, Reporter())
    model = load_file(folder / "model.safetensors")
    names = ["vmi-fgsm", "s2i-fgsm", "apgd-dlr", "vmi-fgsm-label-free"]
    path, result = attack(folder, names, [], Reporter(), curves=True)
    rows = {row.name: row for row in result.attacks}
    assert set(names) < set(rows)
    assert rows["vmi-fgsm"].gradient_evaluations == 210
    assert rows["s2i-fgsm"].gradient_evaluations == 200
    assert rows["vmi-fgsm"].knowledge == "none"
    assert [curve.attack for curve in result.curves] == [row.name for row in result.attacks]
    assert rows["sladv"].accuracy == first.attack("sladv").accuracy
    assert (folder / "proxy-128-60.safetensors").exists()
    assert (path / "outcomes.parquet").exists()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(tensor, model[name])
