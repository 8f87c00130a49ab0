"""Pythae's VAE, VAMP and VAE_IAF with our networks; a step as its trainer takes it, and its trainer's epoch.

The VAMP of pythae makes its pseudo-inputs by a linear layer of the identity, whose bias they share: as many parameters
more as a datum has pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAE_IAF, VAMP, VAE_IAF_Config, VAEConfig, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from .networks import mlp_networks
from .sizes import STEPS, Contestant, Size, count_in


class Encoder(BaseEncoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_var = self.network(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_var)


class Decoder(BaseDecoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z).sigmoid())


def settings(size: Size) -> dict[str, Any]:
    return {
        "input_dim": size.event,
        "latent_dim": size.latent,
        "reconstruction_loss": "bce",
    }


def networks(size: Size) -> dict[str, nn.Module]:
    encoder, decoder = mlp_networks(size)
    return {"encoder": Encoder(encoder), "decoder": Decoder(decoder)}


def mlp(size: Size) -> nn.Module:
    return VAE(VAEConfig(**settings(size)), **networks(size))


def vamp(size: Size) -> nn.Module:
    config = VAMPConfig(
        **settings(size), number_components=size.pseudo_inputs, linear_scheduling_steps=0
    )
    return VAMP(config, **networks(size))


def iaf(size: Size) -> nn.Module:
    config = VAE_IAF_Config(
        **settings(size), n_made_blocks=size.layers, n_hidden_in_made=1, hidden_size=size.units
    )
    return VAE_IAF(config, **networks(size))


def prepared(model: Callable[[Size], nn.Module], size: Size, data: Tensor) -> BaseTrainer:
    """Its trainer, ready for an epoch; messages are off, and bars by `TQDM_DISABLE`."""
    logging.getLogger(BaseTrainer.__module__).setLevel(logging.WARNING)
    folder = TemporaryDirectory()
    config = BaseTrainerConfig(
        output_dir=folder.name,
        per_device_train_batch_size=size.batch,
        learning_rate=1e-3,
        no_cuda=torch.get_default_device().type == "cpu",
    )
    dataset = BaseDataset(data, torch.zeros(len(data)))
    trainer = BaseTrainer(model(size), dataset, training_config=config)
    trainer.folder = folder  # it is removed with the trainer
    trainer.prepare_training()
    return trainer


def first_loss(trainer: BaseTrainer, x: Tensor) -> float:
    with torch.no_grad():
        return trainer.model({"data": x}).loss.item()


def stepping(model: Callable[[Size], nn.Module], size: Size) -> Contestant:
    """What its trainer does with a batch that is there: forward, backward, Adam, the loss as a number."""
    x = size.data()
    trainer = prepared(model, size, x)
    first = first_loss(trainer, x)
    inputs = {"data": x}

    def step() -> None:
        output = trainer.model(inputs, epoch=1, dataset_size=len(x), uses_ddp=False)
        trainer._optimizers_step(output)
        output.loss.item()

    return Contestant(step, count_in(trainer.model), first)


def training(model: Callable[[Size], nn.Module], size: Size) -> Contestant:
    """An epoch of its trainer, loader included."""
    x = size.data(STEPS)
    trainer = prepared(model, size, x)
    first = first_loss(trainer, x[: size.batch])
    batch = {"data": x[: size.batch]}

    def warm_up() -> None:
        for _ in range(10):
            trainer._optimizers_step(trainer.model(batch, epoch=1))

    parameters = count_in(trainer.model)
    return Contestant(lambda: trainer.train_step(1), parameters, first, STEPS, warm_up)
