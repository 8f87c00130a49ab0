"""Amortised programs as Pyro's tutorials write them: one class with the methods `model` and `guide`."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import nn


class Decoder(nn.Module):
    def __init__(self, z_dim, hidden_dim, pixels):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, pixels)

    def forward(self, z):
        hidden = F.softplus(self.fc1(z))
        return torch.sigmoid(self.fc21(hidden))


class Encoder(nn.Module):
    def __init__(self, z_dim, hidden_dim, pixels):
        super().__init__()
        self.pixels = pixels
        self.fc1 = nn.Linear(pixels, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, z_dim)
        self.fc22 = nn.Linear(hidden_dim, z_dim)

    def forward(self, x):
        hidden = F.softplus(self.fc1(x.reshape(-1, self.pixels)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class VAE(nn.Module):
    def __init__(self, pixels=9, z_dim=2, hidden_dim=16):
        super().__init__()
        self.pixels, self.z_dim = pixels, z_dim
        self.encoder = Encoder(z_dim, hidden_dim, pixels)
        self.decoder = Decoder(z_dim, hidden_dim, pixels)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z_scale = torch.ones(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = self.decoder(z)
            pyro.sample(
                "obs",
                dist.Bernoulli(loc_img, validate_args=False).to_event(1),
                obs=x.reshape(-1, self.pixels),
            )
            return loc_img

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))


def vae():
    images = (torch.rand(40, 1, 3, 3) > 0.5).to(torch.get_default_dtype())
    program = VAE()
    return program.model, program.guide, (images,)


class ConcatMLP(nn.Module):
    """Joins its inputs, which may have been expanded by an enumeration, along the last dim."""

    def __init__(self, in_dim, hidden_dim, out_dim):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(in_dim, hidden_dim), nn.Softplus(), nn.Linear(hidden_dim, out_dim)
        )

    def forward(self, *inputs):
        shape = torch.broadcast_shapes(*[value.shape[:-1] for value in inputs])
        joined = [value.expand(shape + value.shape[-1:]) for value in inputs]
        return self.net(torch.cat(joined, -1))


class SSVAE(nn.Module):
    """A semi-supervised VAE; without labels its guide draws them, to be enumerated."""

    def __init__(self, input_size=8, output_size=3, z_dim=2, hidden=12, aux_loss_multiplier=3.0):
        super().__init__()
        self.output_size, self.z_dim = output_size, z_dim
        self.aux_loss_multiplier = aux_loss_multiplier
        self.encoder_y = ConcatMLP(input_size, hidden, output_size)
        self.encoder_z = ConcatMLP(input_size + output_size, hidden, 2 * z_dim)
        self.decoder = ConcatMLP(z_dim + output_size, hidden, input_size)

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        with pyro.plate("data"):
            prior_loc = xs.new_zeros(batch_size, self.z_dim)
            prior_scale = xs.new_ones(batch_size, self.z_dim)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            alpha_prior = xs.new_ones(batch_size, self.output_size) / self.output_size
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            loc = self.decoder(zs, ys).sigmoid()
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            alpha = self.encoder_y(xs).softmax(-1)
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(alpha))
            else:
                log_prob = dist.OneHotCategorical(alpha).log_prob(ys)
                loss = -self.aux_loss_multiplier * log_prob
                pyro.factor("classification_loss", loss, has_rsample=False)
            loc, raw_scale = self.encoder_z(xs, ys).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw_scale.exp()).to_event(1))


def ss_vae():
    from pyro.infer import config_enumerate

    xs = (torch.rand(30, 8) > 0.5).to(torch.get_default_dtype())
    program = SSVAE()
    return program.model, config_enumerate(program.guide, "parallel"), (xs,)


def ss_vae_labelled():
    xs = (torch.rand(30, 8) > 0.5).to(torch.get_default_dtype())
    ys = F.one_hot(torch.arange(30) % 3, 3).to(xs.dtype)
    program = SSVAE()
    return program.model, program.guide, (xs, ys)


class CVAE(nn.Module):
    """Fills in images: where the input is -1 the output is to be explained, after a baseline network."""

    def __init__(self, pixels=9, z_dim=2, hidden=16):
        super().__init__()
        self.pixels = pixels
        self.baseline_net = nn.Sequential(nn.Linear(pixels, pixels), nn.Sigmoid())
        self.prior_net = nn.Sequential(
            nn.Linear(2 * pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * z_dim)
        )
        self.generation_net = Decoder(z_dim, hidden, pixels)
        self.recognition_net = nn.Sequential(
            nn.Linear(2 * pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * z_dim)
        )

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        batch_size = xs.shape[0]
        with pyro.plate("data"):
            with torch.no_grad():
                y_hat = self.baseline_net(xs.view(-1, self.pixels)).view(xs.shape)
            inputs = torch.cat([xs.view(-1, self.pixels), y_hat.view(-1, self.pixels)], dim=1)
            prior_loc, prior_scale = self.prior_net(inputs).chunk(2, dim=1)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale.exp()).to_event(1))
            loc = self.generation_net(zs)
            if ys is not None:
                mask_loc = loc[(xs == -1).view(-1, self.pixels)].view(batch_size, -1)
                mask_ys = ys[xs == -1].view(batch_size, -1)
                pyro.sample(
                    "y", dist.Bernoulli(mask_loc, validate_args=False).to_event(1), obs=mask_ys
                )
            else:
                pyro.deterministic("y", loc.detach())
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                y_hat = self.baseline_net(xs.view(-1, self.pixels)).view(xs.shape)
                inputs = torch.cat([xs.view(-1, self.pixels), y_hat.view(-1, self.pixels)], dim=1)
                loc, scale = self.prior_net(inputs).chunk(2, dim=1)
            else:
                inputs = torch.cat([xs.view(-1, self.pixels), ys.view(-1, self.pixels)], dim=1)
                loc, scale = self.recognition_net(inputs).chunk(2, dim=1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def cvae():
    ys = (torch.rand(40, 3, 3) > 0.5).to(torch.get_default_dtype())
    xs = ys.clone()
    xs[:, 1:, :] = -1.0  # the two lower rows are to be filled in
    program = CVAE()
    return program.model, program.guide, (xs, ys)
