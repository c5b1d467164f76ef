"""What is done to a batch: label mass is conserved, shares are Beta's, boxes are boxes."""

import pytest
import torch
import torch.nn.functional as F
from test_regularisers import IMAGES, NUMBERS, draw, option

from plumbline.config import ConfigError, build
from plumbline.data.core import Spec
from plumbline.losses import task
from plumbline.regularisers import ConfidencePenalty, CutMix, InputNoise, LabelSmoothing, Mixup

SOFTENERS = [
    LabelSmoothing(IMAGES, smoothing=0.3),
    Mixup(IMAGES, alpha=0.4),
    CutMix(IMAGES, alpha=1.0),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("regulariser", SOFTENERS, ids=lambda r: r.option)
def test_label_mass_is_conserved_also_when_labels_are_soft_already(regulariser, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = draw(seed)
    for again in SOFTENERS:
        first = regulariser.batch(x, y, generator)
        mixed, targets = again.batch(*first, generator)
        assert mixed.shape == x.shape
        assert targets.shape == (16, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        assert (targets >= 0).all()


@pytest.mark.parametrize("name", ["mixup", "cutmix", "input_noise"])
def test_all_chance_is_the_generators(name):
    regulariser = build(option(name))(IMAGES)
    (x, y), state = draw(), torch.get_rng_state()
    first, again, other = (regulariser.batch(x, y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, draw()[0])


def test_smoothing_spreads_its_share_evenly():
    x, y = draw()
    _, soft = LabelSmoothing(IMAGES, smoothing=0.3).batch(x, y, torch.Generator())
    torch.testing.assert_close(soft, 0.7 * F.one_hot(y, 5) + 0.06)
    logits = torch.randn(16, 5)
    torch.testing.assert_close(task(IMAGES)(logits, soft), F.cross_entropy(logits, y, label_smoothing=0.3))


@pytest.mark.parametrize("task_name", ["classification", "regression"])
def test_mixup_mixes_inputs_and_targets_with_one_partner_by_one_share(task_name):
    spec, x = Spec(task_name, (16,), 16), torch.eye(16)
    for seed in range(10):
        y = torch.arange(16) if task_name == "classification" else x
        mixed, targets = Mixup(spec, alpha=1.0).batch(x, y, torch.Generator().manual_seed(seed))
        assert torch.equal(mixed, targets)
        share = mixed.diag().min()
        partner = (mixed - share * x) / (1 - share)
        torch.testing.assert_close(partner.max(1).values, torch.ones(16), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(partner.sum(0), torch.ones(16), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(partner.sum(1), torch.ones(16), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.2, 1, 4.0])
def test_the_share_is_beta_distributed(alpha):
    regulariser, generator = Mixup(Spec("regression", (20,), 20), alpha=alpha), torch.Generator().manual_seed(0)
    x = torch.eye(20)
    shares = torch.stack([regulariser.batch(x, x, generator)[0].diag().min() for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_cutmix_pastes_one_box_and_mixes_labels_by_its_area():
    spec = Spec("classification", (1, 8, 10), 40)
    x = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 8, 10).contiguous()
    areas = []
    for seed in range(300):
        mixed, targets = CutMix(spec, alpha=1.0).batch(x, torch.arange(40), torch.Generator().manual_seed(seed))
        foreign = (mixed != x)[:, 0]
        boxes = foreign[foreign.flatten(1).any(1)]
        if len(boxes):
            assert (boxes == boxes[0]).all()
            rows, columns = boxes[0].any(1).sum(), boxes[0].any(0).sum()
            assert boxes[0].sum() == rows * columns
            areas.append(boxes[0].float().mean().item())
        counted = torch.stack([(mixed == label).flatten(1).float().mean(1) for label in range(40)], 1)
        torch.testing.assert_close(targets, counted)
    assert max(areas) > 0.7
    assert min(areas) < 0.05


def test_cutmix_of_half_the_image_reaches_every_pixel():
    spec = Spec("classification", (1, 8, 8), 2)
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
    touched = sum(
        (CutMix(spec, alpha=1.0).batch(x, torch.arange(2), torch.Generator().manual_seed(seed))[0] != x)[0, 0].float()
        for seed in range(400)
    )
    assert touched.min() > 20
    torch.testing.assert_close(touched, touched.flip(0, 1), rtol=0.35, atol=10)


def test_noise_has_its_standard_deviation():
    x, y = draw(samples=500)
    noisy, same_y = InputNoise(IMAGES, std=0.3).batch(x, y, torch.Generator().manual_seed(0))
    assert (noisy - x).std().item() == pytest.approx(0.3, rel=0.01)
    assert same_y is y


def test_what_needs_classes_or_images_says_so():
    for make in (lambda: LabelSmoothing(NUMBERS, smoothing=0.1), lambda: ConfidencePenalty(NUMBERS, strength=0.1)):
        with pytest.raises(
            ConfigError, match=r"regulariser=\[(label_smoothing|confidence_penalty)\]: needs classes, not regression"
        ):
            make()
    with pytest.raises(ConfigError, match=r"regulariser=\[cutmix\]: needs images \(C, H, W\), not \(64,\)"):
        CutMix(Spec("classification", (64,), 10), alpha=1.0)
