"""The documentation site: how Sphinx builds it, offline, from the pages here and from the sources."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

project = "mlrs"
author = "The mlrs authors"
copyright = author  # noqa: A001 # Sphinx's name for it
release = version = version_of("mlrs")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "docs._ext.repository_links",
    "docs._ext.docstrings",
    "docs._ext.api_pages",
    "docs._ext.settings",
    "docs._ext.contract",
    "docs._ext.metrics",
    "docs._ext.offline",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # any name in backticks may be one; most are not
    ("py:(class|data|exc)", r"(?!mlrs\.).*"),  # other packages'
    ("py:(class|data|exc)", r"mlrs\.([a-z_]+\.)+.*"),  # what has no public name
]
default_role = "name"
smartquotes = False  # options of commands begin with two hyphens, outside of code as well

# Pages: Markdown, with anchors at headings as code hosts make them.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
mlrs_repository_url = os.environ.get("MLRS_REPOSITORY_URL", "").rstrip("/")

# Python: docstrings are Google's style with Markdown's backticks.
autodoc_mock_imports = [
    "jax",
    "keras",
    "lightgbm",
    "lightning",
    "mlflow",
    "optax",
    "pytorch_lightning",
    "timm",
    "transformers",
    "wandb",
    "xgboost",
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"AdvisedLR": "mlrs.torch.AdvisedLR", "Run": "mlrs.Run"}  # imported for types only
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The look. Nothing is loaded from elsewhere.
html_theme = "furo"
html_title = f"mlrs {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
linkcheck_anchors = False
copybutton_prompt_text = "$ "
