"""The verdict: one paragraph for somebody who will read nothing else."""

from collections.abc import Mapping

from splitaudit.evaluation.result import AttackResult, Check, CleanResult


def write_verdict(clean: CleanResult, attacks: Mapping[str, AttackResult], checks: Mapping[str, Check]) -> str:
    """What the figures say, in words, and what they do not say."""
    sentences = [f"Left alone, the model classifies {clean.accuracy:.1f}% of {clean.n} test images correctly."]
    if not checks["model-learned"].passed:
        return sentences[0] + " That is no better than guessing, so nothing can be said about its robustness."
    noise, sladv, ceiling = attacks.get("noise"), attacks.get("sladv"), attacks.get("sladv-true-input")
    white_box = attacks.get("pgd")
    size = next(iter(attacks.values())).eps_pixels * 255 if attacks else 0.0
    if sladv is not None:
        beats = checks.get("sladv-beats-noise")
        sentences.append(
            f"Its server, knowing neither data, labels nor the clients' layers, lowers that by {_drop(sladv)} with "
            f"perturbations of at most {size:.3g}/255 per pixel"
            + (f", where random noise of that size costs {_drop(noise)}." if noise else ".")
        )
        if beats is not None and not beats.passed:
            sentences.append(
                "The published attack FAILED here: it does not beat noise. That is no evidence of safety; it shows "
                "only that this attack's shadow layers are poor."
            )
    elif noise is not None:
        sentences.append(f"Random noise of at most {size:.3g}/255 per pixel costs {_drop(noise)}.")
    if ceiling is not None:
        sentences.append(
            f"A server that came to know the clients' input layers would cost {_drop(ceiling)}: a stronger server "
            "lies between the two."
        )
    if white_box is not None:
        sentences.append(f"Somebody holding the whole model would cost {_drop(white_box)}.")
    return " ".join(sentences)


def _drop(attack: AttackResult) -> str:
    return f"{attack.accuracy_drop:.1f} points".replace("-", "\N{MINUS SIGN}")
