"""What Hydra calls for `-m`. It hands the command line on as it is: the study, its trials and workers are plumbline.search.

Every run imports this file, so it imports little; and Hydra 1.3 runs it before it is in sys.modules, so no dataclass.
"""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """Gives the composed configuration, without what is searched, to the command; HydraConfig has all the words."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function, self.config = task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        HydraConfig.instance().set_config(self.config)
        config = self.config.copy()
        config._set_flag(["struct", "readonly"], [False, False])
        del config["hydra"]
        config._set_flag("struct", True)
        return self.task_function(config)
