"""Lets the site read docstrings that refer to code as Sphinx does, ":class:`Cells`", as Markdown with links."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """Turns roles into links where the name is on a page of the API, and into plain code elsewhere."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda match: _link(match[1], obj), obj.docstring.value)


def _link(name: str, where: griffe.Object) -> str:
    path = name
    if not name.startswith("bccd_d2."):
        try:
            path = where.resolve(name)
        except griffe.NameResolutionError:
            return f"`{name}`"
    return f'<autoref identifier="{path}" optional><code>{name.removeprefix("bccd_d2.")}</code></autoref>'
