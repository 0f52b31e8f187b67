"""Autoregressive priors over code sequences, a GRU a row, trained side by side (method, section 4).

Gradients are written out. The input projection is looked up: a code's embedding times the input
weights is one row of a table that has a row for every code, far fewer than a batch has tokens.
Everything about one position is done before the next, so that it stays in the processor's cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from real_tasks.localizers.real.parameters import Affine, ParameterBlock, Weights, affine_weights
from real_tasks.localizers.real.params import Params


def prior_weights(params: Params, source: torch.Generator) -> Weights:
    """Draw the weights of one prior as torch's Embedding, GRU and Linear do.

    Gates are in torch's order: reset, update, new. The embedding's last row is the BOS token's.
    """
    width, hidden, codes = params.prior_embedding, params.prior_hidden, params.codebook_size
    bound = hidden**-0.5

    def uniform(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=source)

    out_weight, out_bias = affine_weights(hidden, codes, source)
    return {
        "embedding": torch.randn(codes + 1, width, generator=source),
        "input.weight": uniform(width, 3 * hidden),
        "input.bias": uniform(1, 3 * hidden),
        "gates.weight": uniform(hidden, 2 * hidden),
        "new.weight": uniform(hidden, hidden),
        "recurrent.bias": uniform(1, 3 * hidden),
        "logits.weight": out_weight,
        "logits.bias": out_bias,
    }


class _Position(NamedTuple):
    """Views of one position of a trace, made once: a view costs as much as a small product."""

    state: Float[Tensor, "row sample hidden"]
    after: Float[Tensor, "row sample hidden"]
    gates: Float[Tensor, "row sample gate2"]
    reset: Float[Tensor, "row sample hidden"]
    update: Float[Tensor, "row sample hidden"]
    recurrent: Float[Tensor, "row sample hidden"]
    fresh: Float[Tensor, "row sample hidden"]


class _Trace:
    """What the forward pass keeps for the gradient, allocated once for batches of one shape.

    `states` begin with zeros; at a position `gates` are reset and update, `recurrent` is the
    state's part of the new gate and `fresh` that gate's value. The sums hold the input's part of
    the three gates on the way forth, its gradient on the way back.
    """

    def __init__(self, shape: torch.Size, hidden: int, like: Tensor) -> None:
        time, rows, samples = shape
        self.shape = shape
        self.states = like.new_zeros(rows, time + 1, samples, hidden)
        gates = like.new_empty(time, rows, samples, 2 * hidden)
        recurrent, fresh = like.new_empty(2, time, rows, samples, hidden)
        self.positions = [
            _Position(
                self.states[:, t],
                self.states[:, t + 1],
                gates[t],
                gates[t, :, :, :hidden],
                gates[t, :, :, hidden:],
                recurrent[t],
                fresh[t],
            )
            for t in range(time)
        ]
        self.flat_sums = like.new_empty(rows * samples, 3 * hidden)
        sums = self.flat_sums.view(rows, samples, -1)
        self.gate_sums = sums[..., : 2 * hidden]
        self.reset_sum, self.update_sum, self.new_sum = sums.split(hidden, dim=2)
        self.scratch = like.new_empty(3, rows, samples, hidden).unbind()


class Priors:
    """GRU priors of `row` (label, fit, module) triples."""

    def __init__(
        self, weights: Sequence[Weights], params: Params, shifted: bool, device: torch.device
    ) -> None:
        """Start from ``weights``; without ``shifted`` a code is predicted from itself."""
        self._params = params
        self._shifted = shifted
        self.block = ParameterBlock(weights, device)
        self._logits = Affine(self.block, "logits")
        self._optimizer = torch.optim.AdamW(
            [self.block.flat],
            lr=params.prior_learning_rate,
            weight_decay=params.prior_weight_decay,
            fused=True,
        )
        tokens = params.codebook_size + 1
        self._offsets = torch.arange(len(weights), device=device)[:, None] * tokens
        self._table_grad = torch.empty(len(weights), tokens, 3 * params.prior_hidden, device=device)
        self._trace: _Trace | None = None

    def log_probability(
        self, codes: Int[Tensor, "row position sample"]
    ) -> Float[Tensor, "row sample"]:
        """Return the log-probability of every sequence, per code, in nats."""
        states = self._forward(self._input_rows(codes)).states
        logits = self._logits(states[:, 1:].flatten(1, 2)).log_softmax(2)
        chosen = logits.gather(2, codes.flatten(1)[:, :, None])
        return chosen.view(codes.shape).mean(1)

    def step(self, codes: Int[Tensor, "row position sample"]) -> None:
        """Take one step on a batch of sequences: cross-entropy, averaged over its codes."""
        inputs = self._input_rows(codes)
        trace = self._forward(inputs)
        states, targets = trace.states[:, 1:].flatten(1, 2), codes.flatten(1)[:, :, None]
        grad = self._logits(states).softmax(2)
        grad.scatter_add_(2, targets, grad.new_tensor(-1.0).expand(targets.shape))
        grad.div_(targets.shape[1])
        self._logits.store_gradient(states, grad)
        grad_states = self._logits.input_gradient(grad).unflatten(1, (len(inputs), -1))
        self._backward(trace, inputs, grad_states)
        self.block.clip(self._params.prior_clip)
        self._optimizer.step()

    def _input_rows(self, codes: Tensor) -> Int[Tensor, "position row sample"]:
        """Return the rows of the flattened tables that the inputs at every position look up."""
        inputs = codes.transpose(0, 1)
        if self._shifted:
            start = torch.full_like(inputs[:1], self._params.codebook_size)
            inputs = torch.cat([start, inputs[:-1]])
        return inputs + self._offsets

    def _table(self) -> Float[Tensor, "entry gate3"]:
        """Return the input's part of the gates by code, with the biases that add to it."""
        values, hidden = self.block.values, self._params.prior_hidden
        bias = values["input.bias"].clone()
        bias[..., : 2 * hidden] += values["recurrent.bias"][..., : 2 * hidden]
        return torch.baddbmm(bias, values["embedding"], values["input.weight"]).flatten(0, 1)

    def _forward(self, inputs: Int[Tensor, "position row sample"]) -> _Trace:
        values, hidden = self.block.values, self._params.prior_hidden
        trace = self._trace
        if trace is None or trace.shape != inputs.shape:
            trace = self._trace = _Trace(inputs.shape, hidden, self.block.flat)
        table, new_bias = self._table(), values["recurrent.bias"][..., 2 * hidden :]
        for t, (rows, at) in enumerate(zip(inputs.flatten(1), trace.positions, strict=True)):
            torch.index_select(table, 0, rows, out=trace.flat_sums)
            if t == 0:  # The state is zero.
                at.gates.copy_(trace.gate_sums)
                at.recurrent.copy_(new_bias.expand_as(at.recurrent))
            else:
                torch.baddbmm(trace.gate_sums, at.state, values["gates.weight"], out=at.gates)
                torch.baddbmm(new_bias, at.state, values["new.weight"], out=at.recurrent)
            at.gates.sigmoid_()
            _tanh_(torch.addcmul(trace.new_sum, at.reset, at.recurrent, out=at.fresh))
            torch.lerp(at.fresh, at.state, at.update, out=at.after)
        return trace

    def _backward(
        self,
        trace: _Trace,
        inputs: Int[Tensor, "position row sample"],
        grad_states: Float[Tensor, "row position sample hidden"],
    ) -> None:
        """Write the gradients of all but the logits, given the gradient of the states."""
        values, grads, hidden = self.block.values, self.block.grads, self._params.prior_hidden
        for name in ("gates.weight", "new.weight", "recurrent.bias"):
            grads[name].zero_()
        table_grad = self._table_grad.zero_().flatten(0, 1)
        bias_grad = grads["recurrent.bias"][..., 2 * hidden :]
        grad = grad_states[:, -1]
        for t, rows in reversed(list(enumerate(inputs.flatten(1)))):
            state = trace.positions[t].state
            kept, d_recurrent = _cell_gradient(trace, t, grad)
            table_grad.index_add_(0, rows, trace.flat_sums)
            bias_grad += d_recurrent.sum(1, keepdim=True)
            if t:
                grads["gates.weight"].baddbmm_(state.mT, trace.gate_sums)
                grads["new.weight"].baddbmm_(state.mT, d_recurrent)
                grad = kept.add_(grad_states[:, t - 1])
                grad.baddbmm_(trace.gate_sums, values["gates.weight"].mT)
                grad.baddbmm_(d_recurrent, values["new.weight"].mT)
        self._store_table_gradient()

    def _store_table_gradient(self) -> None:
        values, grads, table = self.block.values, self.block.grads, self._table_grad
        gates = 2 * self._params.prior_hidden
        torch.bmm(table, values["input.weight"].mT, out=grads["embedding"])
        torch.bmm(values["embedding"].mT, table, out=grads["input.weight"])
        torch.sum(table, 1, keepdim=True, out=grads["input.bias"])
        grads["recurrent.bias"][..., :gates] = grads["input.bias"][..., :gates]


def _cell_gradient(trace: _Trace, t: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients at position ``t``: of the state kept, and of its part of the new gate.

    The gradient of the gates' sums is left in the trace. ``grad`` may be what the position after
    returned, although the same memory is used again.
    """
    sigmoid_gradient = torch.ops.aten.sigmoid_backward.grad_input
    at, (kept, d_recurrent, work) = trace.positions[t], trace.scratch
    torch.sub(at.state, at.fresh, out=work).mul_(grad)
    sigmoid_gradient(work, at.update, grad_input=trace.update_sum)
    torch.addcmul(grad, grad, at.update, value=-1, out=d_recurrent)
    torch.ops.aten.tanh_backward.grad_input(d_recurrent, at.fresh, grad_input=trace.new_sum)
    torch.mul(grad, at.update, out=kept)
    torch.mul(trace.new_sum, at.recurrent, out=work)
    sigmoid_gradient(work, at.reset, grad_input=trace.reset_sum)
    torch.mul(trace.new_sum, at.reset, out=d_recurrent)
    return kept, d_recurrent


def _tanh_(x: Tensor) -> Tensor:
    # Several times as fast as torch's on CPUs, and equal to about 1e-7.
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)
