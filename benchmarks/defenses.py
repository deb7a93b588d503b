"""What clients can do about a passive server, and what a server can do that expects it: accuracy before and after each
defence, under the published, the aligned and the adaptive server, through the true input layers, and in a white box.

    python -m benchmarks.defenses --out runs/passive --json FILE --set data.root=FOLDER
        [--seeds 3] [--defenses harden harden-alone ...] [--judged 1000] [--set defense.harden.images=4000] [CONFIG]
        [--aligned-also cifar10 fashion-mnist] [--amounts images=6000 epochs=2 ...] [--held-out]

Models are those of `benchmarks.passive`. The seconds of their training, which `share_of_training` divides by, include
recorders at every depth, and three published servers that learned beside it: shares of a training alone are larger.
The servers, which take half of it, are absent where `benchmarks.passive --without-published` trained the models before.
Gradient evaluations, counted in images, have no such company.

The adaptive server expects each variant of `harden` by its own settings; to other defences, `harden` as configured, and
also where `--amounts` of it differ. What is crafted through layers aligned with images of the sources `--aligned-also`,
of as many images as `evaluation.images`, meets the same defended model. With `--held-out`, training images that nobody
holds take the place of test images: to choose by.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.judge import nobodys
from benchmarks.passive import Passive, common_options, each_trained, load_passive
from splitaudit.config import RunConfig
from splitaudit.config_reading import override_config
from splitaudit.data import ImageSet
from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.after_settings import AfterDefense, HardenConfig
from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import attacked_images, make_budget
from splitaudit.evaluation.defended import Crafted, craft_threats, score_servers
from splitaudit.evaluation.defense_result import DefenseResult, ServerResult
from splitaudit.evaluation.measure import Clean, measure_clean
from splitaudit.evaluation.threats import Threat
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.measuring_defenses import Bench, set_up
from splitaudit.experiments.progress import Reporter
from splitaudit.randomness import derive_seed
from splitaudit.runtime import resolve

VARIANTS: dict[str, tuple[AfterDefense, list[str]]] = {
    "harden": ("harden", []),
    "harden-alone": ("harden", ["defense.harden.parties=alone"]),
    "harden-averaged": (
        "harden",
        ["defense.harden.parties=averaged", "defense.harden.batch_size=32", "defense.harden.learning_rate=0.1"],
    ),
    "adversarial-training": ("adversarial-training", []),
    "randomized-smoothing": ("randomized-smoothing", []),
    "input-transform": ("input-transform", []),
}
"""A defence and settings of it, by the name of both."""


@dataclass(frozen=True)
class Trial:
    """A defence to be measured."""

    label: str
    name: AfterDefense
    config: RunConfig
    guess: RunConfig
    """By which the adaptive server goes."""


def make_trials(config: RunConfig, variants: Sequence[str], amounts: Sequence[str]) -> list[Trial]:
    """The variants, and `harden` with each of these settings instead of the config's."""
    trials = []
    for variant in variants:
        name, settings = VARIANTS[variant]
        own = resolve(override_config(config, settings))
        trials.append(Trial(variant, name, own, own))
    for amount in amounts:
        own = resolve(override_config(config, [f"defense.harden.{amount}"]))
        trials.append(Trial(f"harden, {amount}", "harden", own, config))
    return trials


def expected(config: RunConfig) -> HardenConfig:
    """What the adaptive server goes by: it has nobody to take turns with."""
    assert config.defense is not None, "a defence has settings"
    return config.defense.harden.model_copy(update={"parties": "alone"})


def make_bench(passive: Passive, config: RunConfig, judged: int, test: ImageSet, cache: Path) -> Bench:
    """Align, harden the server's surrogates as `config` has it, and craft of the first of the `test` images."""
    parts, reporter = passive.parts, Reporter()
    assert parts.adversary is not None
    aligned, _ = obtain_aligned(config, parts.adversary, parts.model, parts.data, cache, parts.runtime, reporter)
    target = replace(parts.target(aligned), shadow=passive.published)
    data = replace(parts.data, test=test)
    evaluation = config.evaluation.model_copy(update={"images": judged})
    return set_up(
        config.model_copy(update={"evaluation": evaluation}), target, data, passive.training_seconds, reporter
    )


def measure(bench: Bench, trial: Trial) -> tuple[nn.Module, DefenseResult]:
    """A defence against what was crafted for it, or for one expected alike; and the defended model."""
    config = trial.config.model_copy(update={"evaluation": bench.config.evaluation})
    name, runtime = trial.name, bench.target.runtime
    trained, result = replace(bench, config=config).measure(name, "")
    assert config.defense is not None, "a defence has settings"
    whole = DEFENSES[name].whole(trained.model, config.defense.settings_of(name), derive_seed(runtime.seed, name))
    return runtime.place(whole), result.model_copy(update={"name": trial.label})


def craft_aligned(bench: Bench, passive: Passive, test: ImageSet, cache: Path) -> tuple[Clean, list[Crafted]]:
    """The delivered model's answers to these images, and what the aligned server of `passive` crafts of them."""
    config, parts, reporter = bench.config, passive.parts, Reporter()
    assert parts.adversary is not None
    aligned, _ = obtain_aligned(
        passive.config, parts.adversary, parts.model, parts.data, cache, parts.runtime, reporter
    )
    target = replace(bench.target, aligned=aligned)
    threat = Threat("aligned", make_attack("aligned", config, target, make_budget(config, target.model)))
    batch_size = config.evaluation.batch_size
    clean = measure_clean(target, test, batch_size, parts.runtime)
    return clean, craft_threats([threat], target, clean, batch_size, parts.runtime, reporter.say)


def describe(result: DefenseResult, others: Mapping[str, ServerResult]) -> str:
    """In a few lines."""
    lines = [
        f"{result.name}: clean {result.clean_before.accuracy:.1f} -> {result.clean.accuracy:.1f}, "
        f"{result.cost.seconds:.0f} s ({result.cost.share_of_training:.0f}% of the training and "
        f"what learned beside it), "
        f"{result.cost.gradient_evaluations} gradients, {result.cost.traffic_bytes / 1e6:.0f} MB"
    ]
    for server in result.servers:
        lines.append(f"  {_under(server.server, server)}")
        lines += [f"    {a.name:<40}{a.accuracy_before:6.1f} -> {a.accuracy:5.1f}" for a in server.attacks]
    lines += [f"  {_under(f'aligned, {source}', server)}" for source, server in others.items()]
    lines += [f"  {line}" for line in _strongest_attack(result)]
    lines += [f"  white box, {w.name} ({w.n}): {w.accuracy:.1f}" for w in result.white_box]
    return "\n".join(lines)


def _under(name: str, server: ServerResult) -> str:
    (low, high), share = server.accuracy_ci95, ""
    if server.recovered is not None and server.recovered_ci95 is not None:
        share = ", recovered {:.1f}% ({:.1f} to {:.1f})".format(server.recovered, *server.recovered_ci95)
    return f"{name:<24}{server.accuracy_before:6.1f} -> {server.accuracy:5.1f} ({low:.1f} to {high:.1f}){share}"


def _strongest_attack(result: DefenseResult) -> list[str]:
    """The single attack of a server that leaves the least: of what the aligned server's attack took, what share that
    leaves back. Both count the attacked images alone."""
    attacks = [attack for server in result.servers if server.knowledge == "server" for attack in server.attacks]
    aligned = [attack for attack in attacks if attack.name == "aligned"]
    if not aligned:
        return []
    strongest = min(attacks, key=lambda attack: attack.accuracy)
    taken, left = result.attacked_clean_before - aligned[0].accuracy_before, f"{strongest.accuracy:.1f}"
    if taken > 0:
        left += f", {100 * (strongest.accuracy - aligned[0].accuracy_before) / taken:.1f}% of what aligned took"
    return [f"strongest single attack of {len(attacks)}, {strongest.name}: {left}"]


def main() -> None:
    """Print the figures of every seed and defence, and write them as JSON."""
    parser = common_options(__doc__, "attacker.images", "defense.after")
    parser.add_argument("--defenses", nargs="*", default=["harden"], choices=list(VARIANTS))
    parser.add_argument("--amounts", nargs="*", default=[], help="settings of `harden`, each for itself")
    parser.add_argument("--held-out", action="store_true", help="judge by training images that nobody holds")
    parser.add_argument("--judged", type=int, default=1000, help="of the test images, that are attacked")
    parser.add_argument("--tested", type=int, default=0, help="images of the clean accuracy; 0 for all test images")
    parser.add_argument("--source", default="tiny-imagenet", help="of the server's images")
    parser.add_argument("--images", type=int, default=4096, help="of the server")
    parser.add_argument(
        "--aligned-also",
        nargs="*",
        default=[],
        help="sources, for the aligned server alone, which then attacks `evaluation.images`",
    )
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if options.json.exists():
        parser.error(f"--json {options.json} exists: choose another, since its rows would be lost.")
    options.overrides.append("defense.after=[]")
    rows: list[dict[str, Any]] = []
    for config, folder in each_trained(options):
        passive = load_passive(config, "depth1", options.source, options.images, folder)
        benches: dict[HardenConfig, Bench] = {}
        others: dict[str, tuple[Clean, list[Crafted]]] = {}
        test = passive.parts.data.test
        if options.held_out:
            test = nobodys(passive.parts.data, passive.config, options.tested or options.judged)
        test = test.subset(torch.arange(options.tested or len(test)))
        many = test.subset(torch.arange(attacked_images(config, len(test)))) if options.aligned_also else test
        for trial in make_trials(passive.config, options.defenses, options.amounts):
            if expected(trial.guess) not in benches:
                cache = folder.path / "depth1"
                benches[expected(trial.guess)] = make_bench(passive, trial.guess, options.judged, test, cache)
            bench = benches[expected(trial.guess)]
            model, result = measure(bench, trial)
            for source in options.aligned_also if not others else ():
                other = load_passive(config, "depth1", source, options.images, folder)
                others[source] = craft_aligned(bench, other, many, folder.path / "depth1")
            batch_size = bench.config.evaluation.batch_size
            found = {s: score_servers(model, crafted, clean, batch_size)[0] for s, (clean, crafted) in others.items()}
            print(f"seed {config.runtime.seed}, {describe(result, found)}", flush=True)
            also = {source: server.model_dump(mode="json") for source, server in found.items()}
            rows.append({**result.model_dump(mode="json"), "aligned_also": also})
            options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
