"""The verdict: one paragraph for somebody who will read nothing else."""

from collections.abc import Mapping

from splitaudit.config import RunConfig
from splitaudit.evaluation.result import AttackResult, Check, CleanResult


def write_verdict(
    config: RunConfig, clean: CleanResult, attacks: Mapping[str, AttackResult], checks: Mapping[str, Check]
) -> str:
    """What the figures say, in words, and what they do not say."""
    sentences = [f"Left alone, the model classifies {clean.accuracy:.1f}% of {clean.n} test images correctly."]
    if not checks["model-learned"].passed:
        return sentences[0] + " That is no better than guessing, so nothing can be said about its robustness."
    noise, sladv, ceiling = attacks.get("noise"), attacks.get("sladv"), attacks.get("sladv-true-input")
    white_box = attacks.get("pgd")
    size = _size(config, attacks)
    unseen = "data, labels nor" if config.training.topology == "u_shaped" else "data nor"
    if sladv is not None:
        beats = checks.get("sladv-beats-noise")
        sentences.append(
            f"Its server, knowing neither {unseen} the clients' layers, lowers that by {_drop(sladv)} with "
            f"perturbations of {size}" + (f", where random noise of that size costs {_drop(noise)}." if noise else ".")
        )
        if beats is not None and not beats.passed:
            sentences.append(
                "The published attack FAILED here: it does not beat noise. That is no evidence of safety; it shows "
                "only that this attack's shadow layers are poor."
            )
    elif noise is not None:
        sentences.append(f"Random noise of {size} costs {_drop(noise)}.")
    if ceiling is not None:
        sentences.append(
            f"A server that came to know the clients' input layers would cost {_drop(ceiling)}: a stronger server "
            "lies between the two."
        )
    if white_box is not None:
        sentences.append(f"Somebody holding the whole model would cost {_drop(white_box)}.")
    return " ".join(sentences)


def _size(config: RunConfig, attacks: Mapping[str, AttackResult]) -> str:
    if config.attack.norm == "l2":
        unit = "" if config.attack.eps_unit == "pixels" else " of standardised images"
        return f"L2 norm at most {config.attack.eps:.3g}{unit}"
    return f"at most {255 * next(iter(attacks.values())).eps_pixels:.3g}/255 per pixel" if attacks else "no size"


def _drop(attack: AttackResult) -> str:
    return f"{attack.accuracy_drop:.1f} points".replace("-", "\N{MINUS SIGN}")
