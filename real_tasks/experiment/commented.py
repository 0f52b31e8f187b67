"""Configurations as YAML for people: every field under its description."""

import yaml
from pydantic import BaseModel

from real_tasks.experiment.assignments import PLUG_INS
from real_tasks.experiment.methods.known import method_names, with_methods
from real_tasks.vocabulary.config import ModelConfig
from real_tasks.vocabulary.experiment_config import ExperimentConfig, TransferConfig


def commented_yaml(config: ExperimentConfig | TransferConfig) -> str:
    """Return the configuration as YAML, every field under its description; it loads back."""
    return "\n".join(_lines(config, 0)) + "\n"


def _lines(model: BaseModel, depth: int, place: str = "") -> list[str]:
    pad, lines = "  " * depth, []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        lines.append(f"{pad}# {field.description}{_all_methods(model, name, depth)}")
        if name == "params":
            value = _typed_params(model, place) or value
        if isinstance(value, BaseModel) and type(value).model_fields:
            lines += [f"{pad}{name}:", *_lines(value, depth + 1, name)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            lines.append(f"{pad}{name}:")
            for item in value:
                first, *others = _lines(item, depth + 2, name)
                lines += [f"{pad}  -", first, *others]
        else:
            plain = model.model_dump(mode="json")[name]
            text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
            lines.append(f"{pad}{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return lines


def _all_methods(model: BaseModel, name: str, depth: int) -> str:
    """Name the methods of an experiment that leaves them to its localizers."""
    if depth or name != "methods" or not isinstance(model, ExperimentConfig) or model.methods:
        return ""
    return f", here {', '.join(method_names(with_methods(model)))}"


def _typed_params(model: BaseModel, place: str) -> BaseModel | None:
    """The parameters as the plug-in in that field declares them, for their descriptions."""
    name = model.path if isinstance(model, ModelConfig) else getattr(model, "name", None)
    registry = PLUG_INS.get(place)
    if registry is None or name not in registry:
        return None
    params: BaseModel = registry[str(name)].Params.model_validate(model.model_dump()["params"])
    return params
