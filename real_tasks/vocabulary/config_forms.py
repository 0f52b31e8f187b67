"""How configurations look in a form made from their JSON schema: titles, and names to choose from.

Nothing here validates: a name that is not registered is found where the plug-in is looked up.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.fields import ComputedFieldInfo, FieldInfo
from pydantic_core import CoreSchema

from real_tasks.vocabulary.registry import registered_names


def field_title(name: str, _field: FieldInfo | ComputedFieldInfo) -> str:
    """Return what a form says above a field that declares no title: "Split seed"."""
    return name.replace("_", " ").capitalize()


def model_title(model: type[Any]) -> str:
    """Return what a form says above a box of fields: ``ModelConfig`` is "Model"."""
    name = model.__name__.removesuffix("Config") or model.__name__
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return spaced[:1].upper() + spaced[1:]


@dataclass(frozen=True)
class OneOf:
    """Annotation: in forms, a name (or a plug-in's) is chosen among those of a registry.

    The registries are asked when the schema is made, since they import what imports the
    configuration; where one does not exist by then, the name is typed.
    """

    kind: str

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema with the names as an enumeration, in place of the shared one."""
        schema = handler(core)
        names = registered_names(self.kind)
        return self._chosen(schema, names, handler) if names else schema

    def _chosen(
        self, schema: dict[str, Any], names: list[str], handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = dict(handler.resolve_ref_schema(schema))
        if schema.get("type") == "array":
            return {**schema, "items": self._chosen(schema["items"], names, handler)}
        if schema.get("type") == "string":
            return {**schema, "enum": names}
        if "anyOf" in schema:
            ways = [
                one if one.get("type") == "null" else self._chosen(one, names, handler)
                for one in schema["anyOf"]
            ]
            return {**schema, "anyOf": ways}
        properties = dict(schema["properties"])
        properties["name"] = {**properties["name"], "enum": names}
        return {**schema, "title": self.kind.capitalize(), "properties": properties}
