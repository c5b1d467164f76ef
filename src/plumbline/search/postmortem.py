"""What a study taught, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from plumbline.search.study import Study


def write_postmortem(study: Study, opened: optuna.Study) -> None:
    """Write report.html into the study's folder."""
