"""Networks that are written for (N, D) alone, each beside a twin that means the same and broadcasts."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_dgm as dgm

Net = Callable[[Tensor], Tensor]
HIDDEN = 6


class Softmax(nn.Module):
    """A softmax over the features of `(N, D)` is one over the data of `(K, N, D)`."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, h: Tensor) -> Tensor:
        return 4 * torch.softmax(h, dim=self.dim)


class FirstColumn(nn.Module):
    """Dims indexed from the left: `h[:, :1]` of `(K, N, D)` is the first datum of all particles."""

    def __init__(self, *, broadcasts: bool):
        super().__init__()
        self.broadcasts = broadcasts

    def forward(self, h: Tensor) -> Tensor:
        return h * (h[..., :1] if self.broadcasts else h[:, :1])


class Viewed(nn.Module):
    """`view(len(h), -1)` folds the data of a particle into its features."""

    def __init__(self, *, broadcasts: bool):
        super().__init__()
        self.broadcasts = broadcasts

    def forward(self, h: Tensor) -> Tensor:
        halves = h.unflatten(-1, (2, HIDDEN // 2)).tanh()
        return halves.flatten(-2) if self.broadcasts else halves.reshape(h.shape[0], -1)


class Indexed(nn.Module):
    """A mask of the rows picks whole data, and a cat joins along dim 1."""

    def __init__(self, *, broadcasts: bool):
        super().__init__()
        self.broadcasts = broadcasts

    def forward(self, h: Tensor) -> Tensor:
        if self.broadcasts:
            positive = h[..., :1] > 0
            return torch.where(positive, -h, h)
        out = h.clone()
        positive = h[:, 0] > 0
        out[positive] = -h[positive]
        return torch.cat([out[:, :2], out[:, 2:]], 1)


class Image(nn.Module):
    """A convolution takes four dims at most."""

    def __init__(self, *, broadcasts: bool):
        super().__init__()
        self.broadcasts = broadcasts
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        if not self.broadcasts:
            return self.conv(h.view(-1, 1, 2, HIDDEN // 2)).flatten(1)
        images = h.reshape(-1, 1, 2, HIDDEN // 2)
        return self.conv(images).reshape(h.shape)


class Norm(nn.Module):
    """Batch normalization takes dim 1 for the features, and passes where there are as many data as features."""

    def __init__(self, *, broadcasts: bool):
        super().__init__()
        self.broadcasts = broadcasts
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.norm.running_mean.copy_(torch.linspace(-1, 1, HIDDEN))
        self.norm.running_var.copy_(torch.linspace(0.1, 3, HIDDEN))

    def forward(self, h: Tensor) -> Tensor:
        return (
            self.norm(h.reshape(-1, HIDDEN)).reshape(h.shape) if self.broadcasts else self.norm(h)
        )


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "softmax": (lambda: Softmax(1), lambda: Softmax(-1)),
    "first column": (lambda: FirstColumn(broadcasts=False), lambda: FirstColumn(broadcasts=True)),
    "view": (lambda: Viewed(broadcasts=False), lambda: Viewed(broadcasts=True)),
    "mask and cat": (lambda: Indexed(broadcasts=False), lambda: Indexed(broadcasts=True)),
    "convolution": (lambda: Image(broadcasts=False), lambda: Image(broadcasts=True)),
    "batch norm": (lambda: Norm(broadcasts=False), lambda: Norm(broadcasts=True)),
}


class Model(dgm.Program):
    r"""$z \sim N(0, I)$, $u \mid z \sim N(f(z), 1)$, $x \mid u \sim N(g(u), 0.5^2)$."""

    def __init__(self, layer: Callable[[], nn.Module]):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, HIDDEN), layer(), nn.Linear(HIDDEN, 2))
        self.outer = nn.Sequential(nn.Linear(2, HIDDEN), layer(), nn.Linear(HIDDEN, 3))

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Normal(self.inner(z), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.outer(u), 0.5).to_event(1), obs=x)


class Guide(dgm.Program):
    r"""$z \sim N(a(x), 0.8^2)$, $u \mid z \sim N(h(z) + b(x), 0.6^2)$."""

    def __init__(self, layer: Callable[[], nn.Module]):
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.inner = nn.Sequential(nn.Linear(2, HIDDEN), layer(), nn.Linear(HIDDEN, 2))

    def forward(self, x: Tensor) -> None:
        loc, shift = self.encoder(x).chunk(2, -1)
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(loc, 0.8).to_event(1))
            pyro.sample("u", dist.Normal(self.inner(z) + shift, 0.6).to_event(1))


def twins(layer: str) -> tuple[tuple[Model, Guide], tuple[Model, Guide]]:
    """A pair written for rows, and one of the same weights and meaning that broadcasts."""
    by_rows, by_plate = LAYERS[layer]
    torch.manual_seed(3)
    model, guide = Model(by_rows), Guide(by_rows)
    other_model, other_guide = Model(by_plate), Guide(by_plate)
    other_model.load_state_dict(model.state_dict())
    other_guide.load_state_dict(guide.state_dict())
    return (model, guide), (other_model, other_guide)
