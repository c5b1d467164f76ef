"""What the other processes of a run do: the same steps and the same scoring as process 0, without a record."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from plumbline import device, exits
from plumbline.assemble import assemble, mistakes_in, rehearse
from plumbline.config import build, check_config
from plumbline.distributed import World
from plumbline.first import trained
from plumbline.loop import Diverged, fit
from plumbline.scoring import Scoring, load_best
from plumbline.slurm.job import fate
from plumbline.transfer import begun


def accompany(cfg: DictConfig, directory: Path, overrides: list[str], world: World) -> int:
    """Train along until process 0 has ended; return the exit status. What there is to say, process 0 says."""
    check_config(cfg)
    where = device.choose(cfg.device)
    with mistakes_in("data"):
        data = build(cfg.data)()
    layers = rehearse(begun(cfg, directory), data.spec)
    built = trained(begun(cfg, directory), cfg, overrides, directory, world.signals, alone=False)
    device.prepare(where, cfg.threads, cfg.batch_size * sum(layer["multiply_adds"] for layer in layers))
    training, state, step, schedule = assemble(built, data, where, world)
    scoring = Scoring(data, training, cfg)
    try:
        training.world = world
        if world.same(None):
            state.load(directory / "last.pt")
        options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
        for epoch in fit(training, state, data.train, step, schedule, **options):
            if epoch is not None:
                scoring.epoch(state)
                state.gather(keep=False)
                score, ended = world.same(None)
                state.scores.append(score)
                if ended:
                    break
            elif world.asked or world.saving:
                state.gather(keep=False)
            if world.asked:
                return exits.BY_HAND if fate(world.asked) == "stopped" else exits.TO_BE_CONTINUED
        if not state.scores:  # no epoch was asked for
            scoring.epoch(state)
            state.gather(keep=False)
        if world.sharded:  # process 0 cannot compute the last predictions alone
            load_best(state.network, directory / "best.pt")
            scoring.outputs(state.network, data.val)
    except Diverged:
        return exits.DIVERGED
    except RuntimeError as error:
        if "closed by peer" not in str(error) and "reset by peer" not in str(error):
            raise
        return exits.DONE  # process 0 has left, and says why
    return exits.DONE
