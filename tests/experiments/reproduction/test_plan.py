"""What is computed: each training once, the paper's setting as the paper has it, and nothing that is not covered."""

from collections import defaultdict

import pytest
import torch

from splitaudit.config_reading import load_config
from splitaudit.errors import ConfigError
from splitaudit.experiments.reproduction.plan import DECIDED, Need, Plan, make_plan, need_of
from splitaudit.experiments.reproduction.profiles import PROFILES
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.settings import Key, Setting, keys_of, setting_of
from splitaudit.runtime import resolve

ALL = tuple(published_tables())


@pytest.fixture(scope="module")
def paper() -> Plan:
    return make_plan(PROFILES["paper"], ALL, theory=True)


def test_the_default_setting_is_one_training_for_four_tables(paper: Plan) -> None:
    for source in ("SVHN", "CIFAR-10", "CIFAR-100", "TinyImageNet"):
        keys = [
            Key("table1", "4096", source),
            Key("table3", "1", source),
            Key("table4", "1", source),
            Key("table5", "1", f"{source} Single"),
            Key("table5", "1", f"{source} Multi"),
            Key("table6", source, "ResNet"),
        ]
        assert {need_of(key) for key in keys} == {Need(Setting(source))}


def test_transfer_attacks_go_against_the_targets_of_table_1(paper: Plan) -> None:
    for row in ("1024", "2048", "4096"):
        sladv, vr, ssa = (need_of(Key("table2", row, column)) for column in ("SLADV", "VR", "SSA"))
        assert sladv == need_of(Key("table1", row, "CIFAR-10"))
        assert vr == ssa != sladv
        config = paper.cells[vr, 0].config
        assert config.training_fingerprint() == paper.cells[sladv, 0].config.training_fingerprint()
        assert config.proxy.images == config.attacker.images == int(row)


def test_trainings_are_counted_by_what_they_depend_on(paper: Plan) -> None:
    """24 of Table 1, 16 more alphas, alpha = 0 once for every source, 24 deeper cuts, 12 other networks; Tables 2 and 4
    and section 4.3 take none."""
    assert paper.trainings == 24 + 16 + 1 + 24 + 12
    assert len(paper.keys) == 129
    assert not paper.left_out
    only = make_plan(PROFILES["paper"], ["table4"], theory=True)
    assert only.trainings == 5 * 4 + 1
    assert only.theory == tuple(Need(Setting("TinyImageNet", alpha=alpha)) for alpha in (0, 0.01, 0.1, 1, 10, 100))


def test_a_passive_servers_target_is_the_same_for_every_source(paper: Plan) -> None:
    """At alpha = 0 the configs differ in the server's images alone, of which the target does not depend."""
    configs = [cell.config for (need, _), cell in paper.cells.items() if need.setting.alpha == 0]
    assert len(configs) == 4
    differences = {d.split(":")[0] for config in configs for d in config.differences(configs[0])}
    assert differences == {"attacker.source", "proxy.images"}


def test_the_paper_profile_is_section_5_1() -> None:
    """What it changes of the preset is what the tables vary, and nothing else."""
    preset = resolve(load_config("paper"))
    config = PROFILES["paper"].config(Setting("TinyImageNet"))
    assert [d.split(":")[0] for d in config.differences(preset)] == ["proxy.iterations"]
    assert config.proxy.iterations == config.training.iterations == 3000
    varied = Setting("SVHN", instances=128, alpha=10, depth=3, multi=True, network="DenseNet")
    changed = {d.split(":")[0] for d in PROFILES["paper"].config(varied).differences(config)}
    assert changed == {
        "attacker.source",
        "attacker.images",
        "adversary.alpha",
        "adversary.shadow",
        "adversary.shadow_blocks",
        "model.name",
        "model.width",
        "model.input_end",
    }


def test_the_scaled_profiles_keep_the_papers_attack() -> None:
    paper = PROFILES["paper"].config(Setting("CIFAR-10"))
    for name in ("cpu", "smoke"):
        attack = PROFILES[name].config(Setting("CIFAR-10")).attack
        assert attack == paper.attack
    assert (paper.attack.eps, paper.attack.eps_unit, paper.attack.steps) == (0.3, "standardized", 1)


@pytest.mark.parametrize("name", ["cpu", "smoke"])
def test_what_is_scaled_or_substituted_is_said(name: str) -> None:
    profile = PROFILES[name]
    assert profile.scaled
    told = " ".join(profile.substituted)
    for source in ("SVHN", "CIFAR-100"):
        assert source in told
    assert "CIFAR-100" not in profile.sources


def test_cells_without_images_are_left_out_and_named() -> None:
    plan = make_plan(PROFILES["cpu"], ALL, theory=True)
    assert set(plan.left_out) == {
        key for table in ALL for key in keys_of(table) if setting_of(key)[0].source == "CIFAR-100"
    }


def test_seeds_are_trainings_of_their_own() -> None:
    one, two = (make_plan(PROFILES["smoke"], ["table3"], theory=False, seeds=seeds) for seeds in (1, 2))
    assert two.trainings == 2 * one.trainings
    by_need = defaultdict(set)
    for (need, seed), cell in two.cells.items():
        assert cell.config.runtime.seed == seed
        by_need[need].add(seed)
    assert all(seeds == {0, 1} for seeds in by_need.values())


def test_overrides_reach_every_run() -> None:
    plan = make_plan(PROFILES["cpu"], ALL, theory=True, overrides=["training.iterations=5", "evaluation.images=9"])
    assert {cell.config.training.iterations for cell in plan.cells.values()} == {5}
    assert {cell.config.evaluation.images for cell in plan.cells.values()} == {9}
    narrow = make_plan(PROFILES["cpu"], ["table6"], theory=False, overrides=["model.width=8"])
    widths = {(cell.config.model.name, cell.config.model.width) for cell in narrow.cells.values()}
    assert widths == {("resnet18", 8), ("efficientnet_b0", None), ("densenet", None), ("mobilenetv2", None)}
    with pytest.raises(ConfigError, match="iteration"):
        make_plan(PROFILES["smoke"], ["table1"], theory=False, overrides=["training.iteration=5"])


@pytest.mark.parametrize("key", sorted(DECIDED))
def test_what_the_tables_decide_cannot_be_overridden(key: str) -> None:
    """Else it would be said to have been set, and would not be."""
    with pytest.raises(ConfigError, match=f"--set {key}: "):
        make_plan(PROFILES["smoke"], ["table1"], theory=False, overrides=[f" {key} =1"])


def test_overrides_are_kept_but_for_where_and_with_what_it_is_computed() -> None:
    overrides = ["training.iterations=5", "data.root=images", "runtime.threads=1", "training.iterations=6"]
    plan = make_plan(PROFILES["smoke"], ["table1"], theory=False, overrides=overrides)
    assert plan.settings == ["training.iterations=6"]


def test_a_device_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without one, runs can be planned for a GPU that another machine has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = ["runtime.device=cuda", "runtime.precision=bf16"]
    plan = make_plan(PROFILES["paper"], ["table4"], theory=False, overrides=gpu, here=False)
    assert {(c.config.runtime.device, c.config.runtime.precision) for c in plan.cells.values()} == {("cuda", "bf16")}
    with pytest.raises(ConfigError, match="'cuda' is not there"):
        make_plan(PROFILES["paper"], ["table4"], theory=False, overrides=gpu)


def test_the_aligned_servers_effort_is_told_in_numbers() -> None:
    """Both the profile's and the default one."""
    told = " ".join(PROFILES["cpu"].scaled)
    for config in (PROFILES["cpu"].config(Setting("CIFAR-10")), load_config("paper")):
        assert f" {config.alignment.steps:,}" in told
