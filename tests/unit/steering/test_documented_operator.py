"""The operator of the page on methods is one."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[3] / "deployments/docs/methods.md"


def test_the_operator_of_the_page_does_what_it_says() -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        if "(Operator)" in block
    )
    names: dict[str, type] = {}
    exec(code, names)
    made = names["Halve"](names["Halve"].Params())
    x = torch.randn(2, 3, 1, 8, generator=torch.Generator().manual_seed(0))
    v = torch.eye(8)[:1]
    found = made.apply(x, {"direction": v}, torch.ones(1, 1, 1))
    expected = x.clone()
    expected[..., 0] /= 2
    torch.testing.assert_close(found, expected)
    assert made.bounded and made.formula and max(made.strengths) <= made.highest
