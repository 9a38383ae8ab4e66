import pytest
import torch

from experiment.models import Cnn, Mlp, Vae, Vit
from verbatim.errors import VerbatimError

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
MODELS = {
    "mlp": lambda shape: Mlp(shape, 10, hidden=[16, 8], dropout=0.1),
    "cnn": lambda shape: Cnn(shape, 10, channels=[4, 8], dropout=0.1),
    "vit": lambda shape: Vit(shape, 10, patch=4, width=16, depth=2, heads=2, dropout=0.1),
    "vae": lambda shape: Vae(shape, 10, x_dim=None, hidden_dim=16, latent_dim=3),
}


def batch(shape, n=5):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *shape, generator=generator), torch.arange(n) % 10


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_from_every_shape(name, shape):
    torch.manual_seed(0)
    model = MODELS[name](shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = batch(shape)
    losses = []
    for _ in range(30):
        loss, predicted = model.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert sum(losses[-5:]) < 0.98 * sum(losses[:5])
    assert len(predicted) == len(x)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["mlp", "cnn", "vit"])
def test_the_loss_is_a_mean_over_the_batch_whatever_its_size(name):
    model = MODELS[name]((1, 8, 8)).eval()
    x, y = batch((1, 8, 8), 7)
    whole, _ = model.loss(x, y)
    one, _ = model.loss(x[:3], y[:3])
    other, _ = model.loss(x[3:], y[3:])

    torch.testing.assert_close(whole, (3 * one + 4 * other) / 7)


def test_the_elbo_is_a_mean_over_the_images_of_a_partial_batch():
    model = MODELS["vae"]((1, 8, 8))
    with torch.no_grad():
        model.log_variance.weight.zero_()
        model.log_variance.bias.fill_(-60)  # no noise: the latent is its mean
    x, y = batch((1, 8, 8), 7)
    whole, _ = model.loss(x, y)
    one, _ = model.loss(x[:3], y[:3])
    other, _ = model.loss(x[3:], y[3:])

    torch.testing.assert_close(whole, (3 * one + 4 * other) / 7)


def test_the_elbo_is_that_of_the_paper():
    """Against the formula by torch.distributions: E[log p(x|z)] - KL(q(z|x) || N(0, I))."""
    model = MODELS["vae"]((1, 8, 8))
    x, y = batch((1, 8, 8))
    torch.manual_seed(3)
    loss, probabilities = model.loss(x, y)
    torch.manual_seed(3)
    _, mean, log_variance = model(x)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    flat = x.flatten(1)
    likelihood = (flat * probabilities.log() + (1 - flat) * (1 - probabilities).log()).sum(1)

    torch.testing.assert_close(loss, (kl - likelihood).mean())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Cnn((1, 8, 8), 10, channels=[1] * 4, dropout=0), "model.channels: expected at most 3 layers for images of 8x8"),
        (lambda: Vit((1, 28, 28), 10, 5, 16, 1, 2, 0), "model.patch: expected a divisor of 28 and 28, the image's sides, found 5"),
        (lambda: Vit((1, 8, 8), 10, 2, 16, 1, 3, 0), "model.heads: expected a divisor of model.width, 16, found 3"),
        (lambda: Vae((1, 8, 8), 10, 784, 4, 2), "model.x_dim: expected 64, the values of one 1x8x8 image, found 784"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_its_data_is_refused(make, says):
    with pytest.raises(VerbatimError) as error:
        make()

    assert str(error.value).startswith(says)


def test_dropout_is_off_in_evaluation():
    for name in ("mlp", "cnn", "vit"):
        model = MODELS[name]((1, 8, 8)).eval()
        x, _ = batch((1, 8, 8))

        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))
