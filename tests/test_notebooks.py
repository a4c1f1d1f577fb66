"Every notebook, twice: by nbdev's runner, and top to bottom in a real kernel as a reader would."
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p.name for p in (root/'nbs').glob('*.ipynb'))


def test_nbdev_test(repo):
    r = subprocess.run([str(Path(sys.executable).parent/'nbdev_test'), '--n_workers', '1'], cwd=repo, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-4000:]


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_in_a_real_kernel(name, tmp_path):
    import nbformat
    from nbclient import NotebookClient
    work = tmp_path/'nbs'; shutil.copytree(root/'nbs', work, symlinks=False, ignore=shutil.ignore_patterns('*.ipynb', '_quarto.yml'))
    shutil.copytree(root/'configs', tmp_path/'configs')
    nb = nbformat.read(root/'nbs'/name, as_version=4)
    start = time.time()
    NotebookClient(nb, timeout=300, kernel_name='python3', resources=dict(metadata=dict(path=str(work)))).execute()
    print(f'{name}: {time.time() - start:.0f} s')


def test_docs_half_build(repo, tmp_path):
    "Notebooks are processed for the site without Quarto: no raw directives, signatures shown."
    copy = tmp_path/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__'))
    code = 'import sys; sys.path.insert(0, "tests"); import docs, pathlib; docs.root = pathlib.Path(".").resolve(); docs.half_build()'
    script = copy/'half.py'; script.write_text(f'if __name__ == "__main__":\n    {code}\n')
    r = subprocess.run([sys.executable, 'half.py'], cwd=copy, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]
    made = sorted(p.name for p in (copy/'_proc').glob('*.ipynb'))
    assert made == NOTEBOOKS
    assert '00_core.ipynb' in (copy/'nbs'/'sidebar.yml').read_text()
    assert 'lr_at' in (copy/'_proc'/'09_train.ipynb').read_text()


@pytest.mark.skipif(not shutil.which('quarto'), reason='Quarto is not on PATH: the half build above is tested, the render is not')
def test_quarto_renders(repo, tmp_path):
    copy = tmp_path/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__'))
    assert subprocess.run([sys.executable, 'tests/docs.py'], cwd=copy).returncode == 0
