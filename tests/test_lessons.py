"Each lesson asks before it shows, exports nothing, is short, and runs as a single file in an empty folder."
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerscale_nb.lessons import SITE

root = Path(__file__).resolve().parent.parent
LESSONS = sorted((root/'nbs'/'lessons').glob('*.ipynb'))


def cells(p): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(p.read_text(encoding='utf-8'))['cells']]


def place(p, pattern):
    "The number of the first code cell that holds the pattern."
    return next((i for i, (kind, s) in enumerate(cells(p)) if kind == 'code' and re.search(pattern, s)), 10**6)


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_asks_first(lesson):
    found = cells(lesson)
    assert len(found) <= 70 and not [s for _, s in found if '#| export' in s or '#| default_exp' in s]
    assert re.match(r'# \d\d .+\n\n> .+\?', found[0][1]), 'number, title and question'
    assert 'colab.research.google.com' in found[0][1] and lesson.name in found[0][1], 'a link that opens it in Colab'
    assert place(lesson, r'= Guess\(') <= 8 and place(lesson, r'guess\w*\.then\(') <= 12
    words = sum(len(s.split()) for kind, s in found if kind == 'markdown')
    assert words <= 2500, words


def test_lessons_share_their_first_cells(repo):
    "Ten lessons, numbered without a gap, with one cell that installs the package on Colab; the site is where settings.ini says."
    assert [p.stem[:2] for p in LESSONS] == [f'{i:02d}' for i in range(1, 11)]
    assert len({cells(p)[1] for p in LESSONS}) == 1 and 'google.colab' in cells(LESSONS[0])[1][1]
    settings = dict(l.split(' = ', 1) for l in (repo/'settings.ini').read_text().splitlines() if ' = ' in l)
    assert SITE == settings['doc_host'] + settings['doc_baseurl']


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_agrees_with_the_library_and_links_to_it(lesson):
    text = '\n'.join(s for _, s in cells(lesson))
    assert re.search(r'\b(assert|test_eq|test_close)\b', text) and re.search(r'\]\(\.\./\w+/\w+\.ipynb\)', text)
    assert 'Takeaways' in text and 'Exercise' in text


@pytest.fixture(scope='module')
def installed(repo, tmp_path_factory):
    "The package as its wheel installs it, in a folder of its own."
    work = tmp_path_factory.mktemp('wheel')
    copy = work/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', 'build', '*.egg-info'))
    pip = [sys.executable, '-m', 'pip']
    for args in (['wheel', '--no-deps', '--no-build-isolation', '-w', str(work), str(copy)],
                 ['install', '--no-deps', '--target', str(work/'site')]):
        if args[0] == 'install': args.append(str(next(work.glob('*.whl'))))
        r = subprocess.run([*pip, '-q', *args], capture_output=True, text=True, cwd=work)
        assert r.returncode == 0, r.stderr[-2000:]
    return work/'site'


def test_a_wheel_holds_what_lessons_need(installed, repo):
    stored = installed/'layerscale_nb'/'stored'
    for name, source in dict(results='nbs/results', lessons='nbs/lessons', images='nbs/images', configs='configs').items():
        there = {str(p.relative_to(repo/source)) for p in (repo/source).rglob('*') if p.is_file() and not {'runs', '.ipynb_checkpoints'} & set(p.parts)}
        assert {str(p.relative_to(stored/name)) for p in (stored/name).rglob('*') if p.is_file()} == there


ALONE = '02_scaling'  # one in `make test`, the others in `make prove`


@pytest.mark.parametrize('lesson', [p if p.stem == ALONE else pytest.param(p, marks=pytest.mark.prove) for p in LESSONS], ids=lambda p: p.stem)
def test_a_lesson_runs_alone(lesson, installed, tmp_path, monkeypatch):
    "As a single file in an empty folder, written by `layerscale lessons`, with only the wheel installed."
    import nbformat
    from nbclient import NotebookClient
    monkeypatch.setenv('PYTHONPATH', str(installed))
    code = f'import sys; from layerscale_nb.cli import main; sys.exit(main(["lessons", {str(tmp_path/"all")!r}]))'
    assert subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path/'alone').mkdir()
    shutil.move(tmp_path/'all'/lesson.name, tmp_path/'alone')
    nb = nbformat.read(tmp_path/'alone'/lesson.name, as_version=4)
    nb.cells.insert(0, nbformat.v4.new_code_cell(f'import layerscale_nb\nassert layerscale_nb.__file__.startswith({str(installed)!r})'))
    NotebookClient(nb, timeout=200, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path/'alone')))).execute()
