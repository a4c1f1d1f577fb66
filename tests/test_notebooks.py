"Every notebook, top to bottom in a real kernel as a reader would; by nbdev's own runner too in `make prove`."
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(str(p.relative_to(root/'nbs')) for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
IGNORED = shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__', '.ipynb_checkpoints')


@pytest.mark.prove
def test_nbdev_test(repo):
    command = [str(Path(sys.executable).parent/'nbdev_test'), '--n_workers', '1']
    r = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-4000:]


@pytest.fixture(scope='module')
def kernel():
    "One real kernel for all notebooks of this process, since each start costs the import of torch; (manager, client)."
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbformat import v4
    first = NotebookClient(v4.new_notebook(), km=AsyncKernelManager(kernel_name='python3'))
    first.start_new_kernel()
    first.start_new_kernel_client()
    yield first.km, first.kc
    first._cleanup_kernel()


CLEAN = """%reset -f
import os, sys
import ipywidgets, matplotlib.pyplot
os.chdir({folder!r})
ipywidgets.Widget.close_all()
matplotlib.pyplot.close('all')
del os, sys, ipywidgets, matplotlib
__spec__ = None  # which processes that a notebook starts look for"""


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_in_a_real_kernel(name, kernel, tmp_path):
    import nbformat
    from nbclient import NotebookClient
    work = (tmp_path/'nbs'/name).parent
    work.mkdir(parents=True)
    nb = nbformat.read(root/'nbs'/name, as_version=4)
    nb.cells.insert(0, nbformat.v4.new_code_cell(CLEAN.format(folder=str(work))))
    start = time.time()
    client = NotebookClient(nb, timeout=300, km=kernel[0])
    client.kc = kernel[1]
    client.execute()
    print(f'{name}: {time.time() - start:.0f} s')


@pytest.mark.parametrize('pages', [('index.ipynb', 'readme.ipynb', 'cost.ipynb', 'nets/count.ipynb', 'detect/train.ipynb'),
                                   pytest.param(NOTEBOOKS, marks=pytest.mark.prove)], ids=['four', 'all'])
def test_docs_half_build(repo, tmp_path, pages):
    "Notebooks are processed for the site without Quarto: no raw directives, signatures shown."
    copy = tmp_path/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=IGNORED)
    for name in set(NOTEBOOKS) - set(pages): (copy/'nbs'/name).unlink()
    code = 'import sys; sys.path.insert(0, "tests"); import docs, pathlib; docs.root = pathlib.Path(".").resolve(); docs.half_build()'
    (copy/'half.py').write_text(f'if __name__ == "__main__":\n    {code}\n')
    r = subprocess.run([sys.executable, 'half.py'], cwd=copy, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]
    made = sorted(str(p.relative_to(copy/'_proc')) for p in (copy/'_proc').rglob('*.ipynb'))
    assert made == sorted(set(pages) - {'readme.ipynb'})
    assert 'nets/count.ipynb' in (copy/'nbs'/'sidebar.yml').read_text()
    assert 'lr_at' in (copy/'_proc'/'detect'/'train.ipynb').read_text()


@pytest.mark.skipif(not shutil.which('quarto'), reason='Quarto is not on PATH: the half build above is tested, the render is not')
def test_quarto_renders(repo, tmp_path):
    copy = tmp_path/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=IGNORED)
    assert subprocess.run([sys.executable, 'tests/docs.py'], cwd=copy).returncode == 0
