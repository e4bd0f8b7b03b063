"""How the report says numbers: filters of its template."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def span(first: int, last: int) -> str:
    """Say the frames `first` to `last`, both inclusive."""
    return f"{first}" if first == last else f"{first}–{last}"


def percent(part: int, whole: int) -> str:
    """Say a part of a whole in per cent; of nothing it is none."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def share(value: float) -> str:
    """Say a share so that only all is 100 % and only nothing 0 %."""
    said = f"{100 * value:.1f}"
    if said in ("0.0", "100.0") and value not in (0, 1):
        return "less than 0.1 %" if value < 0.5 else "more than 99.9 %"
    return f"{said} %"


def number(value: float) -> str:
    """Say a number with up to three decimals, without zeros at its end."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def seconds(value: float) -> str:
    """Say a duration."""
    if value >= 90:
        return f"{int(value) // 60} min {int(value) % 60:02d} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def size(size_bytes: int) -> str:
    """Say a size in bytes, in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"


def dollars(usd: float) -> str:
    """Say an amount of US dollars."""
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.6f}"


def moment(at: datetime) -> str:
    """Say a moment, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def setting(value: Any) -> str:
    """Say the value of a setting of a request."""
    if isinstance(value, Mapping):
        return ", ".join(f"{setting(item)} at frame {name}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value)) if all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    return number(value) if isinstance(value, float) else str(value)


#: By the name that the template uses.
FILTERS = {
    "dollars": dollars,
    "moment": moment,
    "number": number,
    "seconds": seconds,
    "setting": setting,
    "share": share,
    "size": size,
}
