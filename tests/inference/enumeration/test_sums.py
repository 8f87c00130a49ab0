"""Sites that are summed over: every weight against a brute-force sum, every loss against Pyro's own estimator."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_sample
from pyro.ops.indexing import Vindex
from torch import nn
from torch.distributions import constraints

import pyro_dgm as dgm
from pyro_dgm.inference.enumeration import layouts
from pyro_dgm.inference.run.particles import draw
from pyro_dgm.inference.run.sessions import session

NUM_TOPICS, NUM_WORDS, NUM_STATES = 3, 5, 3


@pytest.fixture(autouse=True)
def empty_store():
    """Programs that name their parameters by `pyro.module`, and AutoGuides, leave some behind."""
    yield
    pyro.clear_param_store()


def same_loss(model, guide, depth, *batch, **options):
    """Our loss and Pyro's under one seed, in nats per datum."""
    objective = dgm.ELBO(model, guide, **options)
    objective.preflight(*batch)
    pyro.set_rng_seed(3)
    ours = objective(*batch)
    pyro.set_rng_seed(3)
    elbo = TraceEnum_ELBO(max_plate_nesting=depth, strict_enumeration_warning=False, **options)
    theirs = elbo.differentiable_loss(model, guide, *batch) / len(batch[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    return objective


# A semi-supervised VAE, as in Pyro's example ------------------------------------------------------------------------


class SSVAE(nn.Module):
    """x of four bits, y one of three labels, z of two numbers."""

    aux_loss_multiplier = 7.0

    def __init__(self):
        super().__init__()
        self.encoder_y = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
        self.encoder_z = nn.Linear(7, 4)
        with torch.no_grad():
            self.encoder_z.weight *= 0.2  # near the prior, so that the weights are even
        self.decoder = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Sigmoid())

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        with pyro.plate("data"):
            prior_loc = torch.zeros(batch_size, 2)
            zs = pyro.sample("z", dist.Normal(prior_loc, torch.ones(batch_size, 2)).to_event(1))
            alpha_prior = torch.ones(batch_size, 3) / 3.0
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            loc = self.decoder(joined(zs, ys))
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(self.encoder_y(xs)))
            loc, log_scale = self.encoder_z(joined(xs, ys)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def model_classify(self, xs, ys=None):
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            if ys is not None:
                alpha = self.encoder_y(xs)
                with poutine.scale(scale=self.aux_loss_multiplier):
                    pyro.sample("y_aux", dist.OneHotCategorical(alpha), obs=ys)

    def guide_classify(self, xs, ys=None):
        """No latents."""

    def guide_with_factor(self, xs, ys=None):
        """The label's own loss as a factor of the guide."""
        self.guide(xs, ys)
        if ys is not None:
            with pyro.plate("data"), poutine.scale(scale=self.aux_loss_multiplier):
                log_q = dist.OneHotCategorical(self.encoder_y(xs)).log_prob(ys)
                pyro.factor("y_aux", -log_q, has_rsample=True)

    def log_evidence(self, xs):
        """By quadrature over z, 60 x 60 points, and a sum over the labels."""
        grid = torch.linspace(-7, 7, 141)
        z = torch.cartesian_prod(grid, grid)
        log_cell = 2 * (grid[1] - grid[0]).log()
        log_prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + log_cell
        total = []
        for y in torch.eye(3):
            loc = self.decoder(joined(z, y.expand(len(z), 3)))
            log_x = dist.Bernoulli(loc).log_prob(xs[:, None]).sum(-1)
            total.append((log_x + log_prior).logsumexp(-1) - torch.tensor(3.0).log())
        return torch.stack(total).logsumexp(0)


def joined(*values):
    """As Pyro's example joins its inputs: broadcast to one shape."""
    shape = torch.broadcast_shapes(*[value.shape[:-1] for value in values])
    return torch.cat([value.expand(*shape, value.shape[-1]) for value in values], -1)


def bits(num=6):
    return torch.distributions.Bernoulli(0.5 * torch.ones(num, 4)).sample()


@pytest.mark.parametrize("expand", [False, True])
def test_the_unlabelled_pair_trains_as_traceenum_elbo_and_its_weights_sum_over_the_label(expand):
    """Quadrature is exact to 1e-6; 5 standard errors of the mean over the data."""
    vae, x = SSVAE(), bits()
    guide = config_enumerate(vae.guide, "parallel", expand=expand)
    objective = same_loss(vae.model, guide, 1, x)
    assert objective.preflight(x).summed == ("y",)
    result = dgm.nll(vae.model, guide, x, num=4000)
    error = result.monte_carlo.square().sum().sqrt() / len(x)
    exact = -vae.log_evidence(x).detach().double()
    assert (result.per_datum - exact).mean().abs() < 5 * error
    assert error < 0.02
    assert result.kind.value == "upper bound in expectation"


def test_the_labelled_pair_draws_z_alone():
    vae, x = SSVAE(), bits()
    y = torch.eye(3)[torch.arange(len(x)) % 3]
    guide = config_enumerate(vae.guide)
    objective = same_loss(vae.model, guide, 1, x, y)
    assert objective.preflight(x, y).summed == ()
    assert set(objective.terms(x, y)) == {"loss", "nelbo", "rec[x]", "rec[y]", "kl[z]"}
    assert dgm.nll(vae.model, guide, x, y, num=50).per_datum.isfinite().all()


def test_one_objective_sums_over_labels_where_none_are_given():
    vae, x = SSVAE(), bits()
    y = torch.eye(3)[torch.arange(len(x)) % 3]
    objective = dgm.ELBO(vae.model, config_enumerate(vae.guide))
    objective.preflight(x, y)
    assert set(objective.terms(x)) == {"loss", "nelbo"}
    assert "kl[z]" in objective.terms(x, y)
    objective.preflight(x)
    assert "kl[z]" in objective.terms(x, y)


def test_what_is_summed_depends_on_which_arguments_are_given_not_on_how_many():
    vae, x = SSVAE(), bits()
    y = torch.eye(3)[torch.arange(len(x)) % 3]

    def model(x, y=None, option=None):
        return vae.model(x, y)

    @config_enumerate
    def guide(x, y=None, option=None):
        return vae.guide(x, y)

    objective = dgm.ELBO(model, guide)
    assert "kl[z]" in objective.terms(x, y, None)
    assert set(objective.terms(x, None, 1.0)) == {"loss", "nelbo"}


def test_the_loss_of_the_label_alone_is_a_pair_of_its_own():
    vae, x = SSVAE(), bits()
    y = torch.eye(3)[torch.arange(len(x)) % 3]
    same_loss(vae.model_classify, vae.guide_classify, 1, x, y)
    log_q = dist.OneHotCategorical(vae.encoder_y(x)).log_prob(y)
    result = dgm.nll(vae.model_classify, vae.guide_classify, x, y, num=5)
    torch.testing.assert_close(result.per_datum, -log_q.detach().double())


def test_a_factor_of_the_guide_is_part_of_the_loss_and_of_no_weight():
    vae, x = SSVAE(), bits()
    y = torch.eye(3)[torch.arange(len(x)) % 3]
    same_loss(vae.model, config_enumerate(vae.guide_with_factor), 1, x, y)
    same_loss(vae.model, config_enumerate(vae.guide_with_factor), 1, x)
    plain = dgm.nll(vae.model, vae.guide, x, y, num=20).per_datum
    with_factor = dgm.nll(vae.model, vae.guide_with_factor, x, y, num=20).per_datum
    torch.testing.assert_close(with_factor, plain)


def test_a_label_that_the_guide_alone_draws_is_summed_exactly_whatever_its_probabilities():
    class Labels(nn.Module):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(logits=torch.tensor([0.5, 0.0, -1.0])))
                pyro.sample("x", dist.Normal(y.float(), 1.0), obs=x)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 3)

        @config_enumerate
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Categorical(logits=self.net(x[:, None])))

    x = torch.randn(8)
    prior = torch.tensor([0.5, 0.0, -1.0]).log_softmax(0)
    exact = (prior + dist.Normal(torch.arange(3.0), 1.0).log_prob(x[:, None])).logsumexp(1)
    model, guide = Labels(), Guide()
    result = dgm.nll(model, guide, x, num=10)
    torch.testing.assert_close(result.per_datum, -exact.double(), rtol=1e-5, atol=1e-5)
    assert result.kind.value == "exact"
    same_loss(model, guide, 1, x)
    same_loss(model, guide, 1, x, num_particles=3)


# Enumeration in both programs ---------------------------------------------------------------------------------------


class Both(nn.Module):
    """a is enumerated in the guide, b in the model alone, z is drawn between them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.5]]))
        self.rates = nn.Parameter(torch.tensor([0.2, 0.7, 0.4]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            z = pyro.sample("z", dist.Normal(a.float(), 1.0))
            b = pyro.sample(
                "b", dist.Bernoulli(self.rates[a]), infer={"enumerate": "parallel"}
            ).long()
            loc = z + Vindex(self.table)[a, b]
            pyro.sample("x", dist.Normal(loc, 0.5), obs=x)

    def log_evidence(self, x):
        total = []
        for a, p_a in enumerate((0.2, 0.3, 0.5)):
            for b in (0, 1):
                p_b = self.rates[a] if b else 1 - self.rates[a]
                law = dist.Normal(a + self.table[a, b], 1.25**0.5)
                total.append(law.log_prob(x) + (p_a * p_b).log())
        return torch.stack(total).logsumexp(0)


class GuideOfBoth(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel"}
            a = pyro.sample("a", dist.Categorical(logits=self.net(x[:, None])), infer=infer)
            pyro.sample("z", dist.Normal(0.5 * (x + a), 1.2))


def test_sites_of_both_programs_are_summed_within_the_error_of_the_draws():
    """5 standard errors of the mean over the data."""
    model, guide, x = Both(), GuideOfBoth(), torch.randn(10)
    objective = same_loss(model, guide, 1, x)
    assert set(objective.preflight(x).summed) == {"a", "b"}
    result = dgm.nll(model, guide, x, num=4000)
    error = result.monte_carlo.square().sum().sqrt() / len(x)
    assert (result.per_datum + model.log_evidence(x).double()).mean().abs() < 5 * error
    assert error < 0.02


def test_a_pair_that_is_read_has_the_draws_of_its_guide_and_the_sums_of_its_model():
    """`Session.draw`: a is drawn, b is summed; the density is that of a brute-force sum at the draws."""
    model, guide, x = Both(), GuideOfBoth(), torch.randn(4)
    with session(model, guide, x, num=6) as pair:
        particles = pair.draw()
    a, z = particles.values["a"].long(), particles.values["z"]
    p_b = model.rates[a]
    terms = [
        (1 - p_b).log() + dist.Normal(z + model.table[a, 0], 0.5).log_prob(x),
        p_b.log() + dist.Normal(z + model.table[a, 1], 0.5).log_prob(x),
    ]
    log_x = torch.logsumexp(torch.stack(terms), 0)
    torch.testing.assert_close(particles.log_p["x"], log_x.double(), rtol=1e-5, atol=1e-5)
    log_prior = dist.Normal(a.float(), 1.0).log_prob(z) + torch.tensor([0.2, 0.3, 0.5]).log()[a]
    expected = (log_x + log_prior).double()
    torch.testing.assert_close(particles.log_joint, expected, rtol=1e-5, atol=1e-5)
    assert set(particles.log_p) == {"a", "z", "x"}


# Topics: a plate of words inside that of documents ------------------------------------------------------------------


class Topics(nn.Module):
    """Latent Dirichlet allocation with given topics; a row of x is a document."""

    def __init__(self):
        super().__init__()
        self.topic_words = nn.Parameter(torch.randn(NUM_TOPICS, NUM_WORDS))

    def forward(self, x):
        words = self.topic_words.softmax(-1)
        with pyro.plate("documents", len(x), dim=-1):
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(torch.ones(NUM_TOPICS)))
            with pyro.plate("words", x.shape[1], dim=-2):
                word_topics = pyro.sample(
                    "word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"}
                )
                pyro.sample("doc_words", dist.Categorical(words[word_topics]), obs=x.T)


class GuideOfTopics(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(NUM_WORDS, NUM_TOPICS)

    def forward(self, x):
        counts = nn.functional.one_hot(x, NUM_WORDS).sum(1).to(self.net.weight)
        with pyro.plate("documents", len(x), dim=-1):
            pyro.sample("doc_topics", dist.Dirichlet(self.net(counts).exp()))


def test_words_are_summed_inside_their_document():
    model, guide = Topics(), GuideOfTopics()
    x = torch.randint(NUM_WORDS, (7, 6))
    same_loss(model, guide, 2, x)
    with session(model, guide, x, num=5) as pair:
        particles = pair.draw()
    theta = particles.values["doc_topics"]  # (K, N, T)
    words = model.topic_words.softmax(-1)
    log_x = (theta @ words).log()  # (K, N, W)
    log_x = log_x.gather(-1, x.expand(5, 7, 6)).sum(-1)
    torch.testing.assert_close(particles.log_p["doc_words"], log_x.double(), rtol=1e-5, atol=1e-5)
    result = dgm.nll(model, guide, x, num=100)
    assert result.measure.value == "mass"
    assert dgm.nll(model, guide, x, num=100, chunk=150).per_datum.isfinite().all()


class PyrosTopics(nn.Module):
    """Pyro's example `lda.py`: data are columns, topics and documents both at dim -1, a Delta for each document."""

    def __init__(self, num_docs):
        super().__init__()
        self.num_docs = num_docs
        self.predictor = nn.Sequential(
            nn.Linear(NUM_WORDS, 8), nn.Sigmoid(), nn.Linear(8, NUM_TOPICS), nn.Softmax(-1)
        )

    def model(self, data=None, batch_size=None):
        with pyro.plate("topics", NUM_TOPICS):
            topic_weights = pyro.sample("topic_weights", dist.Gamma(1.0 / NUM_TOPICS, 1.0))
            topic_words = pyro.sample(
                "topic_words", dist.Dirichlet(torch.ones(NUM_WORDS) / NUM_WORDS)
            )
        with pyro.plate("documents", self.num_docs) as ind:
            if data is not None:
                data = data[:, ind]
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(topic_weights))
            with pyro.plate("words", 6):
                word_topics = pyro.sample(
                    "word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"}
                )
                data = pyro.sample(
                    "doc_words", dist.Categorical(topic_words[word_topics]), obs=data
                )
        return topic_weights, topic_words, data

    def guide(self, data, batch_size=None):
        topic_weights_posterior = pyro.param(
            "topic_weights_posterior",
            lambda: torch.ones(NUM_TOPICS),
            constraint=constraints.positive,
        )
        topic_words_posterior = pyro.param(
            "topic_words_posterior",
            lambda: torch.ones(NUM_TOPICS, NUM_WORDS),
            constraint=constraints.greater_than(0.5),
        )
        with pyro.plate("topics", NUM_TOPICS):
            pyro.sample("topic_weights", dist.Gamma(topic_weights_posterior, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(topic_words_posterior))
        pyro.module("predictor", self.predictor)
        with pyro.plate("documents", self.num_docs, batch_size) as ind:
            data = data[:, ind]
            counts = torch.zeros(NUM_WORDS, ind.size(0)).scatter_add(
                0, data, torch.ones(data.shape)
            )
            doc_topics = self.predictor(counts.transpose(0, 1))
            pyro.sample("doc_topics", dist.Delta(doc_topics, event_dim=1))


def test_topics_of_pyros_example_are_weighed_as_a_whole():
    lda, x = PyrosTopics(12), torch.randint(NUM_WORDS, (6, 12))
    same_loss(lda.model, lda.guide, 2, x)
    with session(lda.model, lda.guide, x, num=3) as pair:
        particles = pair.draw()
    for k in range(3):
        theta = particles.values["doc_topics"][k].reshape(12, NUM_TOPICS)
        words = particles.values["topic_words"][k].reshape(NUM_TOPICS, NUM_WORDS)
        weights = particles.values["topic_weights"][k].reshape(NUM_TOPICS)
        prior_of_words = dist.Dirichlet(torch.ones(NUM_WORDS) / NUM_WORDS)
        log_w = (
            (theta @ words).log().gather(1, x.T).sum()
            + dist.Dirichlet(weights).log_prob(theta).sum()
            + dist.Gamma(1.0 / NUM_TOPICS, 1.0).log_prob(weights).sum()
            + prior_of_words.log_prob(words).sum()
            - dist.Gamma(torch.ones(NUM_TOPICS), 1.0).log_prob(weights).sum()
            - dist.Dirichlet(torch.ones(NUM_TOPICS, NUM_WORDS)).log_prob(words).sum()
        )
        torch.testing.assert_close(particles.log_weight_of_set[k], log_w, rtol=1e-5, atol=1e-5)


# A hidden Markov model ----------------------------------------------------------------------------------------------


def hmm(x, lengths):
    """Pyro's `model_1` with the tones as one event: global transitions and emissions, sequences of several lengths."""
    probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(NUM_STATES) + 0.1).to_event(1))
    probs_y = pyro.sample(
        "probs_y", dist.Beta(torch.ones(NUM_STATES, 4), torch.ones(NUM_STATES, 4)).to_event(2)
    )
    with pyro.plate("sequences", len(x), dim=-1):
        state = 0
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                state = pyro.sample(
                    f"x_{t}",
                    dist.Categorical(Vindex(probs_x)[..., state, :]),
                    infer={"enumerate": "parallel"},
                )
                emission = dist.Bernoulli(Vindex(probs_y)[..., state, :]).to_event(1)
                pyro.sample(f"y_{t}", emission, obs=x[:, t])


def forward_algorithm(probs_x, probs_y, x, lengths):
    """Log likelihood of each sequence `(N,)`, in float64."""
    found = []
    for sequence, length in zip(x, lengths, strict=True):
        alpha = probs_x.double()[0].log()
        for t in range(int(length)):
            if t > 0:
                alpha = (alpha[:, None] + probs_x.double().log()).logsumexp(0)
            alpha = alpha + dist.Bernoulli(probs_y.double()).log_prob(sequence[t]).sum(-1)
        found.append(alpha.logsumexp(0))
    return torch.stack(found)


def test_a_hidden_markov_model_has_the_likelihood_of_the_forward_algorithm():
    x, lengths = torch.bernoulli(0.5 * torch.ones(5, 6, 4)), torch.tensor([6, 2, 4, 1, 5])
    guide = AutoNormal(poutine.block(hmm, expose=["probs_x", "probs_y"]))
    same_loss(hmm, guide, 1, x, lengths)
    with session(hmm, guide, x, lengths, num=3) as pair:
        particles = pair.draw()
    assert len(particles.log_p) == 1
    assert particles.sites_of(next(iter(particles.log_p))) == tuple(f"y_{t}" for t in range(6))
    for k in range(3):
        probs_x = particles.values["probs_x"][k].reshape(NUM_STATES, NUM_STATES)
        probs_y = particles.values["probs_y"][k].reshape(NUM_STATES, 4)
        exact = forward_algorithm(probs_x, probs_y, x, lengths)
        torch.testing.assert_close(particles.local_log_weight[k], exact, rtol=1e-5, atol=1e-5)


def model_1(sequences, lengths, include_prior=True):
    """Pyro's own, of its example `hmm.py`: the sequences at dim -2, the tones at dim -1."""
    num_sequences, max_length, data_dim = sequences.shape
    with poutine.mask(mask=include_prior):
        probs_x = pyro.sample(
            "probs_x",
            dist.Dirichlet(0.9 * torch.eye(NUM_STATES) + 0.1).to_event(1),
        )
        probs_y = pyro.sample(
            "probs_y",
            dist.Beta(0.1, 0.9).expand([NUM_STATES, data_dim]).to_event(2),
        )
    tones_plate = pyro.plate("tones", data_dim, dim=-1)
    with pyro.plate("sequences", num_sequences, dim=-2):
        x = 0
        for t in pyro.markov(range(max_length)):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                x = pyro.sample(
                    f"x_{t}",
                    dist.Categorical(probs_x[x]),
                    infer={"enumerate": "parallel"},
                )
                with tones_plate:
                    pyro.sample(
                        f"y_{t}",
                        dist.Bernoulli(probs_y[x.squeeze(-1)]),
                        obs=sequences[:, t],
                    )


def test_the_hidden_markov_model_of_pyros_example_weighs_the_whole_set():
    x, lengths = torch.bernoulli(0.5 * torch.ones(5, 6, 4)), torch.tensor([6, 2, 4, 1, 5])
    guide = AutoDelta(
        poutine.block(model_1, expose=["probs_x", "probs_y"]), init_loc_fn=init_to_sample
    )
    same_loss(model_1, guide, 2, x, lengths)
    with session(model_1, guide, x, lengths, num=2) as pair:
        particles = pair.draw()
    probs_x = particles.values["probs_x"][0].reshape(NUM_STATES, NUM_STATES)
    probs_y = particles.values["probs_y"][0].reshape(NUM_STATES, 4)
    log_x = forward_algorithm(probs_x, probs_y, x, lengths).sum()
    prior_x = dist.Dirichlet(0.9 * torch.eye(NUM_STATES) + 0.1).to_event(1)
    prior_y = dist.Beta(0.1, 0.9).expand([NUM_STATES, 4]).to_event(2)
    log_prior = prior_x.log_prob(probs_x) + prior_y.log_prob(probs_y)
    expected = (log_x + log_prior).expand(2)
    torch.testing.assert_close(particles.log_weight_of_set, expected, rtol=1e-5, atol=1e-5)


# A mixture with global parameters -----------------------------------------------------------------------------------


@config_enumerate
def mixture(data):
    """The model of Pyro's tutorial on Gaussian mixtures."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(3)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 3):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


@pytest.mark.parametrize("auto", [AutoDelta, AutoNormal])
def test_a_mixture_with_global_parameters_weighs_the_whole_set(auto):
    data = torch.tensor([0.13, 1.21, 10.3, 11.4, 12.2, -3.6])
    hidden = poutine.block(mixture, hide_fn=lambda site: site["name"] in ("assignment", "obs"))
    guide = auto(hidden)
    objective = same_loss(mixture, guide, 1, data)
    assert objective.preflight(data).summed == ("assignment",)
    with session(mixture, guide, data, num=4) as pair:
        particles = pair.draw()
    for k in range(4):
        weights, scale, locs = [
            particles.values[name][k].reshape(shape)
            for name, shape in (("weights", (3,)), ("scale", ()), ("locs", (3,)))
        ]
        log_x = (weights.log() + dist.Normal(locs, scale).log_prob(data[:, None])).logsumexp(1)
        log_prior = (
            dist.Dirichlet(0.5 * torch.ones(3)).log_prob(weights)
            + dist.LogNormal(0.0, 2.0).log_prob(scale)
            + dist.Normal(0.0, 10.0).log_prob(locs).sum()
        )
        log_q = sum([value[k] for value in particles.shared_q.values()])
        expected = (log_x.sum() + log_prior).double() - log_q
        torch.testing.assert_close(particles.log_weight_of_set[k], expected, rtol=1e-5, atol=1e-5)


@config_enumerate
def broadcasting_mixture(data):
    """The same, written so that it takes particles in a plate."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(3)))
    locs = pyro.sample("locs", dist.Normal(torch.zeros(3), 10.0).to_event(1))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(Vindex(locs)[..., assignment], 1.0), obs=data)


def test_particles_of_global_parameters_share_one_run():
    data = torch.randn(6)
    guide = AutoNormal(poutine.block(broadcasting_mixture, expose=["weights", "locs"]))
    same_loss(broadcasting_mixture, guide, 1, data)
    with session(broadcasting_mixture, guide, data, num=4) as pair:
        assert pair.structure.particles.value == "by plate"
        particles = pair.draw()
        task = layouts.Summation(*pair.programs, pair.batch, 4, 1, particles.pair)
        sums = layouts._by_plate(task)  # no run of its own for every particle
    weights = particles.values["weights"].reshape(4, 1, 3)
    locs = particles.values["locs"].reshape(4, 1, 3)
    log_x = (weights.log() + dist.Normal(locs, 1.0).log_prob(data[:, None])).logsumexp(-1)
    torch.testing.assert_close(particles.log_p["obs"], log_x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.log_p["obs"], log_x, rtol=1e-5, atol=1e-5)


def test_a_minibatch_of_summed_data_is_divided_by_the_full_size():
    loc = nn.Parameter(torch.tensor(3.0))

    def model(x):
        with pyro.plate("data", 60, subsample=torch.arange(len(x))):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc * c, 1.0), obs=x)

    x = torch.randn(6)
    p = torch.tensor([0.7, 0.3])
    log_x = (p.log() + dist.Normal(torch.tensor([0.0, 3.0]), 1.0).log_prob(x[:, None])).logsumexp(1)
    objective = dgm.ELBO(model, lambda x: None, size=60)
    objective.preflight(x)
    torch.testing.assert_close(objective(x), -log_x.mean(), rtol=1e-5, atol=1e-5)
    assert set(objective.terms(x)) == {"loss", "nelbo"}


def test_values_that_come_one_after_the_other_are_summed_in_training_and_drawn_in_weights():
    """`infer={"enumerate": "sequential"}`: the guide may branch on the value."""
    model, x = Both(), torch.randn(5)

    def guide(x):
        with pyro.plate("data", len(x)):
            law = dist.Categorical(logits=torch.zeros(3))
            a = pyro.sample("a", law, infer={"enumerate": "sequential"})
            pyro.sample("z", dist.Normal(0.5 * (x + a), 1.2))

    same_loss(model, guide, 1, x)
    result = dgm.nll(model, guide, x, num=4000)
    error = result.monte_carlo.square().sum().sqrt() / len(x)
    assert (result.per_datum + model.log_evidence(x).double()).mean().abs() < 5 * error


def test_the_trainer_takes_a_mixture_as_it_is():
    pyro.clear_param_store()
    data = torch.cat([torch.randn(30) - 4, torch.randn(30) + 4])
    guide = AutoDelta(poutine.block(mixture, expose=["weights", "locs", "scale"]))
    trainer = dgm.SVITrainer(dgm.ELBO(mixture, guide), lr=0.05)
    history = trainer.fit(data, epochs=40, batch_size=60, progress=False)
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.1


def test_what_a_loss_sums_over_is_found_anew_after_a_run_that_failed():
    """An empty answer that is kept would draw the site in every later step."""
    is_broken, loc = [True], nn.Parameter(torch.tensor(1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            if is_broken:
                raise ConnectionError("no data base")
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc * c, 1.0), obs=x)

    objective, x = dgm.ELBO(model, lambda x: None), torch.randn(5)
    with pytest.raises(ConnectionError, match="no data base"):
        objective(x)
    is_broken.clear()
    exact = torch.stack([dist.Normal(c, 1.0).log_prob(x) for c in (0.0, 1.0)], -1)
    exact = -(exact + torch.tensor([0.7, 0.3]).log()).logsumexp(-1).mean()
    torch.testing.assert_close(objective(x), exact)


def test_a_refused_weight_is_refused_again():
    objective, x = dgm.ELBO(Both(), GuideOfBoth(), beta={"z": 0.5}), torch.randn(4)
    for _ in range(2):
        with pytest.raises(ValueError, match="expected no beta beside the summed sites"):
            objective(x)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"beta": {"z": 0.5}}, {"free_bits": {"z": 1.0}}, {"analytic_kl": True}]
)
def test_a_sum_has_no_share_of_a_site(options):
    model, guide, x = Both(), GuideOfBoth(), torch.randn(4)
    name = next(iter(options))
    message = rf"expected no {name} beside the summed sites \['b', 'a'\].*Fix: without {name}"
    with pytest.raises(ValueError, match=message):
        dgm.ELBO(model, guide, **options).preflight(x)
    with pytest.raises(ValueError, match=message):
        dgm.ELBO(model, guide, **options)(x)


def test_a_weighted_bound_sums_over_nothing():
    with pytest.raises(ValueError, match=r"IWELBO: expected latents.*Fix: ELBO\(model, guide\)"):
        dgm.IWELBO(Both(), GuideOfBoth()).preflight(torch.randn(4))


def test_a_network_that_takes_no_dim_of_values_is_refused_with_the_fix():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            assert c.shape == (len(x),)
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"(?s)over all values of a site.*Fix: index dims"):
        dgm.nll(model, dgm.EmptyGuide(), torch.randn(4), num=2)


def test_what_no_layout_runs_names_what_the_first_of_them_raised():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            if c.shape != (len(x),):
                raise RuntimeError(f"no labels of shape {tuple(c.shape)}")
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"(?s)over all values of a site.*shape \(2, 1\)"
    ) as caught:
        dgm.nll(model, dgm.EmptyGuide(), torch.randn(4), num=3)
    assert [note.partition(":")[0] for note in caught.value.__notes__] == [
        "Before, by rows",
        "Before, by plate",
    ]


def test_an_error_that_is_none_of_shapes_ends_a_sum_at_once():
    """A mistake of the program's own is no reason for slower layouts, one after the other."""
    runs = []

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            if c.shape == (2, 1):
                runs.append(len(x))
                raise KeyError("label")
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(KeyError, match="label"):
        dgm.nll(model, dgm.EmptyGuide(), torch.randn(4), num=3)
    assert len(runs) == 1


def test_draws_of_a_pair_whose_guide_sums_are_none():
    model, guide, x = Both(), GuideOfBoth(), torch.randn(4)
    particles = draw(model, guide, x, num=3, depth=1, sum_guide=True)
    assert particles.values == {}
    assert particles.log_weight.shape == (3, 4)


def test_a_sum_over_a_few_draws_is_none():
    """`num_samples` is for Pyro's tensor Monte Carlo: a weight can't be exact in such a site."""

    def model(x):
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel", "num_samples": 3}
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=infer)
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    message = r"same latent sites.*Fix: infer={'enumerate': 'parallel'} at 'c', to sum over"
    with pytest.raises(ValueError, match=message):
        dgm.nll(model, dgm.EmptyGuide(), torch.randn(4), num=2)
