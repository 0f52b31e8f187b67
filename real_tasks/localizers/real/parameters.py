"""Parameters of many small models that train side by side, and their affine maps."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Weights = Mapping[str, Tensor]


class ParameterBlock:
    """Parameters of `row` independent models: views of one tensor, and of one with their gradients.

    One tensor lets a single call of a fused optimiser update every model; its state moves through
    memory once a step. A parameter's views are contiguous, so batched products can write to them.
    """

    def __init__(self, models: Sequence[Weights], device: torch.device) -> None:
        """Stack the weights of ``models``, which have the same names and shapes, on ``device``."""
        stacked = {name: torch.stack([model[name] for model in models]) for name in models[0]}
        self.flat = torch.cat([values.flatten() for values in stacked.values()]).to(device)
        self.flat.grad = torch.zeros_like(self.flat)
        shapes = {name: values.shape for name, values in stacked.items()}
        self.values = _views(self.flat, shapes)
        self.grads = _views(self.flat.grad, shapes)

    def clip(self, largest_norm: float) -> None:
        """Scale down every model's gradient whose norm exceeds ``largest_norm``, as torch does."""
        norms = [torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in self.grads.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale = (largest_norm / (norm + 1e-6)).clamp(max=1.0)
        # Asking costs a synchronisation on an accelerator, and scaling by 1 little.
        if scale.is_cuda or bool((scale < 1).any()):
            for grad in self.grads.values():
                grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))


def _views(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {
        name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


class Affine:
    """The map ``x @ weight + bias`` of every row, with its gradient written out."""

    def __init__(self, block: ParameterBlock, name: str) -> None:
        """Take ``{name}.weight`` [row, in, out] and ``{name}.bias`` [row, 1, out] of the block."""
        self.weight, self.bias = block.values[f"{name}.weight"], block.values[f"{name}.bias"]
        self._weight_grad = block.grads[f"{name}.weight"]
        self._bias_grad = block.grads[f"{name}.bias"]

    def __call__(self, x: Float[Tensor, "row sample in"]) -> Float[Tensor, "row sample out"]:
        """Apply the map."""
        return torch.baddbmm(self.bias, x, self.weight)

    def store_gradient(
        self, x: Float[Tensor, "row sample in"], grad: Float[Tensor, "row sample out"]
    ) -> None:
        """Write the gradients of weight and bias, given the input and the output's gradient."""
        torch.bmm(x.mT, grad, out=self._weight_grad)
        torch.sum(grad, 1, keepdim=True, out=self._bias_grad)

    def input_gradient(
        self, grad: Float[Tensor, "row sample out"]
    ) -> Float[Tensor, "row sample in"]:
        """Return the gradient of the input, given the output's."""
        return torch.bmm(grad, self.weight.mT)


def affine_weights(n_in: int, n_out: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw weight [in, out] and bias [1, out] as torch's Linear does: U(-1, 1) / sqrt(in)."""
    bound = n_in**-0.5
    weight = torch.empty(n_in, n_out).uniform_(-bound, bound, generator=source)
    return weight, torch.empty(1, n_out).uniform_(-bound, bound, generator=source)
