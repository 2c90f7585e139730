"""The API as /openapi.json describes it: made-up requests by schemathesis, and what a reader needs of the description."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error  # noqa: F401
