"""The parameters of stored SQL: `analyse` a statement once, `bind` what a caller gives, run the outcome."""

from service.metrics.parameters.analysis import analyse, declarations
from service.metrics.parameters.template import (
    Bound,
    Declared,
    Parameter,
    Probe,
    Template,
)
from service.metrics.parameters.values import exact
from service.metrics.parameters.windows import Mode, Window

__all__ = [
    "Bound",
    "Declared",
    "Mode",
    "Parameter",
    "Probe",
    "Template",
    "Window",
    "analyse",
    "declarations",
    "exact",
]
