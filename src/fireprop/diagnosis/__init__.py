"""Why does a network not learn? Measurements of data, network and training, and the faults that they point to."""

from fireprop.diagnosis.examination import diagnose
from fireprop.diagnosis.report import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
