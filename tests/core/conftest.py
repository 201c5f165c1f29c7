"""Settings of the property tests: the same examples in every run, and no clock."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("mlrs", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("mlrs")
