"""Parameters of stored SQL: `analyse` a statement once, `bind` a caller's values, run the bound statement."""

from service.sql.parameters.analysis import analyse, declarations
from service.sql.parameters.template import (
    BoundStatement,
    Declared,
    Parameter,
    Probe,
    Template,
    label,
)
from service.sql.parameters.windows import Mode, Window

__all__ = [
    "BoundStatement",
    "Declared",
    "Mode",
    "Parameter",
    "Probe",
    "Template",
    "Window",
    "analyse",
    "declarations",
    "label",
]
