"""REAL for one module at a time, the plain way: nn.Linear, nn.GRU, autograd and torch.optim.

The measure of the batched program: of its speed in the benchmark, of its numbers in the tests. It
takes the same starting weights and the same batches, so that both compute the same thing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from real_tasks.localizers.real.params import Params
from real_tasks.localizers.real.vqae import VqaeStart


class Vqae(nn.Module):
    def __init__(self, start: VqaeStart, params: Params) -> None:
        super().__init__()
        d = start.weights["enter.weight"].shape[0]
        self.params = params
        self.enter, self.compress = nn.Linear(d, d), nn.Linear(d, d // 2)
        self.expand, self.leave = nn.Linear(d // 2, d), nn.Linear(d, d)
        for name in ("enter", "compress", "expand", "leave"):
            layer = getattr(self, name)
            layer.weight.data = start.weights[f"{name}.weight"].T.clone()
            layer.bias.data = start.weights[f"{name}.bias"][0].clone()
        self.register_buffer("codes", start.codes.clone())
        self.register_buffer("counts", torch.ones(len(start.codes)))
        self.register_buffer("sums", start.codes.clone())

    def encode(self, x: Tensor) -> Tensor:
        return self.compress(functional.leaky_relu(self.enter(x), 0.01))

    def groups(self, z: Tensor) -> Tensor:
        return z.reshape(len(z) * self.params.units, -1)

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        groups = self.groups(z)
        distances = self.codes.square().sum(1) - 2 * groups @ self.codes.T
        codes = distances.argmin(1)
        return codes.view(len(z), -1), self.codes[codes].view_as(z)

    def decode(self, latents: Tensor) -> Tensor:
        return self.leave(functional.leaky_relu(self.expand(latents), 0.01))

    def loss(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.encode(x)
        codes, quantised = self.quantise(z)
        straight = z + (quantised - z).detach()
        loss = functional.mse_loss(self.decode(straight), x)
        loss = loss + self.params.commitment_weight * functional.mse_loss(z, quantised.detach())
        contrastive = supervised_contrastive(straight, labels, self.params.temperature)
        return loss + self.params.contrastive_weight * contrastive, z, codes

    @torch.no_grad()
    def update_codes(self, z: Tensor, codes: Tensor) -> None:
        decay, size = self.params.codebook_decay, len(self.codes)
        chosen = functional.one_hot(codes.flatten(), size).float()
        self.counts.mul_(decay).add_(chosen.sum(0), alpha=1 - decay)
        self.sums.mul_(decay).add_(chosen.T @ self.groups(z), alpha=1 - decay)
        total = self.counts.sum()
        smooth = (self.counts + 1e-5) / (total + size * 1e-5) * total
        self.codes.copy_(self.sums / smooth[:, None])

    @torch.no_grad()
    def restart_codes(self, dead: Tensor, groups: Tensor) -> None:
        for code in dead.nonzero().flatten().tolist():
            self.codes[code] = self.sums[code] = groups[code]
            self.counts[code] = 1.0


def supervised_contrastive(latents: Tensor, labels: Tensor, temperature: float) -> Tensor:
    unit = functional.normalize(latents, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    count = positive.sum(1)
    log_share = similarity.log_softmax(1).masked_fill(~positive, 0.0)
    per_anchor = -log_share.sum(1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


def train_vqae(
    start: VqaeStart, params: Params, x: Tensor, labels: Tensor, stream: Tensor, first: Tensor
) -> Vqae:
    """Train on the samples of `stream` [epoch, step, batch]; restarts draw from samples `first`."""
    model = Vqae(start, params)
    optimizer = torch.optim.Adam(model.parameters(), lr=params.learning_rate)

    @torch.no_grad()
    def drawn(epoch: int) -> Tensor:
        return model.groups(model.encode(x[first]))[start.restarts[epoch]]

    if params.codebook_init == "data":
        model.restart_codes(torch.ones(params.codebook_size), drawn(0))
    for epoch, batches in enumerate(stream):
        use = torch.zeros(params.codebook_size)
        for batch in batches:
            loss, z, codes = model.loss(x[batch], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.update_codes(z.detach(), codes)
            use += codes.flatten().bincount(minlength=params.codebook_size)
        if params.restart_share and epoch + 1 < params.epochs:
            model.restart_codes(use < params.restart_share * use.mean(), drawn(epoch + 1))
    return model


class Prior(nn.Module):
    def __init__(self, weights: dict[str, Tensor], params: Params) -> None:
        super().__init__()
        self.bos = params.codebook_size
        self.embedding = nn.Embedding(params.codebook_size + 1, params.prior_embedding)
        self.gru = nn.GRU(params.prior_embedding, params.prior_hidden, batch_first=True)
        self.logits = nn.Linear(params.prior_hidden, params.codebook_size)
        self.embedding.weight.data = weights["embedding"].clone()
        recurrent = torch.cat([weights["gates.weight"], weights["new.weight"]], dim=1)
        self.gru.weight_ih_l0.data = weights["input.weight"].T.clone()
        self.gru.bias_ih_l0.data = weights["input.bias"][0].clone()
        self.gru.weight_hh_l0.data = recurrent.T.clone()
        self.gru.bias_hh_l0.data = weights["recurrent.bias"][0].clone()
        self.logits.weight.data = weights["logits.weight"].T.clone()
        self.logits.bias.data = weights["logits.bias"][0].clone()

    def forward(self, codes: Tensor, shifted: bool = True) -> Tensor:
        """Log-probability of every code [sequence, time]."""
        inputs = codes
        if shifted:
            inputs = torch.cat([torch.full_like(codes[:, :1], self.bos), codes[:, :-1]], dim=1)
        log_share = self.logits(self.gru(self.embedding(inputs))[0]).log_softmax(2)
        return log_share.gather(2, codes[:, :, None]).squeeze(2)


def train_prior(
    weights: dict[str, Tensor], params: Params, codes: Tensor, stream: Tensor, shifted: bool = True
) -> Prior:
    """Train on the sequences [sample, time] of the samples of `stream` [epoch, step, batch]."""
    model = Prior(weights, params)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=params.prior_learning_rate, weight_decay=params.prior_weight_decay
    )
    for batch in stream.flatten(0, 1):
        loss = -model(codes[batch], shifted).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), params.prior_clip)
        optimizer.step()
    return model


def score(
    start: VqaeStart,
    priors: Sequence[dict[str, Tensor]],
    params: Params,
    x: Tensor,
    labels: Tensor,
    streams: tuple[Tensor, Tensor, Tensor],
    first: Tensor,
) -> tuple[Vqae, list[Prior], Tensor]:
    """Fit one module: streams are the VQ-AE's, the violating and the aligned prior's."""
    vqae = train_vqae(start, params, x, labels, streams[0], first)
    with torch.no_grad():
        codes = vqae.quantise(vqae.encode(x))[0]
    fitted = [
        train_prior(weights, params, codes, stream)
        for weights, stream in zip(priors, streams[1:], strict=True)
    ]
    with torch.no_grad():
        violating, aligned = (prior(codes).mean(1) for prior in fitted)
    return vqae, fitted, aligned - violating
