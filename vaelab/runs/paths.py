"""How a constructor says that an argument is a path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

IS_PATH = "a path"

PathText: TypeAlias = Annotated[str, IS_PATH]
"""A path as text. What is annotated so is taken from the command line as it was typed."""


def is_path(hint: Any) -> bool:
    """Whether a type is that of a path, or of paths, or a union with such.

    >>> [is_path(hint) for hint in (PathText | None, list[PathText], os.PathLike[str], str)]
    [True, True, True, False]
    """
    if get_origin(hint) is Annotated:
        return IS_PATH in hint.__metadata__ or is_path(hint.__origin__)
    if get_origin(hint) in (Union, UnionType):
        return any(map(is_path, get_args(hint)))
    kind = get_origin(hint) or hint
    return takes_several(hint) or (isinstance(kind, type) and issubclass(kind, os.PathLike))


def takes_several(hint: Any) -> bool:
    """Whether a type is that of several paths, or a union with such.

    >>> [takes_several(hint) for hint in (PathText | list[PathText], PathText | None)]
    [True, False]
    """
    kind = get_origin(hint)
    if kind in (Union, UnionType):
        return any(map(takes_several, get_args(hint)))
    is_many = isinstance(kind, type) and issubclass(kind, Iterable)
    return is_many and any(map(is_path, get_args(hint)))
