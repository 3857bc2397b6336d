"""Reports: one module a format. To add one, add a module with one or both of these, pure functions of the results:

of_one(result) -> str                 then `--report MODULE=FILE` writes it for one submission
FILE, of_class(results, alike) -> str  then every class gets a file of this name; alike: pairs of names, and a share
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any

from snippets.grader.reports.result import Result

Alike = list[tuple[str, str, float]]


@functools.cache
def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]


def formats(function: str) -> dict[str, Callable[..., Any]]:
    """The functions of this name that the modules here have, by the module's name."""
    found = {module.__name__.rpartition(".")[2]: getattr(module, function, None) for module in _modules()}
    return {name: each for name, each in found.items() if each is not None}


def of_class(results: list[Result], alike: Alike) -> dict[str, str]:
    """All reports on a class, by the names of their files."""
    return {module.FILE: module.of_class(results, alike) for module in _modules() if hasattr(module, "of_class")}


def slim(result: Result) -> Result:
    """A result without what only its own page shows: what is kept of each submission of a class."""
    return replace(result, transcript="", outcomes=[replace(outcome, events=[]) for outcome in result.outcomes])
