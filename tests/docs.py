"""Build the site. nbdev's half always runs (notebooks processed, sidebar made); Quarto renders it if it is on PATH."""
import os, shutil, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def half_build():
    "What `nbdev_docs` does before Quarto: into `_proc`, without a network."
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    from nbdev.serve import proc_nbs
    os.chdir(root)
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    proc_nbs()


if __name__ == '__main__':
    half_build()
    if not shutil.which('quarto'):
        print('notebooks are processed in _proc. Quarto is not installed, so the site was not rendered: https://quarto.org/docs/get-started')
        sys.exit(0)
    sys.exit(subprocess.call(['quarto', 'render', str(root/'_proc'), '--no-execute']))
