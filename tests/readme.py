"README.md from nbs/index.ipynb, without its hidden cells; `--check` only compares."
import sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent


def readme() -> str:
    nb = nbformat.read(root/'nbs'/'index.ipynb', as_version=4)
    nb.cells = [c for c in nb.cells if not c.source.startswith('#| hide')]
    text = MarkdownExporter().from_notebook_node(nb)[0]
    return text.replace('(images/', '(nbs/images/').strip() + '\n'


if __name__ == '__main__':
    if '--check' in sys.argv: sys.exit((root/'README.md').read_text() != readme())
    (root/'README.md').write_text(readme())
