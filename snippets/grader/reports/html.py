"""HTML from templates: everything that is put in is escaped, and made harmless where it comes from a submission."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from snippets.grader.reports.result import harmless

_TEMPLATES = Environment(
    loader=PackageLoader("snippets.grader.reports"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["harmless"] = harmless


def render(template: str, **values: Any) -> str:
    """A template of the folder `templates` with these values."""
    return _TEMPLATES.get_template(template).render(**values)
