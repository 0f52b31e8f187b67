"""YAML as plain values, within limits that are looked at before anything is built."""

from collections.abc import Iterator
from typing import Any

import yaml

from real_tasks.vocabulary.errors import UserInputError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 100_000
"""Values in all, those that an alias stands for included."""


class _Loader(yaml.SafeLoader):
    """YAML's own types but dates: no field is one, and a branch may be called ``2026-01-02``."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [one for one in rules if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML document; None of an empty one. Messages say ``where`` it is from.

    Raises:
        UserInputError: no YAML; too large, too deep or full of aliases; a key twice in a mapping; a
            value that its tag does not fit. The line, or the key's path, is named.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserInputError(
            f"{where} has {len(text):,} characters; a configuration has at most {MAX_CHARACTERS:,}"
        )
    try:
        _check_events(yaml.parse(text, _Loader), where)
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _built(loader, node, "", where)
    except yaml.YAMLError as error:
        raise UserInputError(f"{where} cannot be read as YAML: {error}") from error


def _check_events(events: Iterator[yaml.Event], where: str) -> None:
    """Count what a document would build, aliases written out, without building it."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise UserInputError(f"{where}: *{event.anchor} stands inside what it stands for")
            total += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if len(open_nodes) > MAX_DEPTH:
            raise UserInputError(f"{where} is nested more than {MAX_DEPTH} levels deep")
        if total > MAX_NODES:
            raise UserInputError(
                f"{where} holds more than {MAX_NODES:,} values, those that aliases stand for "
                "included"
            )


def _built(loader: _Loader, node: yaml.Node, path: str, where: str) -> Any:
    at = f"{where}, {path}" if path else where
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        _check_keys(node, at)
        loader.flatten_mapping(node)
        tree = {}
        for key_node, value_node in node.value:
            key = _scalar(loader, key_node, at)
            tree[key] = _built(loader, value_node, f"{path}.{key}".lstrip("."), where)
        return tree
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [
            _built(loader, one, f"{path}.{place}".lstrip("."), where)
            for place, one in enumerate(node.value)
        ]
    return _scalar(loader, node, at)


def _check_keys(node: yaml.MappingNode, at: str) -> None:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserInputError(f"{at}, line {line}: a key is no text")
        if key_node.value in lines:
            raise UserInputError(
                f"{at}: {key_node.value!r} is there twice (lines {lines[key_node.value]} and "
                f"{line}); keep one"
            )
        lines[key_node.value] = line


def _scalar(loader: _Loader, node: yaml.Node, at: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise UserInputError(f"{at}: the tag {node.tag} is not known here")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError) as error:
        what = getattr(error, "problem", None) or error
        line = node.start_mark.line + 1
        raise UserInputError(
            f"{at}: {str(node.value)[:60]!r} (line {line}) cannot be read: {what}"
        ) from error
