"""In which order apps come up, by `depends_on`: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def find_cycle(depends_on: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the names of one cycle, the first one again at the end, or an empty tuple. Unknown names are ignored.

    >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ('b', 'c', 'b')
    """
    done: set[str] = set()
    for start in sorted(depends_on):
        path: list[str] = []
        stack: list[tuple[str, list[str]]] = [(start, sorted(depends_on[start]))]
        path.append(start)
        while stack:
            name, rest = stack[-1]
            if not rest:
                stack.pop()
                path.pop()
                done.add(name)
                continue
            following = rest.pop(0)
            if following in path:
                return (*path[path.index(following) :], following)
            if following in depends_on and following not in done:
                path.append(following)
                stack.append((following, sorted(depends_on[following])))
    return ()


def in_cycle(depends_on: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return, for every app that waits for itself through others, the cycle that it is part of."""
    found: dict[str, tuple[str, ...]] = {}
    remaining = {name: set(needs) for name, needs in depends_on.items()}
    while cycle := find_cycle(remaining):
        for name in cycle[:-1]:
            found[name] = cycle
            remaining.pop(name, None)
    return found


def stop_order(depends_on: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return groups of apps to stop one after another, so that no app loses what it depends on while it drains.

    >>> stop_order({"web": ["db"], "db": [], "other": []})
    [['other', 'web'], ['db']]
    """
    left = {name: {n for n in needs if n in depends_on and n != name} for name, needs in depends_on.items()}
    groups: list[list[str]] = []
    while left:
        needed = set().union(*left.values())
        group = sorted(name for name in left if name not in needed) or sorted(left)
        groups.append(group)
        for name in group:
            del left[name]
    return groups
