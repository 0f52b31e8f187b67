"""VQ-AEs of many modules and fits, trained side by side; rows: [fit * module] (method, section 3).

Gradients are written out: the network is small and fixed; a tape would cost as much as its sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import leaky_relu

from real_tasks.localizers.real.codebook import Codebooks, code_use, is_collapsing
from real_tasks.localizers.real.contrastive import contrastive_gradient
from real_tasks.localizers.real.parameters import Affine, ParameterBlock, Weights, affine_weights
from real_tasks.localizers.real.params import Params

SLOPE = 0.01
_leaky_relu = partial(leaky_relu, negative_slope=SLOPE)


def _leaky_relu_gradient(grad: Tensor, output: Tensor) -> Tensor:
    # The output has the input's sign, so the input need not be kept.
    gradient: Tensor = torch.ops.aten.leaky_relu_backward(grad, output, SLOPE, True)
    return gradient


@dataclass(frozen=True)
class VqaeStart:
    """What is random in the VQ-AE of one fit of one module.

    Attributes:
        weights: of the four affine maps, `{map}.weight` [in, out] and `{map}.bias` [1, out].
        codes: N(0, 1) codes [code, d/2/units].
        restarts: distinct indices [epoch, code] into the encoded groups of the restart samples; the
            first epoch's make the codebook when it starts from data.
    """

    weights: Weights
    codes: Float[Tensor, "code width"]
    restarts: Int[Tensor, "epoch code"]


def vqae_start(
    d: int, n_restart_samples: int, params: Params, source: torch.Generator
) -> VqaeStart:
    """Draw the start of a VQ-AE of inputs of width ``d``."""
    weights: dict[str, Tensor] = {}
    sizes = {"enter": (d, d), "compress": (d, d // 2), "expand": (d // 2, d), "leave": (d, d)}
    for name, (n_in, n_out) in sizes.items():
        weights[f"{name}.weight"], weights[f"{name}.bias"] = affine_weights(n_in, n_out, source)
    codes = torch.randn(params.codebook_size, d // 2 // params.units, generator=source)
    noise = torch.rand(params.epochs, n_restart_samples * params.units, generator=source)
    return VqaeStart(weights, codes, noise.topk(params.codebook_size).indices)


class Autoencoders:
    """VQ-AEs of `row` modules and fits."""

    def __init__(self, starts: Sequence[VqaeStart], params: Params, device: torch.device) -> None:
        """Start from ``starts``, with their N(0, 1) codes until `start_codes_from_data`."""
        self._params = params
        self.block = ParameterBlock([start.weights for start in starts], device)
        self._enter, self._compress, self._expand, self._leave = (
            Affine(self.block, name) for name in ("enter", "compress", "expand", "leave")
        )
        self.codebooks = Codebooks(torch.stack([s.codes for s in starts]).to(device), params)
        self._restarts = torch.stack([s.restarts for s in starts], dim=1).to(device)
        self._optimizer = torch.optim.Adam([self.block.flat], lr=params.learning_rate, fused=True)
        self._streak = torch.zeros(len(starts), dtype=torch.int64, device=device)

    @property
    def collapsed(self) -> Tensor:
        """Tell per row whether its codebook has been collapsing for `collapse_patience` epochs."""
        return self._streak >= min(self._params.collapse_patience, self._params.epochs)

    def encode(self, x: Float[Tensor, "row sample d"]) -> Float[Tensor, "row sample latent"]:
        """Return the latents before quantisation."""
        return self._compress(_leaky_relu(self._enter(x)))

    def quantise(
        self, z: Float[Tensor, "row sample latent"]
    ) -> tuple[Int[Tensor, "row sample unit"], Float[Tensor, "row sample latent"]]:
        """Return the code indices of the latents, and the latents made of those codes."""
        indices = self.codebooks.nearest(self._groups(z))
        return indices.view(*z.shape[:2], -1), self.codebooks.look_up(indices).view_as(z)

    def decode(self, latents: Float[Tensor, "row sample latent"]) -> Float[Tensor, "row sample d"]:
        """Return the reconstruction from quantised latents."""
        return self._leave(_leaky_relu(self._expand(latents)))

    def _groups(self, z: Tensor) -> Tensor:
        return rearrange(
            z, "row sample (unit width) -> row (sample unit) width", unit=self._params.units
        )

    def start_codes_from_data(self, x: Float[Tensor, "row sample d"]) -> None:
        """Replace all codes by encoded groups of ``x``."""
        everything = torch.ones_like(self.codebooks.codes[:, :, 0], dtype=torch.bool)
        self.codebooks.restart(everything, self._drawn_groups(self.encode(x), 0))

    def end_epoch(
        self, epoch: int, codes: Int[Tensor, "row sample unit"], x: Float[Tensor, "row sample d"]
    ) -> None:
        """Look whether the codes of ``x`` are collapsing, and restart dead codes from ``x``.

        ``codes`` are those of the epoch's batches: what they hardly use is dead. Collapse is judged
        at one moment, since the codes of even a constant input change while its encoder learns. The
        last epoch restarts none, so that every code in use has been learned.
        """
        params, z = self._params, self.encode(x)
        now = code_use(self.quantise(z)[0], params.codebook_size)
        collapsing = is_collapsing(now, params.collapse_threshold)
        self._streak = torch.where(collapsing, self._streak + 1, 0)
        if params.restart_share and epoch + 1 < params.epochs:
            counts = code_use(codes, params.codebook_size).sum(1)
            dead = counts < params.restart_share * counts.mean(1, keepdim=True)
            self.codebooks.restart(dead, self._drawn_groups(z, epoch + 1))

    def _drawn_groups(self, z: Tensor, epoch: int) -> Tensor:
        return self._groups(z).take_along_dim(self._restarts[epoch][:, :, None], dim=1)

    def step(
        self, x: Float[Tensor, "row batch d"], pairs: Float[Tensor, "fit batch batch"]
    ) -> Int[Tensor, "row batch unit"]:
        """Take one step on a batch, of which ``pairs`` weighs the pairs of equal label.

        Returns the codes of the batch.
        """
        entered = _leaky_relu(self._enter(x))
        z = self._compress(entered)
        indices, latents = self.quantise(z)
        expanded = _leaky_relu(self._expand(latents))
        error = self._leave(expanded).sub_(x).mul_(2 / x[0].numel())
        grad = self._decoder_gradient(latents, expanded, error)
        # Straight through: what reaches the quantised latent reaches the encoder's.
        self._add_latent_losses(grad, z, latents, pairs)
        self._encoder_gradient(x, entered, grad)
        self._optimizer.step()
        self.codebooks.update(self._groups(z), indices.flatten(1))
        return indices

    def _decoder_gradient(self, latents: Tensor, expanded: Tensor, error: Tensor) -> Tensor:
        self._leave.store_gradient(expanded, error)
        grad = _leaky_relu_gradient(self._leave.input_gradient(error), expanded)
        self._expand.store_gradient(latents, grad)
        return self._expand.input_gradient(grad)

    def _add_latent_losses(self, grad: Tensor, z: Tensor, latents: Tensor, pairs: Tensor) -> None:
        params = self._params
        if params.contrastive_weight:
            contrastive = contrastive_gradient(latents, pairs, params.temperature)
            grad.add_(contrastive, alpha=params.contrastive_weight)
        commitment = 2 * params.commitment_weight / z[0].numel()
        grad.add_(z, alpha=commitment).sub_(latents, alpha=commitment)

    def _encoder_gradient(self, x: Tensor, entered: Tensor, grad: Tensor) -> None:
        self._compress.store_gradient(entered, grad)
        grad = _leaky_relu_gradient(self._compress.input_gradient(grad), entered)
        self._enter.store_gradient(x, grad)
