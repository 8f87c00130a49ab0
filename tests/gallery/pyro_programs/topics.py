"""Counts: topic models, single-cell counts, a deep exponential family."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
import torch.nn.functional as F
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import config_enumerate
from torch import nn
from torch.distributions import constraints


class TopicEncoder(nn.Module):
    def __init__(self, vocab_size, num_topics, hidden, dropout):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc1 = nn.Linear(vocab_size, hidden)
        self.fcmu = nn.Linear(hidden, num_topics)
        self.fclv = nn.Linear(hidden, num_topics)
        self.bnmu = nn.BatchNorm1d(num_topics, affine=False)
        self.bnlv = nn.BatchNorm1d(num_topics, affine=False)

    def forward(self, inputs):
        h = self.drop(F.softplus(self.fc1(inputs)))
        return self.bnmu(self.fcmu(h)), (0.5 * self.bnlv(self.fclv(h))).exp()


class TopicDecoder(nn.Module):
    def __init__(self, vocab_size, num_topics, dropout):
        super().__init__()
        self.beta = nn.Linear(num_topics, vocab_size, bias=False)
        self.bn = nn.BatchNorm1d(vocab_size, affine=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, inputs):
        return F.softmax(self.bn(self.beta(self.drop(inputs))), dim=1)


class ProdLDA(nn.Module):
    def __init__(self, vocab_size=12, num_topics=3, hidden=16, dropout=0.0):
        super().__init__()
        self.num_topics = num_topics
        self.encoder = TopicEncoder(vocab_size, num_topics, hidden, dropout)
        self.decoder = TopicDecoder(vocab_size, num_topics, dropout)

    def model(self, docs):
        pyro.module("decoder", self.decoder)
        with pyro.plate("documents", docs.shape[0]):
            logtheta_loc = docs.new_zeros((docs.shape[0], self.num_topics))
            logtheta_scale = docs.new_ones((docs.shape[0], self.num_topics))
            logtheta = pyro.sample(
                "logtheta", dist.Normal(logtheta_loc, logtheta_scale).to_event(1)
            )
            theta = F.softmax(logtheta, -1)
            count_param = self.decoder(theta)
            total_count = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total_count, count_param), obs=docs)

    def guide(self, docs):
        pyro.module("encoder", self.encoder)
        with pyro.plate("documents", docs.shape[0]):
            logtheta_loc, logtheta_scale = self.encoder(docs)
            pyro.sample("logtheta", dist.Normal(logtheta_loc, logtheta_scale).to_event(1))


def prodlda():
    docs = torch.poisson(torch.full((40, 12), 2.0))
    program = ProdLDA()
    return program.model, program.guide, (docs,)


def lda_model(data, num_topics=3, num_words=8):
    """Words of documents `(num_words_per_doc, num_docs)`, as Pyro's example has them."""
    num_words_per_doc, num_docs = data.shape
    with pyro.plate("topics", num_topics):
        topic_weights = pyro.sample("topic_weights", dist.Gamma(1.0 / num_topics, 1.0))
        topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(num_words) / num_words))
    with pyro.plate("documents", num_docs):
        doc_topics = pyro.sample("doc_topics", dist.Dirichlet(topic_weights))
        with pyro.plate("words", num_words_per_doc):
            word_topics = pyro.sample(
                "word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"}
            )
            pyro.sample("doc_words", dist.Categorical(topic_words[word_topics]), obs=data)
    return topic_weights, topic_words


class LDAGuide:
    def __init__(self, num_topics=3, num_words=8, hidden=12):
        self.num_topics, self.num_words = num_topics, num_words
        self.predictor = nn.Sequential(
            nn.Linear(num_words, hidden), nn.Sigmoid(), nn.Linear(hidden, num_topics)
        )

    def __call__(self, data, num_topics=3, num_words=8):
        topic_weights_posterior = pyro.param(
            "topic_weights_posterior",
            lambda: torch.ones(self.num_topics),
            constraint=constraints.positive,
        )
        topic_words_posterior = pyro.param(
            "topic_words_posterior",
            lambda: torch.ones(self.num_topics, self.num_words),
            constraint=constraints.positive,
        )
        with pyro.plate("topics", self.num_topics):
            pyro.sample("topic_weights", dist.Gamma(topic_weights_posterior, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(topic_words_posterior))
        pyro.module("predictor", self.predictor)
        with pyro.plate("documents", data.shape[1]):
            counts = torch.zeros(self.num_words, data.shape[1]).scatter_add(
                0, data, torch.ones(data.shape)
            )
            alpha = self.predictor(counts.transpose(0, 1)).softmax(-1) * 10
            pyro.sample("doc_topics", dist.Dirichlet(alpha + 0.1))


def lda():
    data = torch.randint(8, (6, 20))
    return lda_model, LDAGuide(), (data,)


class ScANVI(nn.Module):
    """Labelled cells: two levels of codes, a library size, a classifier beside the bound."""

    def __init__(self, num_genes=8, num_labels=3, latent_dim=2, hidden=12, alpha=0.1):
        super().__init__()
        self.num_labels, self.latent_dim, self.alpha = num_labels, latent_dim, alpha
        self.scale_factor, self.epsilon = 1.0 / 50, 0.006
        self.z2_decoder = nn.Sequential(
            nn.Linear(latent_dim + num_labels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim)
        )
        self.x_decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * num_genes)
        )
        self.z2l_encoder = nn.Sequential(
            nn.Linear(num_genes, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim + 2)
        )
        self.classifier = nn.Linear(latent_dim, num_labels)
        self.z1_encoder = nn.Sequential(
            nn.Linear(latent_dim + num_labels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim)
        )

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        theta = pyro.param(
            "inverse_dispersion",
            10.0 * x.new_ones(x.size(-1)),
            constraint=constraints.positive,
        )
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(self.latent_dim)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(self.num_labels)), obs=y)
            z2_loc, z2_scale = self.z2_decoder(torch.cat([z1, y], -1)).chunk(2, -1)
            z2 = pyro.sample("z2", dist.Normal(z2_loc, F.softplus(z2_scale)).to_event(1))
            library = pyro.sample("l", dist.LogNormal(2.5, 0.5 * x.new_ones(1)).to_event(1))
            gate_logits, mu = self.x_decoder(z2).chunk(2, -1)
            mu = mu.softmax(-1)
            nb_logits = (library * mu + self.epsilon).log() - (theta + self.epsilon).log()
            x_dist = dist.ZeroInflatedNegativeBinomial(
                gate_logits=gate_logits, total_count=theta, logits=nb_logits
            )
            pyro.sample("x", x_dist.to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            encoded = self.z2l_encoder(torch.log1p(x))
            sizes = [self.latent_dim, self.latent_dim, 1, 1]
            z2_loc, z2_scale, l_loc, l_scale = encoded.split(sizes, -1)
            pyro.sample("l", dist.LogNormal(2.5 + l_loc, F.softplus(l_scale)).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z2_loc, F.softplus(z2_scale)).to_event(1))
            y_dist = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", y_dist)
            else:
                classification_loss = y_dist.log_prob(y)
                pyro.factor(
                    "classification_loss", -self.alpha * classification_loss, has_rsample=False
                )
            z1_loc, z1_scale = self.z1_encoder(torch.cat([z2, y], -1)).chunk(2, -1)
            pyro.sample("z1", dist.Normal(z1_loc, F.softplus(z1_scale)).to_event(1))


def scanvi():
    x = torch.poisson(torch.full((40, 8), 2.0))
    y = F.one_hot(torch.arange(40) % 3, 3).to(x.dtype)
    program = ScANVI()
    return program.model, program.guide, (x, y)


class SparseGammaDEF:
    """Two levels of sparse gamma codes over counts; its weights are global."""

    def __init__(self, top_width=2, bottom_width=3, image_size=6):
        self.top_width, self.bottom_width, self.image_size = top_width, bottom_width, image_size
        self.alpha_z, self.alpha_w, self.beta_w = 0.5, 0.5, 0.5

    def model(self, x):
        x_size = x.size(0)
        with pyro.plate("w_top_plate", self.top_width * self.bottom_width):
            w_top = pyro.sample("w_top", dist.Gamma(self.alpha_w, self.beta_w))
        with pyro.plate("w_bottom_plate", self.bottom_width * self.image_size):
            w_bottom = pyro.sample("w_bottom", dist.Gamma(self.alpha_w, self.beta_w))
        with pyro.plate("data", x_size):
            z_top = pyro.sample(
                "z_top", dist.Gamma(self.alpha_z, 1.0).expand([self.top_width]).to_event(1)
            )
            w_top = w_top.reshape(self.top_width, self.bottom_width)
            mean_bottom = torch.matmul(z_top, w_top)
            z_bottom = pyro.sample(
                "z_bottom", dist.Gamma(self.alpha_z, self.alpha_z / mean_bottom).to_event(1)
            )
            w_bottom = w_bottom.reshape(self.bottom_width, self.image_size)
            mean_obs = torch.matmul(z_bottom, w_bottom)
            pyro.sample("obs", dist.Poisson(mean_obs).to_event(1), obs=x)

    def guide(self, x):
        x_size = x.size(0)

        def sample_zs(name, width):
            loc = pyro.param(f"log_mean_q_{name}", lambda: 0.5 + 0.1 * torch.randn(x_size, width))
            scale = pyro.param(
                f"scale_q_{name}",
                lambda: torch.full((x_size, width), 0.2),
                constraint=constraints.positive,
            )
            pyro.sample(name, dist.LogNormal(loc, scale).to_event(1))

        def sample_ws(name, width):
            loc = pyro.param(f"log_mean_q_{name}", lambda: 0.1 * torch.randn(width))
            scale = pyro.param(
                f"scale_q_{name}",
                lambda: torch.full((width,), 0.2),
                constraint=constraints.positive,
            )
            pyro.sample(name, dist.LogNormal(loc, scale))

        with pyro.plate("w_top_plate", self.top_width * self.bottom_width):
            sample_ws("w_top", self.top_width * self.bottom_width)
        with pyro.plate("w_bottom_plate", self.bottom_width * self.image_size):
            sample_ws("w_bottom", self.bottom_width * self.image_size)
        with pyro.plate("data", x_size):
            sample_zs("z_top", self.top_width)
            sample_zs("z_bottom", self.bottom_width)


class RatesEasyGuide(EasyGuide):
    """The latents of a datum in one group; those of all data in another, and a point."""

    def guide(self, x):
        shared = self.group(match="log_rate|log_width")
        loc = pyro.param("shared_loc", lambda: torch.zeros(shared.event_shape))
        scale_tril = pyro.param(
            "shared_scale", lambda: 0.1 * torch.eye(2), constraint=constraints.lower_cholesky
        )
        shared.sample("shared", dist.MultivariateNormal(loc, scale_tril=scale_tril))
        self.map_estimate("offset")
        local = self.group(match="z_.*")
        with self.plate("data", len(x)):
            shape = (len(x), *local.event_shape)
            loc = pyro.param("codes_loc", lambda: torch.zeros(shape), event_dim=1)
            scale = pyro.param(
                "codes_scale",
                lambda: torch.full(shape, 0.2),
                constraint=constraints.positive,
                event_dim=1,
            )
            local.sample("zs", dist.Normal(loc, scale).to_event(1))


def rates_model(x):
    log_rate = pyro.sample("log_rate", dist.Normal(1.0, 1.0))
    log_width = pyro.sample("log_width", dist.Normal(-1.0, 0.5))
    offset = pyro.sample("offset", dist.Normal(0.0, 0.1))
    with pyro.plate("data", len(x)):
        z_rate = pyro.sample("z_rate", dist.Normal(log_rate + offset, log_width.exp()))
        z_scale = pyro.sample("z_scale", dist.LogNormal(0.0, 0.2))
        pyro.sample("x", dist.Poisson(z_scale * z_rate.exp()), obs=x)


def sparse_gamma():
    x = torch.poisson(torch.full((24, 6), 3.0))
    program = SparseGammaDEF()
    return program.model, program.guide, (x,)


def easy_guide():
    return rates_model, RatesEasyGuide(rates_model), (torch.poisson(torch.full((15,), 3.0)),)


def gaussian_mixture():
    """Pyro's tutorial: global weights and means at points, the assignments summed out."""
    from pyro.infer.autoguide import AutoDelta

    data = torch.cat([torch.randn(15) - 3.0, torch.randn(15) + 3.0])
    K = 2

    @config_enumerate
    def model(data):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(K)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", K):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    guide = AutoDelta(poutine.block(model, expose=["weights", "locs", "scale"]))
    return model, guide, (data,)
