"""YAML as people write settings in it: one value for one key."""

from __future__ import annotations

from typing import Any

__all__ = ["read_yaml"]


def read_yaml(text: str) -> Any:
    """Read a YAML document with yaml's safe loader.

    Raises:
        yaml.YAMLError: No YAML, or a key stands twice in one mapping: which of the two was meant can't be told.
    """
    import yaml

    class StrictLoader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            raise yaml.YAMLError(f"{twice[0]!r} stands twice{node.start_mark}")
        return loader.construct_mapping(node, deep=True)

    StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(text, StrictLoader)
