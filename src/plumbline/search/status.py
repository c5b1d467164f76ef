"""`python -m plumbline.search.status study=<name> [--watch] [--report]`: how a study is doing; reads only storage.

--report writes trials.csv, best.yaml and report.html of a study that is not done yet, or again.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from plumbline import exits
from plumbline.contract import ConfigError
from plumbline.output import print_error, print_safe, printable
from plumbline.search.study import Study, find
from plumbline.search.worker import read

if TYPE_CHECKING:
    import optuna

WORDS = {"study": "", "outputs": "outputs"}


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return exits.DONE
    words = [word for word in sys.argv[1:] if word not in ("--watch", "--report")]
    try:
        options = read(words, WORDS)
        study = Study.read(find(options["study"], options["outputs"]))
        opened = study.open()
    except ConfigError as error:
        print_error(error)
        return exits.MISTAKE
    try:
        return show(study, opened)
    except ConfigError as error:
        print_error(error)
        return exits.MISTAKE


def show(study: Study, opened: optuna.Study) -> int:
    """Print how a study is doing, and write what it leaves if that is asked for; return the exit status."""
    from plumbline.search.watch import View, Watch, closing, workers

    view = View(study, opened)
    try:
        if "--watch" in sys.argv:
            with Watch(view) as watch:
                while not view.done:
                    watch.look()
                    time.sleep(1)
                watch.look()
    except KeyboardInterrupt:
        pass  # who watches may leave
    if "--report" in sys.argv:
        from plumbline.search.finish import finish

        finish(study, opened)
    print_safe(f"study {printable(study.name)}: {printable(study.command)}")
    print_safe("\n".join(closing(view)))
    print_safe(f"{workers(study)} workers at it")
    for trial in view.trials:
        if not trial.state.is_finished():
            print_safe(view.line(trial))
    return exits.DONE


if __name__ == "__main__":
    exits.outlast_the_reader()
    sys.exit(main())
