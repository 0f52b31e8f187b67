"""What people type to use an export."""

from real_tasks.export.card import Format
from real_tasks.export.easysteer import STEERING

HEADS, VECTOR, CARD = "heads.npy", "control-vector.gguf", "README.md"


def snippet_of(format: Format, folder: str, base: str) -> str:
    """Return Python of about three lines, or a shell command, that uses an export of a format.

    It lies in ``folder``; ``base`` is the name of its base model.
    """
    if format == "checkpoint":
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")'
        )
    if format == "control-vector":
        return f"llama-cli -m MODEL.gguf --control-vector {folder}/{VECTOR}"
    if format == "easysteer":
        return f"cd {folder} && vllm serve {base} --steering-config {STEERING}"
    if format == "lora":
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer  # and peft, installed\n"
            f'model = AutoModelForCausalLM.from_pretrained("{folder}")  # {base} and the adapter\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")'
        )
    if format == "lofit":
        return f'import numpy as np\nheads = np.load("{folder}/{HEADS}")  # [[layer, head], ...]'
    return (
        "from real_tasks.steering import SteeringSpec\n"
        f'with SteeringSpec.load("{folder}").applied_to(model):  # {base}, by transformers\n'
        '    output = model.generate(**tokenizer("Q: ...", return_tensors="pt"))'
    )
