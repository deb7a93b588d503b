"""Where a user's own module is imported from."""

import sys
from pathlib import Path

import pytest
from torch import nn

from splitaudit.errors import ModelError
from splitaudit.models.user import build_user_model, import_user_module, source_file

NAME = "module_of_these_tests"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, NAME, raising=False)


def module(folder: Path, features: int) -> Path:
    folder.mkdir(exist_ok=True)
    text = f"from torch import nn\ndef make(num_classes, channels):\n    return nn.Linear({features}, num_classes)\n"
    (folder / f"{NAME}.py").write_text(text)
    return folder


def test_the_root_comes_before_the_current_folder_and_is_found_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = module(tmp_path / "here", 2), module(tmp_path / "root", 3)
    monkeypatch.chdir(here)
    path = list(sys.path)
    found = import_user_module(f"{NAME}:make", root)
    assert source_file(found) == root / f"{NAME}.py"
    assert sys.path == path
    model = build_user_model(f"{NAME}:make", num_classes=5, channels=1)
    assert isinstance(model, nn.Linear)
    assert model.in_features == 3


def test_another_module_of_that_name_is_not_taken_for_it(tmp_path: Path) -> None:
    root = module(tmp_path / "root", 3)
    import_user_module(f"{NAME}:make", root)
    with pytest.raises(ModelError, match=f"another module '{NAME}'.*root"):
        import_user_module(f"{NAME}:make", module(tmp_path / "other", 2))
    (root / "sys.py").touch()
    with pytest.raises(ModelError, match=r"another module 'sys' .*built in.*another name"):
        import_user_module("sys:make", root)


def test_a_module_that_is_gone_is_missed_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"looked for in {tmp_path}.*model.root"):
        import_user_module(f"{NAME}:make", tmp_path)


def test_a_symbolic_link_may_lead_to_it(tmp_path: Path) -> None:
    folder = module(tmp_path / "real", 3)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / f"{NAME}.py").symlink_to(folder / f"{NAME}.py")
    assert source_file(import_user_module(f"{NAME}:make", tmp_path / "root")) == tmp_path / "root" / f"{NAME}.py"
