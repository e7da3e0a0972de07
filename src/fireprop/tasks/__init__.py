"""The tasks that `fireprop train` knows: their data, their network, and the settings that work."""

from fireprop.plans import DTYPES, Splits
from fireprop.tasks.config import (
    PLANS,
    Config,
    default_config,
    load_splits,
    plan_of,
    reads_files,
    require_data,
)
from fireprop.tasks.loading import encode
from fireprop.tasks.network import build_network
from fireprop.tasks.oxford import OxfordConfig
from fireprop.tasks.table import TASKS, TRAINABLE, Task

__all__ = [
    "DTYPES",
    "PLANS",
    "TASKS",
    "TRAINABLE",
    "Config",
    "OxfordConfig",
    "Splits",
    "Task",
    "build_network",
    "default_config",
    "encode",
    "load_splits",
    "plan_of",
    "reads_files",
    "require_data",
]
