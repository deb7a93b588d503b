"""Names of defences on a command line: sorted by when they work, and refused where they come too late."""

import pytest

from splitaudit.config_reading import load_config
from splitaudit.defenses.settings import choose, choose_after
from splitaudit.errors import ConfigError


def test_sorted_by_when_they_work() -> None:
    names = ["harden", "splitguard", "input-transform"]
    assert choose(names) == ["defense.during=[splitguard]", "defense.after=[harden, input-transform]"]
    assert choose_after(["harden"]) == ["defense.after=[harden]"]


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"hardn.*'harden'"):
        choose_after(["hardn"])


def test_too_late_for_the_training() -> None:
    with pytest.raises(ConfigError, match=r"'splitguard' takes part in the training: .*run --defense"):
        choose_after(["harden", "splitguard"])


@pytest.mark.parametrize(("modifiers", "why"), [("[mi, ni]", "both momentum"), ("[mi, mi]", "twice")])
def test_modifiers_that_cannot_be_combined_are_refused_before_the_training(modifiers: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"defense\.harden\.modifiers: .*{why}"):
        load_config("demo", [f"defense.harden.modifiers={modifiers}"])
    assert load_config("demo", ["defense.harden.modifiers=[]"]).defense is not None
