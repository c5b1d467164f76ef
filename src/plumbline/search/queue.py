"""The trials of a study, shared out among its workers: who takes which, what becomes of those whose worker died, when to end."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from plumbline.files import write_json
from plumbline.search import presence
from plumbline.search.outcome import ENDED, last_lines, outcome

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from plumbline.search.study import Study


class Queue:
    """What one worker sees of them, and tells of its own; `study` may be read anew."""

    def __init__(self, study: Study, opened: optuna.Study, here: presence.Presence, until: float):
        from plumbline.search.storage import Lock

        self.study, self.opened, self.presence, self.until = study, opened, here, until
        self.storage, self.began = opened._storage, datetime.now()
        self.lock = Lock(str(study.folder / "study"))

    def trials(self) -> list[FrozenTrial]:
        return self.opened.get_trials(deepcopy=False)

    def take(self) -> FrozenTrial | None:
        """A trial to do: one whose worker died or left, or a new one while the total is not reached.

        One worker at a time is in here, so none is taken twice and no number is used beyond the total.
        """
        from optuna.trial import TrialState, create_trial

        with self.lock:
            trials = self.trials()
            self.bury(trials)
            if self.too_many_failures() or self.too_many_deaths() or time.time() > self.until:
                return None
            for trial in self.trials():
                if trial.state == TrialState.WAITING:
                    self.storage.set_trial_user_attr(trial._trial_id, "worker", self.presence.name)
                    if self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                        return self.storage.get_trial(trial._trial_id)
            if len(trials) >= self.study.n_trials:
                return None
            known = self.study.point(len(trials))
            template = create_trial(
                state=TrialState.RUNNING, user_attrs={"worker": self.presence.name},
                system_attrs={} if known is None else {"fixed_params": known},
            )  # fmt: skip
            trial_id = self.storage.create_new_trial(self.opened._study_id, template_trial=template)
            return self.storage.get_trial(trial_id)

    def bury(self, trials: list[FrozenTrial]) -> None:
        """Give free the trials whose workers died; those that die again and again without getting further have failed."""
        from optuna.trial import TrialState

        for trial in trials:
            if trial.state == TrialState.RUNNING and not presence.alive(
                self.study.folder, trial.user_attrs.get("worker")
            ):
                self.died(trial, "its worker died")

    def died(self, trial: FrozenTrial, reason: str) -> None:
        """To be done again from its checkpoint, unless it has died too often where it stands.

        Then it has failed, but not by itself: what a machine does is not in search.max_failures.
        """
        before = trial.user_attrs.get("died", {"times": 0, "at": -1})
        at = self.progress(trial.number)
        times = 1 if at > before["at"] else before["times"] + 1
        over = times > self.study.search["retry"]
        note = {"times": times, "at": max(at, before["at"]), "reason": reason, "over": over}
        self.storage.set_trial_user_attr(trial._trial_id, "died", note)
        if over:
            self.tell(trial, "failed", f"{reason}, {times} times at the same place")
        else:
            self.give_back(trial)

    def give_back(self, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState

        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        self.presence.worked()

    def progress(self, number: int) -> int:
        """How far a trial has got: the epochs on record, over all its seeds."""
        return sum(len(file.read_bytes().splitlines()) for file in self.study.trial(number).rglob("metrics.jsonl"))

    def others_at_work(self) -> bool:
        from optuna.trial import TrialState

        return any(trial.state == TrialState.RUNNING for trial in self.trials())

    def finished(self) -> bool:
        trials = self.trials()
        return len(trials) >= self.study.n_trials and all(trial.state.is_finished() for trial in trials)

    def too_many_failures(self) -> bool:
        from plumbline.search.finish import by_itself

        return sum(map(by_itself, self.trials())) > self.study.search["max_failures"]

    def too_many_deaths(self) -> str:
        """What to say when the last trials all died for good, one after another, since this worker began; else nothing.

        Only since then: the same command given again, with the machine mended, has as many tries.
        """
        from plumbline.search.finish import by_itself, run_folder
        from plumbline.search.trial import LOG

        ended = [t for t in self.trials() if t.datetime_complete is not None and t.datetime_complete >= self.began]
        ended.sort(key=lambda trial: trial.datetime_complete, reverse=True)
        died = list(takewhile(lambda trial: trial.state.name == "FAIL" and not by_itself(trial), ended))
        most = self.study.search["max_deaths"]
        if len(died) <= most:
            return ""
        lines = last_lines(run_folder(self.study, died[0].number) / LOG).replace("\n", "\n  ")
        return (
            f"search.max_deaths={most}: {len(died)} trials died one after another and none ended otherwise; "
            f"trial {died[0].number} {died[0].user_attrs['reason']}; mend what kills them, then the same command goes on"
            + (f"; its last lines:\n  {lines}" if lines else "")
        )

    def note_end(self, number: int, status: str, reason: str, values: list[list[float]]) -> None:
        """Note in a trial's folder an end that is in no run of it: it died too often, or ended between its seeds."""
        folder = self.study.trial(number)
        if folder.is_dir() and not any(
            (end := outcome(run)) is not None and end.status != "finished" for run in self.study.run_folders(number)
        ):
            write_json(folder / ENDED, {"status": status, "reason": reason, "values": values})

    def tell(self, trial: FrozenTrial, status: str, reason: str, values: list[list[float]] | None = None) -> None:
        """Write the end of a trial into the storage. What diverged counts as ended early, so that samplers avoid it."""
        import optuna
        from optuna.trial import TrialState

        trial_id = trial._trial_id
        self.storage.set_trial_user_attr(trial_id, "status", status)
        if reason:
            self.storage.set_trial_user_attr(trial_id, "reason", reason)
        if values:
            self.storage.set_trial_user_attr(trial_id, "values", values)
        if status in ("failed", "pruned"):
            self.note_end(trial.number, status, reason, values or [])
        state = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(status, TrialState.PRUNED)
        means = [sum(column) / len(values) for column in zip(*values, strict=True)] if values else None
        try:
            self.opened.tell(trial.number, means if state == TrialState.COMPLETE else None, state=state)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            if not self.storage.get_trial(trial_id).state.is_finished():
                raise
        self.presence.worked()
