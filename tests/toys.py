"""Models whose evidence and posterior are known in closed form, and programs that break the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch._inductor
from torch import Tensor, nn

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng
from pyro_dgm.inference.training.compiled.graphs import TermsOf, value_and_grad
from pyro_dgm.inference.training.soundness import named_leaves

STILL = partial(torch.optim.SGD, lr=0.0)  # an optimizer that moves nothing


class LinearGaussian(dgm.Program):
    r"""$z \sim N(0, I)$, $x \mid z \sim N(W z + b, s^2 I)$, so that $x \sim N(b, W W^T + s^2 I)$."""

    def __init__(
        self, latent: int = 2, observed: int = 4, scale: float = 0.7, size: int | None = None
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(observed, latent))
        self.bias = nn.Parameter(torch.randn(observed))
        self.scale, self.size = scale, size

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x, size=self.size):
            z = pyro.sample(
                "z", dist.Normal(self.weight.new_zeros(self.weight.shape[1]), 1.0).to_event(1)
            )
            return pyro.sample(
                "x", dist.Normal(z @ self.weight.T + self.bias, self.scale).to_event(1), obs=x
            )

    def log_evidence(self, x: Tensor) -> Tensor:
        """Log density of x, exact, float64."""
        weight, bias = self.weight.detach().double(), self.bias.detach().double()
        covariance = weight @ weight.T + self.scale**2 * torch.eye(len(bias), dtype=torch.float64)
        return dist.MultivariateNormal(bias, covariance).log_prob(x.double())

    def data(self, num: int) -> Tensor:
        """Data from the model itself."""
        return dgm.generate(self, num, seed=7)


class ExactGuide(dgm.Program):
    r"""$q(z \mid x) = p(z \mid x) = N(\Sigma W^T (x - b) / s^2, \Sigma)$ with $\Sigma^{-1} = I + W^T W / s^2$.

    `shift` moves its mean and `spread` scales its covariance, which makes it inexact.
    """

    def __init__(self, model: LinearGaussian, shift: float = 0.0, spread: float = 1.0):
        super().__init__()
        weight = model.weight.detach()
        precision = (
            torch.eye(weight.shape[1], dtype=weight.dtype) + weight.T @ weight / model.scale**2
        )
        covariance = precision.inverse()
        self.size = model.size
        self.register_buffer("bias", model.bias.detach())
        self.map = nn.Parameter(covariance @ weight.T / model.scale**2)
        self.shift = nn.Parameter(torch.full((weight.shape[1],), shift, dtype=weight.dtype))
        self.register_buffer("root", torch.linalg.cholesky(covariance) * spread)

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x, size=self.size):
            loc = (x - self.bias) @ self.map.T + self.shift
            return pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.root))


class GlobalMean(dgm.Program):
    r"""$\mu \sim N(0, 1)$ once for all data, $z_i \sim N(\mu, 1)$, $x_i \sim N(z_i, s^2)$."""

    def __init__(self, size: int | None = None):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor | None = None) -> Tensor:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with dgm.data_plate(x, size=self.size):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            return pyro.sample("x", dist.Normal(z, 0.5), obs=x)


class GlobalMeanGuide(dgm.Program):
    """Global site by two parameters, local sites by a linear map. `frozen` takes the noise out of both draws."""

    def __init__(self, size: int | None = None, *, frozen: bool = False):
        super().__init__()
        self.size, self.frozen = size, frozen
        self.loc, self.slope = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.6))

    def forward(self, x: Tensor | None = None) -> None:
        family = Frozen if self.frozen else dist.Normal
        mu = pyro.sample("mu", family(self.loc, torch.tensor(0.4)))
        with dgm.data_plate(x, size=self.size):
            pyro.sample("z", family(self.slope * x + 0.1 * mu, torch.tensor(0.5)))


class Frozen(dist.Normal):
    """A normal law whose draws are its 84 % quantile, for comparisons that noise would hide."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return (self.loc + self.scale).expand(self._extended_shape(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Frozen:
        return Frozen(self.loc.expand(batch_shape), self.scale.expand(batch_shape))


class Series(dgm.Program):
    r"""A program with a further plate: $z_i \sim N(0, 1)$, $u_{ti} \sim N(z_i, 1)$, $x_{ti} \sim N(u_{ti}, s^2)$."""

    def __init__(self, steps: int = 3):
        super().__init__()
        self.steps, self.offset = steps, nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(self.offset.new_zeros(()), 1.0))
            with pyro.plate("time", self.steps, dim=-2):
                u = pyro.sample("u", dist.Normal(z + self.offset, 1.0))
                return pyro.sample("x", dist.Normal(u, 0.5), obs=None if x is None else x.T)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Log density of rows `(B, steps)`: the sites of one datum are jointly normal."""
        ones, eye = torch.ones(self.steps, self.steps), torch.eye(self.steps)
        return dist.MultivariateNormal(
            self.offset.detach().expand(self.steps), ones + 1.25 * eye
        ).log_prob(x)


class SeriesGuide(dgm.Program):
    """A mean-field guide of `Series`."""

    def __init__(self, steps: int = 3):
        super().__init__()
        self.steps, self.slope = steps, nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor | None = None) -> None:
        with dgm.data_plate(x):
            pyro.sample("z", dist.Normal(self.slope * x.mean(1), 0.8))
            with pyro.plate("time", self.steps, dim=-2):
                pyro.sample("u", dist.Normal(self.slope * x.T, 0.7))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization that broadcasts over particles, as the contract asks of networks."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Written(dgm.Program):
    """A program from a function `(program, x) -> value`, with a parameter, for one-off tests."""

    def __init__(self, run: Any):
        super().__init__()
        self.run, self.weight = run, nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor | None = None) -> Any:
        return self.run(self, x)


def linear_gaussian(**options: Any) -> tuple[LinearGaussian, ExactGuide, Tensor]:
    """A model, its exact posterior as guide, and 6 data."""
    model = LinearGaussian(**options)
    return model, ExactGuide(model), model.data(6)


def toy_vae(**options: Any) -> dgm.VAE:
    """The smallest VAE with a learned scale, for tests of the loop: x in R^3, z in R^2."""
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 6, 4))
    return dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 6, 3)), encoder, **options)


def same_toy_vae(seed: int = 1) -> dgm.VAE:
    """The toy VAE with weights that are a function of the seed."""
    with fork_rng(seed=seed):
        return toy_vae()


def loss_and_grad(
    objective: dgm.training.Objective, *batch: Tensor, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradient by plain autograd under a seed."""
    objective.zero_grad(set_to_none=True)
    with fork_rng(seed=seed):
        loss = objective(*batch)
    loss.backward()
    return loss.detach(), {
        n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None
    }


def captured(objective: dgm.training.Objective, *batch: Tensor) -> tuple[Any, dict, dict]:
    """The objective's step as a graph without kernels of its own, with the tensors that are its inputs."""
    from pyro_dgm.inference.training.compiled.graphs import capture

    module = TermsOf(objective)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    fixed = {n: p for n, p in module.named_parameters() if not p.requires_grad} | dict(
        module.named_buffers()
    )
    return capture(module, trained, fixed, batch), trained, fixed


def stepped(objective: dgm.training.Objective) -> Any:
    """The eager function that `captured` turns into a graph."""
    return value_and_grad(TermsOf(objective))


class Dirac(dgm.Program):
    r"""$p = \delta_\theta$: a program with one parameter and no latent."""

    def __init__(self, theta: float = 1.0):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta]))

    def forward(self, x: Tensor | None = None) -> Tensor:
        with dgm.data_plate(x):
            return pyro.sample("x", dist.Delta(self.theta).to_event(1), obs=x)


class Slope(nn.Module):
    r"""$C(x) = \psi x$."""

    def __init__(self, psi: float = 1.0):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi))

    def forward(self, x: Tensor) -> Tensor:
        return self.psi * x


def heavy(num, data):
    """Log weights with tails from none to none-existing means: scaled normal, Student and exponential draws."""
    scale = torch.linspace(0.1, 6, data)
    light = scale * torch.randn(num, data)
    student = torch.distributions.StudentT(3.0).sample((num, data)) * scale
    pareto = torch.distributions.Exponential(1.0).sample((num, data)) * scale / 3
    return torch.cat([light, student, pareto], 1).double()


def everything(trainer: Any) -> tuple[Any, ...]:
    """All tensors and numbers of a trainer, but for wall-clock times."""
    rows = [{n: v for n, v in row.items() if n != "seconds"} for row in trainer.history]
    state = trainer.state.state_dict()
    tensors = dict(named_leaves({**state, "here": trainer.module.state_dict()}, ""))
    return tensors, rows, state["counts"], trainer.best.get("epoch")


def assert_equal(one: Any, other: Any) -> None:
    """That two trainers have the same of `everything`, bit for bit."""
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert one[1:] == other[1:]


def without_kernels(monkeypatch):
    """Graphs that run as they were captured, in milliseconds; returns the list that they are put into."""
    graphs = []

    def compiled(graph, *_, **__):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch._inductor, "compile", compiled)
    return graphs
