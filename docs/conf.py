"""How Sphinx builds the site: `nox -s docs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prefetch_generator

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "prefetch_generator"
version = release = prefetch_generator.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False  # there is none: see LICENSE

myst_heading_anchors = 3
highlight_language = "text"  # a block without a language is a drawing
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

autodoc_inherit_docstrings = False
add_module_names = False
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True  # attributes in a list, like the arguments

# A name between backticks in a docstring is a link where the reference has that name, and code elsewhere.
default_role = "py:obj"
nitpicky = True
# Python's own types are named and not linked: their addresses would have to be fetched at every build.
nitpick_ignore_regex = [("py:class", r"(collections\.abc|contextlib)\..*|[a-z]+|Self|.*\bT_co")]


def code_without_link(
    _app: Sphinx, _env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.TextElement | None:
    """Show what is between backticks as code if it is no public name."""
    return content if node["reftype"] == "obj" else None


def offer_files_outside(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Let a link to a file of the repository that is no page of the site download it; a missing one is an error."""
    outside = "../" * (docname.count("/") + 1)
    source[0] = source[0].replace(f"]({outside}", f"](path:{outside}")


def setup(app: Sphinx) -> None:
    """Tell Sphinx of both."""
    app.connect("missing-reference", code_without_link)
    app.connect("source-read", offer_files_outside)
