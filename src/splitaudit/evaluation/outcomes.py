"""Per-image outcomes: one row for each attack and image, so that any two attacks are compared on the same images."""

import io
from collections.abc import Mapping
from itertools import combinations

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.measure import Clean, Outcome
from splitaudit.evaluation.result import Comparison, Knowledge, WorstCase
from splitaudit.evaluation.statistics import mcnemar_p, paired_drop_interval, wilson_interval


def outcomes_table(clean: Clean, outcomes: Mapping[str, Outcome]) -> pa.Table:
    """Columns: attack, image (position in the test set), label, clean_prediction, prediction, cosine, l2, linf.

    `l2` and `linf` are the size of what was really applied, in pixels; `cosine` compares the target's o2.
    """
    tables = []
    for name, outcome in outcomes.items():
        delta = (outcome.images - clean.images).flatten(1)
        columns = {
            "image": torch.arange(len(clean.labels)),
            "label": clean.labels,
            "clean_prediction": clean.predictions,
            "prediction": outcome.predictions,
            "cosine": outcome.cosine,
            "l2": torch.linalg.vector_norm(delta, dim=1),
            "linf": delta.abs().amax(1),
        }
        arrays = {key: value.cpu().numpy() for key, value in columns.items()}
        tables.append(pa.table({"attack": pa.array([name] * len(clean.labels)).dictionary_encode(), **arrays}))
    return pa.concat_tables(tables).unify_dictionaries()


def to_parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file's bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def compare(clean: Clean, outcomes: Mapping[str, Outcome]) -> list[Comparison]:
    """Every two attacks on the same images: how many points more the first costs, and McNemar's test."""
    wrong = {name: outcome.predictions != clean.labels for name, outcome in outcomes.items()}
    return [_compare(first, wrong[first], second, wrong[second]) for first, second in combinations(outcomes, 2)]


def worst_cases(clean: Clean, outcomes: Mapping[str, Outcome]) -> list[WorstCase]:
    """For each level of knowledge, the images that survive every attack of that level or below it.

    Worst case is per image: an image counts as lost if any attack of the level turns it, and as kept only if it was
    right to begin with, since an attacker may leave it alone. Attacks that use labels, or a proxy that was trained on
    them, stand outside these levels until the last: they need what a server that sees neither labels nor images does
    not have.
    """
    cases = []
    reached: list[str] = []
    for level in LEVELS:
        names = [name for name, outcome in outcomes.items() if _level(outcome.attack) == level]
        if not names:
            continue
        reached += names
        kept = [outcomes[name].predictions == clean.labels for name in reached]
        survives = torch.stack([clean.correct, *kept]).all(0)
        n, correct = len(clean.labels), int(survives.sum())
        lost = int((clean.correct & ~survives).sum())
        cases.append(
            WorstCase(
                knowledge=level,
                attacks=list(reached),
                accuracy=100 * correct / n,
                accuracy_ci95=wilson_interval(correct, n),
                accuracy_drop=100 * (int(clean.correct.sum()) - correct) / n,
                accuracy_drop_ci95=paired_drop_interval(lost, 0, n),
            )
        )
    return cases


LEVELS: tuple[Knowledge, ...] = ("none", "server", "oracle", "white-box")


def _level(attack: Attack) -> Knowledge:
    return "white-box" if attack.recipe.needs_labels or attack.learned_from_labels else attack.knowledge


def _compare(first: str, wrong: Tensor, second: str, wrong_second: Tensor) -> Comparison:
    lost, gained, n = int((wrong & ~wrong_second).sum()), int((~wrong & wrong_second).sum()), len(wrong)
    return Comparison(
        first=first,
        second=second,
        difference=100 * (lost - gained) / n,
        difference_ci95=paired_drop_interval(lost, gained, n),
        only_first=lost,
        only_second=gained,
        mcnemar_p=mcnemar_p(lost, gained),
    )
