"""Checks of a network before it trains: does everything in it take part, and does the signal get through?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.checks.outputs import spread
from plumbline.ranges import Count, NonNegative, Share
from plumbline.regularisers.layers import kernels, weight_layers


def listed(names: list[str], most: int = 3) -> str:
    """A few names, and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def frozen(bench: Bench) -> Finding | None:
    """Whether what is frozen was learned before: random weights that never train are dead weight."""
    parameters = dict(bench.network.model.named_parameters())
    still = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if not still:
        return None
    every = sum(parameter.numel() for parameter in parameters.values())
    share = sum(parameters[name].numel() for name in still) / every
    other = dict(bench.fresh(quiet=True, seed=bench.cfg.seed + 1).model.named_parameters())
    drawn = [n for n in still if parameters[n].dim() > 1 and not torch.equal(parameters[n], other[n])]
    layers = {f"{path}.{key}" for path, layer in weight_layers(bench.network.model).items() for key in kernels(layer)}
    evidence = {"frozen": share, "at_random": drawn[:20]}
    if drawn:
        return Finding(
            "warn",
            f"{share:.0%} of the parameters are frozen, and {listed(drawn)} at random values",
            evidence,
            cause="requires_grad=False on layers that were never trained",
            advice=("let them train", "or load pretrained weights into them"),
            source="S0: freeze what was trained elsewhere",
        )
    if layers and layers <= set(still):
        return Finding(
            "warn",
            f"every layer is frozen: only norms and biases train ({1 - share:.1%} of the parameters)",
            evidence,
            cause="requires_grad=False on the head, too",
            advice=("let the last layer train",),
            source="S0: re-initialise the top and train it",
        )
    return Finding("ok", f"{share:.0%} of the parameters are frozen, all of them made elsewhere", evidence)


def symmetric(bench: Bench) -> Finding | None:
    """Whether the units of a layer are all one: equal weights that get equal gradients stay equal for ever."""
    copy = bench.network
    with copy.buffers_kept(), torch.enable_grad():
        copy.model.zero_grad()
        outputs = copy.model(bench.x.clone()).float()
        if outputs.requires_grad:
            projection = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
            (outputs * projection).sum().backward()
    same = []
    for name, layer in weight_layers(copy.model).items():
        own = [p for p in layer.parameters() if p.dim() > 1 and p.requires_grad and len(p) > 1]
        if own and all(alike(p) and (p.grad is None or alike(p.grad)) for p in own):
            same.append(name or "the network")
    copy.model.zero_grad()
    if not same:
        return Finding("ok", "the units of each layer differ")
    return Finding(
        "fail",
        f"all units of {listed(same)} are the same and get the same gradient: each layer is one unit",
        {"layers": same},
        cause="weights that start at zero, or all at one value",
        advice=("draw them at random: init=he",),
        source="S1: random initialisation breaks the symmetry",
    )


def alike(values: Tensor) -> bool:
    """Whether all rows are equal, up to rounding."""
    values = values.detach()
    return bool((values - values[:1]).abs().max() <= 1e-6 * values.abs().max())


def dead_units(bench: Bench, *, share: Share) -> Finding | None:
    """How many units of a layer no gradient passes, for any sample of a batch."""
    layers = [layer for layer in bench.signals.layers if layer.gradient is not None]
    if not layers or not bench.signals.attached or bench.signals.unreached:
        return None
    worst = max(layers, key=lambda layer: layer.dead)
    evidence = {layer.name or "network": layer.dead for layer in layers if layer.dead}
    if worst.dead < share:
        return Finding("ok", f"at most {worst.dead:.0%} of a layer's units are dead", evidence)
    return Finding(
        "fail" if worst.dead == 1 else "warn",
        f"{worst.dead:.0%} of the units of {worst.name} are dead: no gradient passes them for any of {len(bench.x)} samples",
        evidence,
        cause="relu units that are never above zero: large negative biases, or inputs far off their scale",
        advice=("start biases at zero", "scale the inputs", "model.activation=leaky_relu"),
        source="S2: dead relu units",
    )


def saturated(bench: Bench, *, share: Share) -> Finding | None:
    """How much of what goes into a bounded activation lies where it is flat."""
    found = bench.signals.saturated
    if not found:
        return None
    name = max(found, key=lambda key: found[key])
    if found[name] < share:
        return Finding("ok", f"at most {found[name]:.0%} of an activation's inputs lie where it is flat", found)
    return Finding(
        "warn",
        f"{found[name]:.0%} of what goes into {name} lies where it is flat: almost no gradient passes",
        found,
        cause="weights or inputs that are too large for a sigmoid or tanh",
        advice=("init=glorot", "scale the inputs", "model.activation=relu"),
        source="S1: Glorot for tanh",
    )


def activation_scale(bench: Bench, *, low: NonNegative, high: NonNegative) -> Finding | None:
    """Whether each layer's outputs have a size that the next can use."""
    sizes = {layer.name or "network": layer.size for layer in bench.signals.layers}
    if not sizes:
        return None
    smallest, largest = min(sizes, key=lambda key: sizes[key]), max(sizes, key=lambda key: sizes[key])
    shown = dict(list(sizes.items())[:20])
    if low <= sizes[smallest] and sizes[largest] <= high:
        return Finding(
            "ok", f"the layers' outputs have sizes from {sizes[smallest]:.2g} to {sizes[largest]:.2g}", shown
        )
    name = largest if sizes[largest] > high else smallest
    return Finding(
        "warn",
        f"the outputs of {name} have a size of {sizes[name]:.2g}, where about 1 is healthy",
        shown,
        cause=f"initial weights that are too {'large' if name == largest else 'small'}, or inputs off their scale",
        advice=("init=he for relu, init=glorot for tanh", "data.normalise=true", "a norm: model.norm=batch"),
        source="S1: He and Glorot keep the size of the signal",
    )


def gradient_ratio(bench: Bench, *, ratio: NonNegative) -> Finding | None:
    """How the gradient changes from the last layer to the first."""
    layers = [layer for layer in bench.signals.layers if layer.gradient > 0]
    if len(layers) < 3 or len(layers) < len(bench.signals.layers) / 2:
        return None
    first, last = layers[0], layers[-1]
    found = first.gradient / last.gradient
    evidence = {layer.name: layer.gradient for layer in layers[:20]} | {"first_to_last": found}
    if 1 / ratio < found < ratio:
        return Finding("ok", f"the gradient of the first layer is {found:.2g} of the last one's", evidence)
    kind = "vanishes" if found < 1 else "explodes"
    return Finding(
        "warn",
        f"the gradient {kind}: {first.name} gets {found:.2g} of what {last.name} gets",
        evidence,
        cause="many sigmoid or tanh layers in a row"
        if found < 1
        else "weights that are too large, many layers in a row",
        advice=("model.activation=relu", "residual connections: model=resnet", "a norm: model.norm=batch", "init=he"),
        source="S3: gradient norms per layer; Glorot & Bengio 2010",
    )


@torch.no_grad()
def batch_norm_too_small(bench: Bench, *, least: Count) -> Finding | None:
    """Whether the network normalises by the batch, and the batch is too small to know its mean."""
    size = bench.cfg.batch_size
    if size >= least:
        return None
    x, copy = torch.cat([x for k in range(4) for x, _ in bench.batches(k)])[:16], bench.awake
    if len(x) < 4:
        return None
    with copy.buffers_kept():
        torch.manual_seed(0)
        whole = copy.model(x.clone()).float()[:2]
        torch.manual_seed(0)
        part = copy.model(x[: len(x) // 2].clone()).float()[:2]
    if float((whole - part).abs().max()) <= 1e-3 * max(spread(whole), 1e-12):
        return None  # samples do not depend on one another
    return Finding(
        "warn",
        f"the network normalises by the batch, which holds {size} samples",
        {"batch_size": size},
        cause="batch norm: mean and variance of few samples are mostly noise",
        advice=(
            f"batch_size={least} or more",
            "model.norm=group or layer",
            "accumulate does not help: each batch is normalised alone",
        ),
        source="S3: limits of batch norm; Wu & He 2018",
    )


@torch.no_grad()
def dropout_too_high(bench: Bench, *, rate: Share) -> Finding | None:
    """How much of what enters a layer is dropped in training: what is zero there, and not in evaluation."""
    copy = bench.noisy
    layers = {layer: name for name, layer in weight_layers(copy.model).items()}
    plain = {m: n for n, m in copy.model.named_modules() if not list(m.children()) and not list(m.parameters())}
    zeros: dict[str, list[float]] = {}

    def entering(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            zeros.setdefault(layers[module], []).append(float((inputs[0] == 0).float().mean()))

    def passing(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if module.training and len(inputs) == 1 and isinstance(output, Tensor) and output.shape == inputs[0].shape:
            dropped[plain[module]] = float(((output == 0) & (inputs[0] != 0)).float().mean())
        elif (
            not module.training and len(inputs) == 1 and isinstance(output, Tensor) and output.shape == inputs[0].shape
        ):
            kept = float(((output == 0) & (inputs[0] != 0)).float().mean())
            dropped[plain[module]] = max(0.0, dropped.get(plain[module], 0.0) - kept)

    dropped: dict[str, float] = {}
    hooks = [layer.register_forward_hook(entering) for layer in layers]
    hooks += [module.register_forward_hook(passing) for module in plain]
    try:
        with copy.buffers_kept():
            copy.model.train()
            copy.model(bench.x.clone())
            copy.model.eval()
            copy.model(bench.x.clone())
    finally:
        copy.model.train()
        for hook in hooks:
            hook.remove()
    for name, shares in zeros.items():
        half = len(shares) // 2
        training, still = sum(shares[:half]), sum(shares[half:])
        if half and still < half:
            dropped[name] = max(dropped.get(name, 0.0), 1 - (half - training) / (half - still))
    if not dropped or max(dropped.values()) < 0.02:
        return None
    name = max(dropped, key=lambda key: dropped[key])
    shown = {key: value for key, value in dropped.items() if value > 0.02}
    if dropped[name] <= rate:
        return Finding("ok", f"training drops at most {dropped[name]:.0%} of what enters a layer", shown)
    return Finding(
        "warn",
        f"training drops {dropped[name]:.0%} of what goes through {name}: hardly anything is left to learn from",
        shown,
        cause="a dropout rate that is meant as the share to keep",
        advice=("a rate of 0.1 to 0.5",),
        source="S1: dropout",
    )


def reproducible(bench: Bench) -> Finding:
    """Whether the seed alone makes the network: built twice, it must start from the same numbers."""
    first, second = (copy.model.state_dict() for copy in (bench.network, bench.fresh(quiet=True)))
    other = [
        name
        for name, value in first.items()
        if name not in second
        or value.shape != second[name].shape
        or not torch.allclose(value.double(), second[name].double(), rtol=0, atol=0, equal_nan=True)
    ]
    evidence = {"different": other[:3], "count": len(other)}
    if not other:
        return Finding("ok", "built twice, the network starts from the same weights", evidence)
    said = f"built twice from one seed, the network starts from other weights: {len(other)} tensors differ, first {other[0]}"
    return Finding(
        "warn",
        said,
        evidence,
        cause="chance that the seed does not reach: another library's, the clock, or the order of a set",
        advice=("draw from torch's generator, which the run seeds, or from one made from `seed`",),
        source="S0, S1: fix the seeds",
    )
