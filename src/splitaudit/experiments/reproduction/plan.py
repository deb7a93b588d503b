"""What a reproduction computes: the cells of the tables asked for, and each distinct training behind them once."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitaudit.errors import ConfigError
from splitaudit.experiments.reproduction.profiles import Profile
from splitaudit.experiments.reproduction.settings import Key, Setting, keys_of, setting_of
from splitaudit.experiments.sweep import Cell

TRANSFER_ATTACKS = ("vmi-fgsm", "s2i-fgsm")
"""Table 2's baselines, VR and SSA."""
NO_PART_OF_A_FIGURE = ("data.root", "runtime.threads")
"""Overrides that say where images lie and how a machine is used: none of the results."""
DECIDED = {
    **dict.fromkeys(("attacker.source", "attacker.images", "proxy.images"), "Tables 1 and 2 vary it"),
    "adversary.kind": "the tables are about the published attack",
    "adversary.alpha": "Tables 3 and 4 vary it",
    **dict.fromkeys(("model.input_end", "adversary.shadow", "adversary.shadow_blocks"), "Table 5 varies it"),
    "model.name": "Table 6 varies it",
    "runtime.seed": "say how many with --seeds",
}
"""What cannot be overridden, and why."""


@dataclass(frozen=True)
class Need:
    """One audit that a cell of a table rests on."""

    setting: Setting
    attacks: tuple[str, ...] = ()
    """Besides the anchors, SLADV among them."""
    beside: bool = False
    """Whether with the profile's second kind of perturbation."""


@dataclass(frozen=True)
class Plan:
    """The cells of a reproduction, each with everything that it needs."""

    profile: Profile
    tables: tuple[str, ...]
    keys: tuple[Key, ...]
    """The paper's cells that are measured."""
    left_out: tuple[Key, ...]
    """Those that the profile has no images or no room for."""
    seeds: tuple[int, ...]
    overrides: dict[str, str]
    """What every run was set to besides, by key, but for `NO_PART_OF_A_FIGURE`."""
    theory: tuple[Need, ...]
    """The audits whose targets section 4.3 is looked at with; none if it was not asked for."""
    cells: dict[tuple[Need, int], Cell]
    """By what is needed, and seed."""

    @property
    def settings(self) -> list[str]:
        """The overrides, each as `a.b=value`."""
        return [f"{key}={value}" for key, value in self.overrides.items()]

    @property
    def trainings(self) -> int:
        """How many distinct ones there are, the proxies of Table 2 not counted: at alpha = 0 one for all sources."""
        return len({cell.config.target_fingerprint() for cell in self.cells.values()})

    @property
    def beside(self) -> list[Need]:
        """What is measured with the second kind of perturbation."""
        return list(dict.fromkeys(need for need, _ in self.cells if need.beside))


def need_of(key: Key) -> Need:
    """The audit behind a cell of a table."""
    setting, attack = setting_of(key)
    return Need(setting, TRANSFER_ATTACKS if attack in TRANSFER_ATTACKS else ())


def make_plan(
    profile: Profile,
    tables: Sequence[str],
    *,
    theory: bool,
    seeds: int = 1,
    overrides: Sequence[str] = (),
    here: bool = True,
) -> Plan:
    """Plan `tables`, and section 4.3 if asked for, to be computed on this machine or not `here`.

    Raises ConfigError for invalid `overrides` (`a.b=value`), among them what the tables themselves decide, and a device
    that is to be here and is not.
    """
    for key in _by_key(overrides):
        if key in DECIDED:
            raise ConfigError(f"--set {key}: {DECIDED[key]}. `splitaudit sweep` takes any setting.")
    every = [key for table in tables for key in keys_of(table)]
    keys = [key for key in every if profile.covers(setting_of(key)[0])]
    looked_at = _theory_needs(profile) if theory else ()
    needs = [*map(need_of, keys), *looked_at]
    if profile.beside and "table1" in tables:
        needs += [Need(Setting(source), beside=True) for source in profile.sources]
    cells = {}
    for need in dict.fromkeys(needs):
        for seed in range(seeds):
            config = profile.config(
                need.setting,
                seed=seed,
                overrides=overrides,
                transfer=bool(need.attacks),
                beside=need.beside,
                here=here,
            )
            cells[need, seed] = Cell(config, need.attacks, _labels(need, seed))
    return Plan(
        profile=profile,
        tables=tuple(tables),
        keys=tuple(keys),
        left_out=tuple(key for key in every if key not in set(keys)),
        seeds=tuple(range(seeds)),
        overrides=_that_matter(overrides),
        theory=looked_at,
        cells=cells,
    )


def _that_matter(overrides: Sequence[str]) -> dict[str, str]:
    """Those that are part of what a figure rests on."""
    return {key: value for key, value in _by_key(overrides).items() if key not in NO_PART_OF_A_FIGURE}


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Of two for one key the last, which holds."""
    parts = (override.partition("=") for override in overrides)
    return {key.strip(): value.strip() for key, _, value in parts}


def _theory_needs(profile: Profile) -> tuple[Need, ...]:
    """The audits that section 4.3 is looked at with: one source, every alpha; they are Table 3's."""
    needs = [need_of(key) for key in keys_of("table3") if key.column == profile.theory]
    return tuple(need for need in needs if profile.covers(need.setting))


def _labels(need: Need, seed: int) -> dict[str, object]:
    """What tells a cell from the others, for people."""
    labels = {name: value for name, value in vars(need.setting).items() if value != getattr(Setting, name, None)}
    if need.attacks:
        labels["attacks"] = " ".join(need.attacks)
    if need.beside:
        labels["perturbation"] = "second"
    return labels | ({"seed": seed} if seed else {})
