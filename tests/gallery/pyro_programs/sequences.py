"""Programs over time: a deep Markov model, a hidden Markov model, attend-infer-repeat's recurrent inference."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.transforms import affine_autoregressive
from pyro.infer.autoguide import AutoDelta
from torch import nn


class Emitter(nn.Module):
    def __init__(self, input_dim, z_dim, emission_dim):
        super().__init__()
        self.lin_z_to_hidden = nn.Linear(z_dim, emission_dim)
        self.lin_hidden_to_input = nn.Linear(emission_dim, input_dim)

    def forward(self, z_t):
        return torch.sigmoid(self.lin_hidden_to_input(torch.relu(self.lin_z_to_hidden(z_t))))


class GatedTransition(nn.Module):
    def __init__(self, z_dim, transition_dim):
        super().__init__()
        self.lin_gate = nn.Linear(z_dim, z_dim)
        self.lin_proposed = nn.Sequential(
            nn.Linear(z_dim, transition_dim), nn.ReLU(), nn.Linear(transition_dim, z_dim)
        )
        self.lin_sig = nn.Linear(z_dim, z_dim)
        self.lin_z_to_loc = nn.Linear(z_dim, z_dim)

    def forward(self, z_t_1):
        gate = torch.sigmoid(self.lin_gate(z_t_1))
        proposed_mean = self.lin_proposed(z_t_1)
        loc = (1 - gate) * self.lin_z_to_loc(z_t_1) + gate * proposed_mean
        scale = nn.functional.softplus(self.lin_sig(torch.relu(proposed_mean)))
        return loc, scale


class Combiner(nn.Module):
    def __init__(self, z_dim, rnn_dim):
        super().__init__()
        self.lin_z_to_hidden = nn.Linear(z_dim, rnn_dim)
        self.lin_hidden_to_loc = nn.Linear(rnn_dim, z_dim)
        self.lin_hidden_to_scale = nn.Linear(rnn_dim, z_dim)

    def forward(self, z_t_1, h_rnn):
        h_combined = 0.5 * (torch.tanh(self.lin_z_to_hidden(z_t_1)) + h_rnn)
        loc = self.lin_hidden_to_loc(h_combined)
        return loc, nn.functional.softplus(self.lin_hidden_to_scale(h_combined))


def reverse_sequences(mini_batch, seq_lengths):
    reversed_mini_batch = torch.zeros_like(mini_batch)
    for b in range(mini_batch.size(0)):
        T = int(seq_lengths[b])
        reversed_mini_batch[b, :T] = mini_batch[b, :T].flip(0)
    return reversed_mini_batch


class DMM(nn.Module):
    def __init__(
        self, input_dim=5, z_dim=3, emission_dim=8, transition_dim=8, rnn_dim=8, num_iafs=1
    ):
        super().__init__()
        self.emitter = Emitter(input_dim, z_dim, emission_dim)
        self.trans = GatedTransition(z_dim, transition_dim)
        self.combiner = Combiner(z_dim, rnn_dim)
        self.rnn = nn.RNN(input_dim, rnn_dim, nonlinearity="relu", batch_first=True)
        self.iafs = [affine_autoregressive(z_dim, hidden_dims=[8]) for _ in range(num_iafs)]
        self.iafs_modules = nn.ModuleList(self.iafs)
        self.z_0 = nn.Parameter(torch.zeros(z_dim))
        self.z_q_0 = nn.Parameter(torch.zeros(z_dim))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, rnn_dim))

    def model(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        T_max = mini_batch.size(1)
        pyro.module("dmm", self)
        z_prev = self.z_0.expand(mini_batch.size(0), self.z_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, T_max + 1)):
                z_loc, z_scale = self.trans(z_prev)
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(
                        f"z_{t}",
                        dist.Normal(z_loc, z_scale).mask(mini_batch_mask[:, t - 1 : t]).to_event(1),
                    )
                emission_probs_t = self.emitter(z_t)
                pyro.sample(
                    f"obs_x_{t}",
                    dist.Bernoulli(emission_probs_t)
                    .mask(mini_batch_mask[:, t - 1 : t])
                    .to_event(1),
                    obs=mini_batch[:, t - 1, :],
                )
                z_prev = z_t

    def guide(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        T_max = mini_batch.size(1)
        pyro.module("dmm", self)
        h_0_contig = self.h_0.expand(1, mini_batch.size(0), self.rnn.hidden_size).contiguous()
        rnn_output, _ = self.rnn(mini_batch_reversed, h_0_contig)
        rnn_output = reverse_sequences(rnn_output, mini_batch_seq_lengths)
        z_prev = self.z_q_0.expand(mini_batch.size(0), self.z_q_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, T_max + 1)):
                z_loc, z_scale = self.combiner(z_prev, rnn_output[:, t - 1, :])
                z_dist = dist.TransformedDistribution(dist.Normal(z_loc, z_scale), self.iafs)
                assert z_dist.event_shape == (self.z_q_0.size(0),)
                assert z_dist.batch_shape[-1:] == (len(mini_batch),)
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(f"z_{t}", z_dist.mask(mini_batch_mask[:, t - 1]))
                z_prev = z_t


def dmm():
    lengths = torch.randint(2, 5, (20,))
    sequences = (torch.rand(20, 4, 5) > 0.5).to(torch.get_default_dtype())
    mask = (torch.arange(4) < lengths[:, None]).to(sequences.dtype)
    sequences = sequences * mask[..., None]
    program = DMM()
    args = (sequences, reverse_sequences(sequences, lengths), mask, lengths)
    return program.model, program.guide, args


def hmm_model(sequences, lengths, hidden_dim=3, include_prior=True):
    """Pyro's first hidden Markov model of chorales, over ragged sequences."""
    num_sequences, max_length, data_dim = sequences.shape
    with poutine.mask(mask=include_prior):
        probs_x = pyro.sample(
            "probs_x", dist.Dirichlet(0.9 * torch.eye(hidden_dim) + 0.1).to_event(1)
        )
        probs_y = pyro.sample(
            "probs_y", dist.Beta(0.1, 0.9).expand([hidden_dim, data_dim]).to_event(2)
        )
    tones_plate = pyro.plate("tones", data_dim, dim=-1)
    with pyro.plate("sequences", num_sequences, dim=-2):
        x = 0
        for t in pyro.markov(range(max_length)):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                x = pyro.sample(
                    f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                )
                with tones_plate:
                    pyro.sample(
                        f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=sequences[:, t]
                    )


def hmm():
    lengths = torch.randint(2, 5, (16,))
    sequences = (torch.rand(16, 4, 2) > 0.5).to(torch.get_default_dtype())
    guide = AutoDelta(
        poutine.block(hmm_model, expose_fn=lambda msg: msg["name"].startswith("probs_"))
    )
    return hmm_model, guide, (sequences, lengths)


class AIR(nn.Module):
    """Up to two objects in a row of pixels: is there one, where is it, what is it; inference is recurrent."""

    def __init__(self, num_steps=2, pixels=6, z_what_size=2, hidden=12):
        super().__init__()
        self.num_steps, self.pixels, self.z_what_size = num_steps, pixels, z_what_size
        self.decode = nn.Sequential(
            nn.Linear(z_what_size, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Sigmoid()
        )
        self.rnn = nn.LSTMCell(pixels + z_what_size + 2, hidden)
        self.h_init = nn.Parameter(torch.zeros(1, hidden))
        self.c_init = nn.Parameter(torch.zeros(1, hidden))
        self.predict = nn.Linear(hidden, 3)
        self.encode = nn.Linear(pixels + 1, 2 * z_what_size)

    def place(self, z_where, glyph):
        grid = torch.arange(self.pixels, dtype=glyph.dtype) - (self.pixels - 1) / 2
        return glyph * torch.exp(-0.5 * (grid - z_where) ** 2)

    def model_step(self, t, n, prev_x, prev_z_pres):
        z_pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(0.5 * prev_z_pres).to_event(1))
        z_where = pyro.sample(
            f"z_where_{t}",
            dist.Normal(prev_x.new_zeros(n, 1), 1.5).mask(z_pres).to_event(1),
        )
        z_what = pyro.sample(
            f"z_what_{t}",
            dist.Normal(prev_x.new_zeros(n, self.z_what_size), 1.0).mask(z_pres).to_event(1),
        )
        y = self.place(z_where, self.decode(z_what))
        return prev_x + y * z_pres, z_pres

    def model(self, data, batch_size=None):
        pyro.module("decode", self.decode)
        n = data.shape[0]
        with pyro.plate("data", n):
            x = data.new_zeros(n, self.pixels)
            z_pres = data.new_ones(n, 1)
            for t in range(self.num_steps):
                x, z_pres = self.model_step(t, n, x, z_pres)
            pyro.sample("obs", dist.Normal(x, 0.3).to_event(1), obs=data)

    def guide(self, data, batch_size=None):
        pyro.module("rnn", self.rnn), pyro.module("predict", self.predict)
        pyro.module("encode", self.encode)
        h_init = pyro.param("h_init", self.h_init)
        c_init = pyro.param("c_init", self.c_init)
        n = data.shape[0]
        with pyro.plate("data", n):
            h, c = h_init.expand(n, -1), c_init.expand(n, -1)
            z_pres, z_where = data.new_ones(n, 1), data.new_zeros(n, 1)
            z_what = data.new_zeros(n, self.z_what_size)
            for t in range(self.num_steps):
                h, c = self.rnn(torch.cat([data, z_pres, z_where, z_what], 1), (h, c))
                z_pres_p, loc, scale = self.predict(h).split([1, 1, 1], 1)
                z_pres = pyro.sample(
                    f"z_pres_{t}",
                    dist.Bernoulli(
                        torch.sigmoid(z_pres_p) * 0.98 * z_pres + 1e-6 * z_pres
                    ).to_event(1),
                    infer={"baseline": {"use_decaying_avg_baseline": True}},
                )
                z_where = pyro.sample(
                    f"z_where_{t}",
                    dist.Normal(loc, nn.functional.softplus(scale)).mask(z_pres).to_event(1),
                )
                encoded = self.encode(torch.cat([data, z_where], 1))
                z_what_loc, z_what_scale = encoded.chunk(2, 1)
                z_what = pyro.sample(
                    f"z_what_{t}",
                    dist.Normal(z_what_loc, nn.functional.softplus(z_what_scale))
                    .mask(z_pres)
                    .to_event(1),
                )


def attend_infer_repeat():
    data = torch.rand(24, 6)
    program = AIR()
    return program.model, program.guide, (data,)
