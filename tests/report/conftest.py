"""A finished run, as the other parts of the package leave it: small, but with every file and every figure."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.integrate import trapezoid

from splitaudit.evaluation.statistics import seeds_interval, wilson_interval
from splitaudit.experiments.defense_tables import DETECTIONS
from splitaudit.report.defense_bench import write_bench_report

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SEEDS = [3, 4, 5]
SHIFTS = np.array([-0.9, 0.3, 1.2])


def attack(name: str, title: str, knowledge: str, accuracy: float, drop: float, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "knowledge": knowledge,
        "eps_pixels": 8 / 255,
        "steps": 10,
        "n": 1000,
        "clean_accuracy": accuracy + drop,
        "accuracy": accuracy,
        "accuracy_ci95": [max(0.0, accuracy - 2.13), accuracy + 1.94],
        "accuracy_drop": drop,
        "accuracy_drop_ci95": [drop - 1.21, drop + 1.32],
        "success_rate": max(0.31, 1.02 * drop),
        "error_rate": 100 - accuracy,
        "mean_l2": 1.7041,
        "mean_linf": 8 / 255,
        "mean_cosine": 0.9213,
        "gradient_evaluations": 10,
        "images_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "seconds": 4.27,
    } | changes


def curve(attack: str, knowledge: str, half: float, slope: float = 2.0, n: int = 250) -> dict[str, Any]:
    """From 88% down to 0, halfway at the budget `half` of 255; rounding to 8 bits undoes a little of the attack."""
    grid = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    correct = [round(0.884 * n / (1 + (eps / half) ** slope)) for eps in grid]
    rounded = [min(n, count + (0 < eps < 4)) for count, eps in zip(correct, grid, strict=True)]
    accuracy = [100 * count / n for count in correct]
    area = float(trapezoid(accuracy, grid)) / grid[-1]
    return {
        "attack": attack,
        "knowledge": knowledge,
        "n": n,
        "norm": "linf",
        "eps_unit": "pixels",
        "eps": [eps / 255 for eps in grid],
        "eps_pixels": [eps / 255 for eps in grid],
        "accuracy": accuracy,
        "accuracy_ci95": [wilson_interval(count, n) for count in correct],
        "accuracy_8bit": [100 * count / n for count in rounded],
        "accuracy_8bit_ci95": [wilson_interval(count, n) for count in rounded],
        "area": area,
        "area_ci95": [area - 2.61, area + 2.61],
    }


def worst_case(knowledge: str, attacks: Sequence[str], accuracy: float, drop: float) -> dict[str, Any]:
    return {
        "knowledge": knowledge,
        "attacks": list(attacks),
        "accuracy": accuracy,
        "accuracy_ci95": [max(0.0, accuracy - 2.13), accuracy + 1.94],
        "accuracy_drop": drop,
        "accuracy_drop_ci95": [drop - 1.21, drop + 1.32],
    }


def comparison(first: str, second: str, only_first: int, only_second: int, p: float) -> dict[str, Any]:
    difference = (only_first - only_second) / 10
    return {
        "first": first,
        "second": second,
        "difference": difference,
        "difference_ci95": [difference - 1.41, difference + 1.37],
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar_p": p,
    }


def diagnosis(shadow: str, distance: float, likeness: float) -> dict[str, Any]:
    return {
        "shadow": shadow,
        "n": 1000,
        "relative_distance": distance,
        "cosine": 1 - distance / 2,
        "vjp_cosine": likeness,
        "jvp_cosine": likeness / 2,
        "subspace_overlap": likeness / 4,
    }


def align(result: dict[str, Any]) -> None:
    """Make the server a passive one that solved for a convolution."""
    result["config"]["adversary"] = {"kind": "aligned", "alpha": 0.0}
    result["attacks"].append(attack("aligned", "SLADV, the server's aligned shadow layers", "server", 15.11, 73.32))
    result["alignment"] = {
        "chosen": "linear",
        "candidates": [{"shape": "linear", "score": 1.662, "steps": 0, "seconds": 22.38}],
        "explained": 0.99871,
        "recorded_samples": 2048,
        "recorded_bytes": 134_217_728,
        "seconds": 29.3,
    }
    result["diagnoses"] = [diagnosis("untrained", 0.826, 0.0034), diagnosis("aligned", 0.077, 0.7688)]


def defense(
    name: str,
    before: float,
    after: float,
    clean: float,
    share: float,
    prediction: float = 4.0,
    recovered_ci95: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A `defense.json` of a model with 88% clean accuracy."""

    def server(which: str, knowledge: str, accuracy: float) -> dict[str, Any]:
        return {
            "server": which,
            "knowledge": knowledge,
            "attacks": [],
            "accuracy_before": before,
            "accuracy": accuracy,
            "accuracy_ci95": [accuracy - 2, accuracy + 2],
            "recovered": 100 * (accuracy - before) / (88 - before),
            "recovered_ci95": recovered_ci95,
        }

    return {
        "name": name,
        "title": f"Title of {name}",
        "source": "",
        "settings": {},
        "config": {"attack": {"eps": 8 / 255, "norm": "linf"}},
        "environment": {},
        "clean_before": {"accuracy": 88.0, "ci95": [87, 89], "n": 10000},
        "clean": {"accuracy": clean, "ci95": [clean - 1, clean + 1], "n": 10000},
        "n": 1000,
        "attacked_clean_before": 88.0,
        "attacked_clean": clean,
        "eps_pixels": 8 / 255,
        # An oracle does worse, and does not count.
        "servers": [
            server("aligned", "server", after + 5),
            server("adaptive", "server", after),
            server("true-input", "oracle", 1.0),
        ],
        "white_box": [
            {"name": "pgd", "n": 1000, "gradient_evaluations": 20, "accuracy": 31.0, "accuracy_ci95": [29, 33]},
            {"name": "apgd-ce", "n": 100, "gradient_evaluations": 100, "accuracy": 27.5, "accuracy_ci95": [20, 36]},
        ],
        "cost": {
            "seconds": 60.0,
            "share_of_training": share,
            "gradient_evaluations": 1,
            "traffic_bytes": 0,
            "prediction": prediction,
        },
        "command": f"splitaudit defend runs/first --defense {name}",
    }


def write_defense(run: Path, **changes: Any) -> None:
    """A defence of the run, as `defense` makes it."""
    made = defense(**changes)
    folder = run / "defenses" / made["name"]
    folder.mkdir(parents=True)
    (folder / "defense.json").write_text(json.dumps(made))


def bench_rows(eps: float, seed: int, clean: float, attackers: int) -> list[dict[str, Any]]:
    """Of `bench-defenses`: one defence of one training, under so many attackers."""
    shared = {
        "defense": "harden",
        "cut": "depth1",
        "alpha": 0.0,
        "eps": eps,
        "seed": seed,
        "clean_before": 88.0,
        "clean": clean,
        "seconds": 60.0,
        "share_of_training": 20.0,
        "gradient_evaluations": 12345,
        "traffic_bytes": 7_600_000,
        "prediction": 4.0,
    }
    attacked = {"n": 100, "accuracy_before": 10.0, "accuracy": 60.0, "accuracy_low": 50.0, "accuracy_high": 70.0}
    names = [f"attacker-{number}" for number in range(attackers)]
    return [shared | attacked | {"attacker": name, "knowledge": "server", "recovered": 50.0} for name in names]


def detection_rows(alpha: float, scores: Sequence[float | None]) -> list[dict[str, Any]]:
    """Of `bench-defenses`: one detector in a training each seed, with a threshold of 10 and a late alarm above it."""
    return [
        {
            "detector": "faint-steps",
            "cut": "depth1",
            "alpha": alpha,
            "seed": seed,
            "score": score,
            "threshold": 10.0,
            "iteration": 100 + seed if score is not None and score > 10 else None,
            "iterations": 3300,
        }
        for seed, score in enumerate(scores)
    ]


def write_bench(
    folder: Path, defenses: Sequence[dict[str, Any]] = (), detections: Sequence[dict[str, Any]] = ()
) -> Path:
    """The page of a bench with these rows."""
    pq.write_table(pa.Table.from_pylist(list(defenses)), folder / "defenses.parquet")
    pq.write_table(pa.Table.from_pylist(list(detections), DETECTIONS), folder / "detections.parquet")
    return write_bench_report(folder)


def make_result() -> dict[str, Any]:
    """The contents of `result.json`, to be changed before it is written."""
    return {
        "schema_version": 1,
        "config": {
            "data": {"name": "cifar10", "clients": 10, "partition": "iid"},
            "model": {"name": "resnet9", "module": None, "input_end": "depth1", "server_end": "flatten"},
            "training": {"topology": "u_shaped", "iterations": 3000},
            "adversary": {"kind": "sladv", "alpha": 1.0, "similarity": "mse"},
            "attack": {"eps": 8 / 255, "norm": "linf"},
        },
        "environment": {"splitaudit": "0.1.0", "torch": "2.9.0", "device": "cpu", "threads": 2},
        "data": {
            "train": {"name": "cifar10", "images": 50000, "shape": [3, 32, 32], "notes": []},
            "attacker": {"name": "tiny-imagenet", "images": 4096, "notes": ["resized from 64x64 to 32x32"]},
            "clients": {"count": 10, "smallest_share": 4000, "largest_share": 4000, "reserve": 10000},
        },
        "training": {
            "iterations": 3000,
            "seconds": 412.6,
            "images_per_second": 1234.56,
            "final_loss": 0.2871,
        },
        "clean": {"accuracy": 88.43, "ci95": [87.79, 89.04], "n": 10000},
        # Not in the ladder's order: that is the report's affair.
        "attacks": [
            attack("pgd", "PGD on the whole model", "white-box", 1.27, 87.16, steps=20, gradient_evaluations=40),
            attack(
                "noise",
                "Random sign noise (the floor)",
                "none",
                88.51,
                -0.08,
                steps=0,
                gradient_evaluations=0,
            ),
            attack(
                "vmi-fgsm",
                "VMI-FGSM (VR), a proxy trained on labelled images",
                "none",
                70.12,
                18.31,
                gradient_evaluations=210,
            ),
            attack("sladv-untrained", "SLADV through untrained shadow layers", "server", 81.38, 7.05),
            attack(
                "sladv",
                "SLADV through the server's shadow layers",
                "server",
                61.72,
                26.71,
                mean_cosine=-0.1416,
            ),
            attack("sladv-true-input", "SLADV through the true input layers", "oracle", 12.93, 75.50),
        ],
        "worst_cases": [
            worst_case("none", ["noise"], 86.02, 2.41),
            worst_case("server", ["noise", "sladv-untrained", "sladv"], 60.51, 27.92),
            worst_case("oracle", ["noise", "sladv-untrained", "sladv", "sladv-true-input"], 12.31, 76.12),
        ],
        "comparisons": [
            comparison("sladv", "noise", 279, 11, 1.3e-70),
            comparison("sladv-untrained", "noise", 71, 52, 0.104),
        ],
        "curves": [
            curve("noise", "none", 70.0),
            curve("sladv-untrained", "server", 21.0),
            curve("sladv", "server", 11.0),
            curve("vmi-fgsm", "none", 14.0),
            curve("sladv-true-input", "oracle", 4.6, slope=3.0),
            curve("pgd", "white-box", 2.1, slope=3.0),
        ],
        "checks": [
            {
                "name": "sladv-beats-noise",
                "passed": True,
                "detail": "sladv costs [+24.1, +29.4] points more than noise (95% interval, paired).",
            },
            {"name": "inside-budget", "passed": True, "detail": "All attacked images are."},
        ],
        "verdict": "Left alone, the model classifies 88.4% of 10000 test images correctly. Its server lowers "
        "that by 26.7 points (95% interval 25.5 to 28.0) with perturbations of at most 8/255 per pixel.",
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """That, for one test."""
    return make_result()


def make_run(home: Path, result: dict[str, Any]) -> Path:
    """A complete run folder."""
    folder = home / "first"
    folder.mkdir()
    write_result(folder, result)
    write_metrics(folder)
    write_samples(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, result: dict[str, Any]) -> Path:
    """One for one test."""
    return make_run(tmp_path, result)


def attack_over_seeds(attack: dict[str, Any]) -> dict[str, Any]:
    drops = attack["accuracy_drop"] + SHIFTS * (1 + attack["accuracy_drop"] / 10)
    low, high = seeds_interval(drops)
    return {
        "name": attack["name"],
        "knowledge": attack["knowledge"],
        "drops": drops.tolist(),
        "mean": float(drops.mean()),
        "spread": float(drops.std(ddof=1)),
        "seeds_ci95": [low, high],
        "seeds_and_images_ci95": [low - 0.7, high + 0.7],
    }


def make_over_seeds(home: Path, result: dict[str, Any]) -> Path:
    """Three seeds' runs, and their summary."""
    folder = home / "over-seeds"
    accuracies = result["clean"]["accuracy"] + SHIFTS
    for seed, accuracy in zip(SEEDS, accuracies, strict=True):
        (folder / f"seed-{seed}").mkdir(parents=True)
        own = result | {"clean": result["clean"] | {"accuracy": accuracy}}
        (folder / f"seed-{seed}" / "result.json").write_text(json.dumps(own))
    clean = {
        "accuracies": accuracies.tolist(),
        "n": 10000,
        "mean": float(accuracies.mean()),
        "spread": float(accuracies.std(ddof=1)),
        "seeds_ci95": seeds_interval(accuracies),
    }
    attacks = [attack_over_seeds(attack) for attack in result["attacks"]]
    summary = {"schema_version": 1, "seeds": SEEDS, "clean": clean, "attacks": attacks}
    (folder / "seeds.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def over_seeds(tmp_path: Path, result: dict[str, Any]) -> Path:
    """Some for one test."""
    return make_over_seeds(tmp_path, result)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result))


def write_metrics(folder: Path, entries: int = 60) -> None:
    """The log of a training with an adversary, an entry every ten iterations."""
    lines = [
        json.dumps(
            {
                "iteration": iteration,
                "loss": 0.25 + 2.1 * 0.5 ** (iteration / 400),
                "learning_rate": 0.01,
                "images_per_second": 1234.5,
                "similarity": 0.02 + 0.4 / iteration,
            }
        )
        for iteration in range(10, 10 * entries + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def write_samples(folder: Path, count: int = 6, channels: int = 3, size: int = 32, **changes: Any) -> None:
    """Random images changed by 8/255 at most; the attack fools the model on two of three."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    adversarial = np.clip(clean / 255 + 8 / 255 * rng.choice([-1, 1], clean.shape), 0, 1)
    label = np.arange(count) % len(CLASSES)
    arrays = {
        "clean": clean,
        "adversarial": adversarial.astype(np.float32),
        "label": label,
        "clean_prediction": label,
        "adversarial_prediction": np.where(np.arange(count) % 3, (label + 5) % len(CLASSES), label),
        "classes": np.array(CLASSES),
        "attack": np.array("sladv"),
    }
    np.savez(folder / "samples.npz", **(arrays | changes))


@pytest.fixture
def write(run: Path) -> SimpleNamespace:
    """Rewrite a file of the run: `write.result(contents)`, `write.metrics(...)`, `write.samples(...)`."""
    return SimpleNamespace(
        result=partial(write_result, run),
        metrics=partial(write_metrics, run),
        samples=partial(write_samples, run),
    )
