"""Dropout and DropBlock: what is dropped, where, how much, and that evaluation knows nothing of it."""

import pytest
import torch
import torch.nn.functional as F
from test_regularisers import IMAGES, convnet, draw, mlp
from torch import nn

from plumbline.config import ConfigError
from plumbline.regularisers import DropBlock, Dropout
from plumbline.regularisers.dropout import drop_block


def test_dropout_drops_the_inputs_of_the_chosen_layers_and_keeps_their_mean():
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 3))
    Dropout(IMAGES, rate=0.3, layers=["hidden"]).attach(model)
    seen = []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    x = torch.rand(200, 4)
    whole = model.eval()(x)
    torch.testing.assert_close(
        whole, nn.Sequential(*list(model)[:2], nn.Linear(400, 3)).eval()[:2](x) @ model[2].weight.T + model[2].bias
    )
    torch.manual_seed(0)
    trained = torch.stack([model.train()(x) for _ in range(200)]).mean(0)
    full, dropped = seen[0], torch.stack(seen[1:])
    live = full > 0
    assert (dropped[:, live] == 0).float().mean().item() == pytest.approx(0.3, abs=0.002)
    kept = dropped[0][live & (dropped[0] != 0)]
    torch.testing.assert_close(kept, full[live & (dropped[0] != 0)] / 0.7)
    assert (trained - whole).abs().mean() < 0.01


def test_hidden_leaves_the_data_alone_and_all_does_not():
    for layers, share in ((["hidden"], 0.0), (["all"], 0.5)):
        model, seen = mlp(), []
        Dropout(IMAGES, rate=0.5, layers=layers).attach(model)
        model[1].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
        model(draw(samples=64)[0])
        assert (seen[0] == 0).float().mean().item() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("kind", [Dropout, DropBlock])
def test_in_evaluation_dropout_is_exactly_absent(kind):
    plain, model = convnet(), convnet()
    size = {"block_size": 3} if kind is DropBlock else {}
    kind(IMAGES, rate=0.5, layers=["all"], **size).attach(model)
    x, _ = draw()
    state = torch.get_rng_state()
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(model.train()(x), plain.train()(x))


def test_dropout_of_an_attention_or_of_words_is_refused():
    model = nn.ModuleDict({"words": nn.Embedding(5, 4), "attention": nn.MultiheadAttention(4, 2)})
    with pytest.raises(
        ConfigError, match=r"regulariser\.dropout\.layers=\['all'\]: the input of these cannot be dropped"
    ):
        Dropout(IMAGES, rate=0.5, layers=["all"]).attach(model)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_dropped_cells_form_whole_squares(size):
    torch.manual_seed(size)
    x = torch.ones(64, 4, 12, 14)
    dropped = (drop_block(x, 0.1, size) == 0).float()
    squares = F.avg_pool2d(dropped, size, stride=1) == 1  # corners of squares that are wholly dropped
    covered = F.max_pool2d(F.pad(squares.float(), (size - 1,) * 4), size, stride=1)
    assert torch.equal(covered, dropped)
    assert 0.06 < dropped.mean() < 0.11  # overlaps make it a little less than the rate


@pytest.mark.parametrize("size", [1, 3, 4, 50])
def test_drop_block_keeps_the_mean(size):
    torch.manual_seed(0)
    x = torch.rand(2000, 2, 9, 11)
    kept = drop_block(x, 0.2, size)
    assert kept.mean().item() == pytest.approx(x.mean().item(), rel=0.01)
    assert drop_block(torch.ones(50, 2, 9, 11), 0.2, size).mean().item() == pytest.approx(1, abs=1e-5)
