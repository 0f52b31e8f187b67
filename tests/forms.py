"""What the Prefect page sends when a deployment's form is left as it is."""

from typing import Any


def sent(schema: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a form of this schema sends; texts that may be empty were emptied."""
    fields = [one["properties"].items() for one in schema["definitions"].values()]
    texts = {n for each in fields for n, one in each if {"type": "string"} in one.get("anyOf", [])}

    def emptied(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {n: "" if n in texts and not v else emptied(v) for n, v in value.items()}

    form: dict[str, Any] = emptied(schema["properties"]["config"]["default"])
    return form
