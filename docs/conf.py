"""Configuration of the documentation site, which ``make docs`` builds from this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import oiyolo

project = "oiyolo"
version = release = oiyolo.__version__
project_copyright = "the oiyolo authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs._extensions.site_pages",
    "docs._extensions.api_reference",
]
exclude_patterns = ["_extensions", "_static"]

site_navigation = {
    "Tutorial": ["tutorial"],
    "Notebooks": ["notebooks/*"],
    "How-to: the dataset": [
        "select",
        "fetch",
        "dataset",
        "import",
        "interchange",
        "refresh",
        "provenance",
    ],
    "How-to: the detector": ["training", "tracking", "charts", "predict", "export"],
    "How-to: machines, storage": ["gcp-vm", "gpu", "building", "scale", "buckets", "transfer"],
    "Reference": ["commands", "configuration", "api", "files", "logs"],
    "Explanation": [
        "explanations/hierarchy",
        "explanations/group-of",
        "explanations/negatives",
        "explanations/leakage",
        "explanations/when-to-stop",
        "explanations/map-differences",
        "evaluation",
        "report",
        "review",
        "engines",
    ],
    "The project": [
        "project/changelog",
        "project/contributing",
        "project/architecture",
        "project/benchmarks",
    ],
}
notebooks = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
site_root_files = {
    **{f"notebooks/{path.stem}": f"notebooks/{path.name}" for path in notebooks},
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/architecture": "ARCHITECTURE.md",
    "project/benchmarks": "benchmarks/README.md",
}

myst_enable_extensions = ["alert"]  # GitHub's notes: `> [!NOTE]`
myst_heading_anchors = 4
highlight_language = "none"  # blocks without a language are the output of commands
default_role = "code"  # single backticks in docstrings

autodoc_class_signature = "separated"  # results are not constructed by users
autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"oiyolo {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}
