"""Compressed data come back bit for bit, and take the bits of the bound."""

import subprocess
import sys
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.compression.planning import num_lanes, sizes_of_blocks
from pyro_dgm.files.errors import FileError
from pyro_dgm.results import Compressed

N, D, Z = 30, 6, 2


@pytest.mark.parametrize("given", [b"junk", "runs/data.bin", None])
def test_decompress_takes_what_compress_has_returned_and_says_so(given):
    vae = dgm.VAE(
        dgm.StandardNormal(2),
        dgm.Bernoulli(dgm.mlp(2, 9)),
        dgm.Conditional(dist.Normal, dgm.mlp(9, 4)),
    )
    said = rf"^decompress: expected what compress has returned, got {type(given).__name__}\. Fix: .*load"
    with pytest.raises(TypeError, match=said):
        dgm.decompress(vae.model, vae.guide, given)


def noisy(module, scale=0.1):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn_like(parameter)
    return module


def normal_encoder(num_in=D):
    return dgm.Conditional(dist.Normal, dgm.mlp(num_in, 8, 2 * Z))


def flow_encoder():
    return dgm.Flow(normal_encoder(), dgm.iaf(Z, layers=2, context=D, hidden=(8,)))


def vae(prior=None, likelihood=None, encoder=None):
    likelihood = likelihood or dgm.Bernoulli(dgm.mlp(Z, 8, D))
    return noisy(dgm.VAE(prior or dgm.StandardNormal(Z), likelihood, encoder or normal_encoder()))


def vamp():
    encoder = normal_encoder()
    return vae(dgm.VampPrior(encoder, bits()[:5]), encoder=encoder)


class Levels2(dgm.Program):
    """Two levels: z2 ~ p(z2), z1 ~ p(z1 | z2), x ~ p(x | z1); the guide goes up."""

    def __init__(self):
        super().__init__()
        self.below = dgm.Conditional(dist.Normal, dgm.mlp(Z, 8, 2 * Z))
        self.likelihood = dgm.Bernoulli(dgm.mlp(Z, 8, D))
        self.first, self.second = normal_encoder(), normal_encoder(Z)

    def model(self, x=None):
        with dgm.data_plate(x):
            top = pyro.sample("z2", dist.Normal(torch.zeros(Z), 1.0).to_event(1))
            z = pyro.sample("z1", self.below(top))
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z1", self.first(x))
            pyro.sample("z2", self.second(z))


def bits(num=N):
    return (torch.rand(num, D) < 0.3).double()


def levels(num=N):
    return torch.randint(0, 5, (num, D)).double()


def middle_levels(num=N):
    """Levels that keep away from the ends, where an untrained flow over them has outliers."""
    return torch.randint(1, 4, (num, D)).double()


def dequantized(noise):
    cube = [dgm.Levels(5)]
    density = dgm.Flow(dgm.StandardNormal(D), [*dgm.realnvp(D, 2, hidden=(8,)), *cube])
    return dgm.dequantized(noisy(dgm.DensityModel(density)), levels=5), dgm.NoiseGuide(noise)


def pair_of(vae):
    return vae.model, vae.guide


PAIRS = {
    "bernoulli": (lambda: pair_of(vae()), bits),
    "levels": (
        lambda: pair_of(vae(likelihood=dgm.DiscretizedLogistic(dgm.mlp(Z, 8, 2 * D), 5))),
        levels,
    ),
    "mixture of levels": (
        lambda: pair_of(
            vae(likelihood=dgm.DiscretizedLogisticMixture(dgm.mlp(Z, 8, 3 * 2 * D), 5, 2))
        ),
        levels,
    ),
    "categories": (
        lambda: pair_of(vae(likelihood=dgm.Categorical(dgm.mlp(Z, 8, 5 * D), 5))),
        levels,
    ),
    "binomial": (lambda: pair_of(vae(likelihood=dgm.Binomial(dgm.mlp(Z, 8, D), 4))), levels),
    "mixture prior": (lambda: pair_of(vae(dgm.MixturePrior(Z, 3))), bits),
    "vampprior": (lambda: pair_of(vamp()), bits),
    "flow prior": (
        lambda: pair_of(vae(dgm.Flow(dgm.StandardNormal(Z), dgm.maf(Z, 2, hidden=(8,))))),
        bits,
    ),
    "flow guide": (lambda: pair_of(vae(encoder=flow_encoder())), bits),
    "both flows": (
        lambda: pair_of(
            vae(
                dgm.Flow(dgm.StandardNormal(Z), dgm.realnvp(Z, 2, hidden=(8,))),
                encoder=flow_encoder(),
            )
        ),
        bits,
    ),
    "covariance": (
        lambda: pair_of(vae(encoder=dgm.MultivariateNormal(dgm.mlp(D, 8, Z + 3), Z))),
        bits,
    ),
    "two levels": (lambda: (lambda p: (p.model, p.guide))(noisy(Levels2())), bits),
    "no latents": (
        lambda: (
            noisy(dgm.DensityModel(Context())),
            dgm.EmptyGuide(),
        ),
        bits,
    ),
    "dequantized": (lambda: dequantized(dgm.UnitUniform(D)), middle_levels),
    "learned noise": (
        lambda: dequantized(
            noisy(
                dgm.Flow(
                    dgm.UnitUniform(D),
                    [
                        dgm.Inverse(dgm.Levels(1)),
                        *dgm.realnvp(D, 2, context=D, hidden=(8,)),
                        dgm.Levels(1),
                    ],
                )
            )
        ),
        middle_levels,
    ),
}


class Context(nn.Module):
    """Independent bits."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(D))

    def forward(self):
        return dist.Bernoulli(logits=self.logits).to_event(1)


@pytest.mark.parametrize("name", PAIRS)
def test_data_come_back_bit_for_bit_and_take_the_bits_of_the_bound(name):
    """At the latents that were coded: no noise of other draws is in the difference."""
    build, data = PAIRS[name]
    (model, guide), x = build(), data()
    compressed = dgm.compress(model, guide, x)
    assert torch.equal(dgm.decompress(model, guide, compressed), x)
    # Scrambling changes the log2 of a head by up to an eighth, back and forth, at each of 30 blocks.
    assert compressed.net_bits == pytest.approx(N * compressed.bound, abs=2)


def bounds_of_other_draws(model, guide, x, num=30):
    """-ELBO in bits per datum of one draw of each, `num` times."""
    found = []
    for seed in range(num):
        nelbo = dgm.nll(model, guide, x, num=1, seed=seed).nelbo
        found.append(nelbo.mean() / log(2))
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bernoulli", "both flows", "vampprior", "covariance", "two levels", "learned noise"]
)
def test_the_bits_are_those_of_the_elbo_of_other_draws(name):
    """The bound within five standard errors, which 30 other draws of each datum show; the bits within 1 %.

    0.1 % or less of most pairs; an untrained flow of noise bends within few cells of the ends of its unit cell, where a
    datum in thousands takes some 100 bits more.
    """
    build, data = PAIRS[name]
    (model, guide), x = build(), data(5_000)
    compressed = dgm.compress(model, guide, x)
    others = bounds_of_other_draws(model, guide, x)
    assert abs(compressed.bound - others.mean().item()) < 5 * others.std().item()
    assert compressed.bits_per_datum == pytest.approx(compressed.bound, rel=0.01)


@pytest.mark.parametrize("name", ["bernoulli", "flow guide"])
def test_draws_are_those_of_the_guide_also_where_the_model_is_of_other_data(name):
    """The stack then holds no random bits: equal data, which the model finds improbable."""
    build, _ = PAIRS[name]
    (model, guide), x = build(), torch.ones(2_000, D)
    compressed = dgm.compress(model, guide, x)
    others = bounds_of_other_draws(model, guide, x)
    assert abs(compressed.bound - others.mean().item()) < 5 * others.std().item()


@pytest.mark.parametrize("dtype_of_data", [torch.uint8, torch.int64, torch.float32])
def test_the_dtype_of_the_data_comes_back(dtype_of_data):
    likelihood = dgm.DiscretizedLogistic(dgm.mlp(Z, 8, 2 * D), 5)
    model = dgm.LatentVariableModel(dgm.StandardNormal(Z), likelihood).float()
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, AsFloat())).float()
    x = levels().to(dtype_of_data)
    again = dgm.decompress(model, guide, dgm.compress(model, guide, x))
    assert again.dtype == dtype_of_data
    assert torch.equal(again, x)


class AsFloat(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(D, 2 * Z)

    def forward(self, x):
        return self.net(x.float())


def test_counts_without_a_largest_one_are_coded_up_to_that_of_the_data():
    pair = vae(likelihood=dgm.Poisson(dgm.mlp(Z, 8, D)))
    x = levels()
    compressed = dgm.compress(pair.model, pair.guide, x)
    assert torch.equal(dgm.decompress(pair.model, pair.guide, compressed), x)
    # larger ones are ruled out, which saves bits; a head may hold a few more or less
    assert compressed.net_bits < N * compressed.bound + 8


def test_the_context_is_not_coded():
    likelihood = dgm.Bernoulli(dgm.Concat(nn.Linear(Z + 3, D)))
    encoder = dgm.Conditional(dist.Normal, dgm.Concat(nn.Linear(D + 3, 2 * Z)))
    pair, x, context = vae(likelihood=likelihood, encoder=encoder), bits(), torch.randn(N, 3)
    compressed = dgm.compress(pair.model, pair.guide, x, context)
    assert torch.equal(dgm.decompress(pair.model, pair.guide, compressed, context), x)
    with pytest.raises(ValueError, match="expected the numbers that coding has computed, got oth"):
        dgm.decompress(pair.model, pair.guide, compressed, -context)


def test_other_weights_are_refused():
    pair, x = vae(), bits()
    compressed = dgm.compress(pair.model, pair.guide, x)
    with torch.no_grad():
        next(pair.guide.parameters()).add_(1e-9)
    with pytest.raises(ValueError, match=r"expected the weights that .* Fix: load_weights"):
        dgm.decompress(pair.model, pair.guide, compressed)


def test_other_bytes_are_refused():
    pair, x = vae(), bits()
    compressed = dgm.compress(pair.model, pair.guide, x)
    payload = bytearray(compressed.payload)
    payload[-1] ^= 1
    spoilt = Compressed(compressed.header, bytes(payload), 0.0, 0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="expected the numbers that coding has computed"):
        dgm.decompress(pair.model, pair.guide, spoilt)


def test_a_file_keeps_all(tmp_path):
    pair, x = vae(), bits()
    compressed = dgm.compress(pair.model, pair.guide, x, seed=3)
    compressed.save(tmp_path / "x.bits")
    loaded = Compressed.load(tmp_path / "x.bits")
    assert loaded == compressed
    assert compressed.num_bytes == (tmp_path / "x.bits").stat().st_size
    assert torch.equal(dgm.decompress(pair.model, pair.guide, loaded), x)


def test_a_damaged_file_is_refused(tmp_path):
    pair, path = vae(), tmp_path / "x.bits"
    dgm.compress(pair.model, pair.guide, bits()).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="bytes that differ from their digest"):
        Compressed.load(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(FileError, match=r"expected data of Compressed\.save"):
        Compressed.load(path)


def test_the_text_names_bytes_bits_and_the_bound():
    pair = vae()
    compressed = dgm.compress(pair.model, pair.guide, bits())
    assert f"30 data in {compressed.num_bytes:,} bytes" in str(compressed)
    assert "-ELBO" in str(compressed)
    assert compressed.to_dataframe()["bits_per_dim"][0] == compressed.bits_per_datum / D


def test_weights_and_random_state_stay_as_they_are():
    pair, x = vae(), bits()
    state = torch.get_rng_state()
    first = dgm.compress(pair.model, pair.guide, x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert dgm.compress(pair.model, pair.guide, x) == first
    assert dgm.compress(pair.model, pair.guide, x, seed=1) != first


def global_scale():
    def model(x=None):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with dgm.data_plate(x):
            pyro.sample("x", dist.Poisson(scale).expand([D]).to_event(1), obs=x)

    def guide(x=None):
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))

    return model, guide


def masked():
    def model(x=None):
        with dgm.data_plate(x), pyro.poutine.mask(mask=torch.ones(1, dtype=torch.bool)):
            pyro.sample("x", dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=x)

    return model, dgm.EmptyGuide()


def two_observed():
    def model(x=None):
        with dgm.data_plate(x):
            for name in "xy":
                pyro.sample(name, dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=x)

    return model, dgm.EmptyGuide()


def factor():
    def model(x=None):
        with dgm.data_plate(x):
            pyro.sample("x", dist.Bernoulli(torch.full((D,), 0.5)).to_event(1), obs=x)
            pyro.factor("f", torch.zeros(1 if x is None else len(x)))

    return model, dgm.EmptyGuide()


def summed():
    def model(x=None):
        with dgm.data_plate(x):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            probs = (0.2 + 0.5 * k)[..., None].expand(*k.shape, D)
            pyro.sample("x", dist.Bernoulli(probs).to_event(1), obs=x)

    return model, dgm.EmptyGuide()


def point():
    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.Delta(torch.zeros(len(x), Z)).to_event(1))

    return vae().model, guide


def student():
    def guide(x=None):
        with dgm.data_plate(x):
            pyro.sample("z", dist.StudentT(5.0, x[:, :Z], 1.0).to_event(1))

    return vae().model, guide


REFUSED = {
    "globals": (global_scale, "expected a site inside the plate"),
    "a mask": (masked, "expected no mask, got one"),
    "several observations": (two_observed, r"expected one observed site, got \['x', 'y'\]"),
    "a factor": (factor, r"no factors, got \['f'\]"),
    "a sum": (summed, r"latents that are drawn .* got \['k'\]"),
    "a point mass": (point, r"expected a guide with a density, got point masses at \['z'\]"),
    "no cdf": (student, "site 'z': expected a distribution with a cdf"),
    "a density": (
        lambda: pair_of(vae(likelihood=dgm.Normal(dgm.mlp(Z, 8, D)))),
        "site 'x': expected a mass function of integers, got the density",
    ),
}


@pytest.mark.filterwarnings("ignore::pyro_dgm.diagnostics.IntegerWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bits_is_refused_with_a_fix(name):
    build, words = REFUSED[name]
    x = bits()
    with pytest.raises(ValueError, match=words) as caught:
        dgm.compress(*build(), x)
    assert "Fix: " in str(caught.value)


def pixelcnn():
    network = dgm.nn.GatedPixelCNN((1, 2, 2), out_channels=2, context=Z, channels=4, blocks=1)
    return dgm.PixelCNN(network, dgm.Categorical(nn.Identity(), 2, event_dim=3))


def colours():
    net = nn.Sequential(nn.Linear(Z, 80), nn.Unflatten(-1, (20, 2, 2)))
    return dgm.ColourLogisticMixture(net, levels=2, num_components=2)


@pytest.mark.parametrize(
    ("likelihood", "name", "channels"),
    [
        (pixelcnn, "an autoregressive PixelCNN", 1),
        (colours, "a ColourLogisticMixture", 3),
    ],
)
def test_images_whose_numbers_need_each_other_are_refused_by_name(likelihood, name, channels):
    net = nn.Sequential(nn.Flatten(-3), nn.Linear(4 * channels, 2 * Z))
    encoder = dgm.Conditional(dist.Normal, net)
    pair, x = vae(likelihood=likelihood(), encoder=encoder), torch.zeros(5, channels, 2, 2)
    words = rf"site 'x': expected independent numbers, got {name}, .* Fix: "
    with pytest.raises(ValueError, match=words):
        dgm.compress(pair.model, pair.guide, x)


def test_bits_that_need_each_other_are_refused_by_name():
    made = dgm.flows.MADE(D, num_params=1)
    pair = vae(likelihood=dgm.distributions.AutoregressiveBernoulli(made, net=dgm.mlp(Z, 8, D)))
    words = r"site 'x': expected independent numbers, got an autoregressive AutoregressiveBernoulli"
    with pytest.raises(ValueError, match=words):
        dgm.compress(pair.model, pair.guide, bits())


def test_data_below_zero_are_refused():
    pair = vae(likelihood=dgm.Poisson(dgm.mlp(Z, 8, D)))
    with pytest.raises(ValueError, match="Fix: "):
        dgm.compress(pair.model, pair.guide, -levels())


@pytest.mark.parametrize("num_data", [1, 2, 19, 400, 12_345])
def test_blocks_hold_all_data_and_no_more_than_there_are_lanes(num_data):
    lanes = num_lanes(num_data, 784, 2)
    sizes = list(sizes_of_blocks(num_data, lanes))
    assert sum(sizes) == num_data
    assert max(sizes) <= lanes


def test_a_table_of_masses_bounds_the_lanes():
    assert num_lanes(10**6, 3072, 256) == 2**25 // (3072 * 256)


def test_one_datum_is_coded():
    pair, x = vae(), bits(1)
    assert torch.equal(
        dgm.decompress(pair.model, pair.guide, dgm.compress(pair.model, pair.guide, x)), x
    )


ELSEWHERE = """
import sys
import pyro.distributions as dist
import torch
import pyro_dgm as dgm

torch.set_num_threads(1)
flow = dgm.Flow(dgm.StandardNormal(2), dgm.maf(2, 2, hidden=(8,)))
encoder = dgm.Conditional(dist.Normal, dgm.mlp(6, 8, 4))
vae = dgm.VAE(flow, dgm.Bernoulli(dgm.mlp(2, 8, 6)), encoder)
if sys.argv[1] == "code":
    x = (torch.rand(100, 6) < 0.3).float()
    torch.save(x, "x.pt")
    dgm.save_weights(vae, "vae.safetensors")
    dgm.compress(vae.model, vae.guide, x).save("x.bits")
else:
    dgm.load_weights(vae, "vae.safetensors")
    again = dgm.decompress(vae.model, vae.guide, dgm.results.Compressed.load("x.bits"))
    assert torch.equal(again, torch.load("x.pt"))
"""


@pytest.mark.slow
def test_another_process_decodes(tmp_path):
    for step in ("code", "decode"):
        command = [sys.executable, "-c", ELSEWHERE, step]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
