"""How the report writes numbers: one decimal unless told otherwise, true minus signs, no minus zero."""

import math
from typing import Any


def decimal(value: float, places: int = 1) -> str:
    """`-1234.56` as `−1,234.6`; a dash for what is not a number."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:z,.{places}f}"
    return text.replace("-", "−")


def plain(value: float, places: int = 2) -> str:
    """With so many decimals at most: `8`, `25.5`, `0.25`."""
    text = decimal(value, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def p_value(value: float) -> str:
    """Three decimals, or that it is less than they can say."""
    return "< 0.001" if value < 0.001 else decimal(value, 3)


def interval(bounds: tuple[float, float]) -> str:
    """Both ends in words: a dash between them would be mistaken for a minus sign."""
    return f"{decimal(bounds[0])} to {decimal(bounds[1])}"


def duration(seconds: float) -> str:
    """`42.3 s`, `3 min 5 s` or `2 h 7 min`: two units at most."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{decimal(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def value(setting: Any) -> str:
    """A setting as text: `yes`, `none`, `0.0314`, `a, b`."""
    if setting is None:
        return "none"
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, float):
        return f"{setting:.4g}"
    if isinstance(setting, dict):
        return ", ".join(f"{key} {value(part)}" for key, part in setting.items())
    if isinstance(setting, list | tuple):
        return ", ".join(map(value, setting))
    return str(setting)
