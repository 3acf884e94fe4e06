"""Templates of pages."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from bccd_d2.reporting.page_words import count, join, number


def page_environment(package: str) -> Environment:
    """Templates of a package, and ``base.css``; what is inserted is escaped, what is missing an error.

    Templates find the functions ``count`` and ``join``, and the filter ``number``, which writes a dash for ``None``.

    Args:
        package: with a folder ``templates``.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("bccd_d2.reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number_or_dash)
    environment.globals.update(count=count, join=join)
    return environment


def number_or_dash(value: float | None, decimals: int = 0) -> str:
    """As :func:`bccd_d2.reporting.page_words.number`; a dash where there is none."""
    return "\N{EN DASH}" if value is None else number(value, decimals)
