"Each lesson asks before it shows, exports nothing, is short, and runs as a single file in an empty folder."
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from layerscale_nb.lessons import SITE, lesson_rows, lesson_table, write_lessons

root = Path(__file__).resolve().parent.parent
ROWS = {r['file']: r for r in lesson_rows(root/'nbs'/'lessons')}
LESSONS = [root/'nbs'/'lessons'/name for name in ROWS]


def cells(p): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(p.read_text(encoding='utf-8'))['cells']]


def place(p, pattern):
    "The number of the first code cell that holds the pattern."
    return next((i for i, (kind, s) in enumerate(cells(p)) if kind == 'code' and re.search(pattern, s)), 10**6)


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_asks_first(lesson):
    found = cells(lesson)
    assert not [s for _, s in found if '#| export' in s or '#| default_exp' in s]
    assert re.match(r'# \d\d .+\n\n> .+\?', found[0][1]), 'number, title and question'
    assert 'colab.research.google.com' in found[0][1] and lesson.name in found[0][1], 'a link that opens it in Colab'
    assert place(lesson, r'= Guess\(') <= 8 and place(lesson, r'guess\w*\.then\(') <= 12
    row = ROWS[lesson.name]
    assert row['cells'] <= 70 and row['words'] <= 2500 and row['guesses'] and 3 <= len(row['exercises']) <= 5, row


def test_lessons_share_their_first_cells(repo):
    "Fifteen lessons, numbered without a gap, with one cell that installs the package on Colab; the site is where settings.ini says."
    assert [p.stem[:2] for p in LESSONS] == [f'{i:02d}' for i in range(1, 16)]
    assert len({cells(p)[1] for p in LESSONS}) == 1 and 'google.colab' in cells(LESSONS[0])[1][1]
    settings = dict(l.split(' = ', 1) for l in (repo/'settings.ini').read_text().splitlines() if ' = ' in l)
    assert SITE == settings['doc_host'] + settings['doc_baseurl']


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_agrees_with_the_library_and_links_to_it(lesson):
    text = '\n'.join(s for _, s in cells(lesson))
    assert re.search(r'\b(assert|test_eq|test_close)\b', text) and re.search(r'\]\(\.\./\w+/\w+\.ipynb\)', text)
    assert 'Takeaways' in text and 'Exercise' in text


def run(*command, cwd, **env):
    r = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env})
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    return r.stdout


def copied(source, to, **kw):
    left = '.venv', '.git', 'runs', '_proc', '_docs', '__pycache__', 'build', 'dist', '*.egg-info'
    return shutil.copytree(source, to, symlinks=True, ignore=shutil.ignore_patterns(*left), **kw)


def wheel_of(source, work):
    run(sys.executable, '-m', 'pip', '-q', 'wheel', '--no-deps', '--no-build-isolation', '-w', work, source, cwd=work)
    return next(work.glob('*.whl'))


def unpacked(wheel):
    "The folder that pip installs the wheel into."
    site = wheel.parent/'site'
    run(sys.executable, '-m', 'pip', '-q', 'install', '--no-deps', '--target', site, wheel, cwd=wheel.parent)
    return site


@pytest.fixture(scope='module')
def installed(repo, tmp_path_factory):
    "The package as its wheel installs it, in a folder of its own."
    work = tmp_path_factory.mktemp('wheel')
    return unpacked(wheel_of(copied(repo, work/'copy'), work))


def by_wheel(repo, installed, work): return installed, installed/'layerscale_nb'/'stored'


def by_sdist(repo, installed, work):
    "A wheel built from an unpacked sdist; it holds the same files as the wheel built from the clone."
    build = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
    run(sys.executable, '-c', build, work, cwd=copied(repo, work/'copy'))
    shutil.unpack_archive(next(work.glob('*.tar.gz')), work/'sdist')
    site = unpacked(wheel_of(next((work/'sdist').iterdir()), work))
    files = lambda folder: {str(p.relative_to(folder)) for p in folder.rglob('*') if p.suffix != '.pyc' and p.is_file()}
    assert {f for f in files(site) ^ files(installed) if 'direct_url' not in f} == set()
    return site, site/'layerscale_nb'/'stored'


def by_editable(repo, installed, work):
    "What `pip install -e` puts beside the other packages: a wheel that points to the clone."
    build = 'import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])'
    copy = copied(repo, work/'copy')
    run(sys.executable, '-c', build, work, cwd=copy)
    return unpacked(next(work.glob('*.whl'))), copy


def by_clone_without_symlinks(repo, installed, work):
    "As git checks it out with core.symlinks=false: a link is a file that holds its target."
    copy = copied(repo, work/'copy')
    for p in copy.rglob('*'):
        if not p.is_symlink(): continue
        target = os.readlink(p)
        p.unlink()
        p.write_text(target)
    return copy, copy


def by_wheel_in_a_clone(repo, installed, work):
    (work/'here').mkdir()
    return installed, copied(repo, work/'here', dirs_exist_ok=True)


def by_wheel_in_another_project(repo, installed, work):
    "Another project made with nbdev, with files of the same names, is not a clone of this one."
    for name in ('nbs/lessons', 'results', 'configs'): (work/'here'/name).mkdir(parents=True)
    for name in ('settings.ini', 'results/ablation.csv', 'configs/baseline.yaml'): (work/'here'/name).write_text('')
    return installed, installed/'layerscale_nb'/'stored'


STORED = 'results/ablation.csv', 'configs/baseline.yaml', 'lessons/01_costs.ipynb', 'images/live.png'
LOOK = f'''import site, sys
first, others = sys.argv[1:]
site.addsitedir(first)
site.addsitedir(others)
from layerscale_nb.cli import main
from layerscale_nb.core import stored
main(['lessons', '../written'])
print(*map(stored, {STORED!r}), sep='\\n')'''


@pytest.mark.parametrize('way', [by_wheel, by_sdist, by_editable, by_clone_without_symlinks, by_wheel_in_a_clone,
                                 by_wheel_in_another_project], ids=lambda f: f.__name__)
def test_stored_files_are_found(way, repo, installed, tmp_path):
    "However the package was installed, from an empty folder, from a clone and from another project."
    site, there = way(repo, installed, tmp_path)
    (tmp_path/'here').mkdir(exist_ok=True)
    others = sysconfig.get_path('purelib')
    out = run(sys.executable, '-S', '-c', LOOK, str(site), others, cwd=tmp_path/'here', PYTHONPATH='')
    assert all(Path(p).is_relative_to(there) for p in out.splitlines()[-len(STORED):]), out
    assert len(list((tmp_path/'written').glob('*.ipynb'))) == len(LESSONS) + 1  # and the list of them


def test_a_wheel_holds_what_lessons_need(installed, repo):
    stored = installed/'layerscale_nb'/'stored'
    for name, source in dict(results='nbs/results', lessons='nbs/lessons', images='nbs/images', configs='configs').items():
        there = {str(p.relative_to(repo/source)) for p in (repo/source).rglob('*') if p.is_file() and not {'runs', '.ipynb_checkpoints', 'layerscale-progress.json'} & set(p.parts)}
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


def test_guesses_and_solved_exercises_are_kept(tmp_path, monkeypatch, capsys):
    from layerscale_nb.cli import main
    from layerscale_nb.live.controls import Guess
    from layerscale_nb.live.progress import PROGRESS, attempt, calibration, read_progress
    monkeypatch.chdir(tmp_path)
    guess = Guess('How many?', about='acts')
    guess.judge(8)
    assert not (tmp_path/PROGRESS).exists() and attempt('01.1', 'not 3') == 'not 3', 'nothing was committed'
    guess.commit('3')
    guess.judge(8)
    word = Guess('Which?', options=('a', 'b'))
    word.commit('b')
    word.judge('b')
    attempt('01.1', 'right')
    assert calibration(read_progress()['guesses'].values()) == 'within a factor of 2 on 0 of 1; you underrate acts; right on 1 of 1 questions in words'
    assert not main(['lessons', str(tmp_path), '--progress']) and 'solved exercises: 01.1' in capsys.readouterr().out
    (tmp_path/PROGRESS).write_text('{"guesses": ')
    assert attempt('01.2', 'right') == 'right' and 'not kept' in capsys.readouterr().out
    assert main(['lessons', str(tmp_path), '--progress']) == 2 and 'not readable as JSON' in capsys.readouterr().err


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_keeps_guesses_and_exercises(lesson):
    text = '\n'.join(s for kind, s in cells(lesson) if kind == 'code')
    numbers = re.findall(r"^attempt\('(\d\d)\.(\d)', check_", text, re.M)
    assert [*numbers] == [(lesson.stem[:2], str(i + 1)) for i in range(len(numbers))] and len(numbers) >= 2
    assert len(re.findall(r'^guess\w*\.judge\(', text, re.M)) == len(re.findall(r'= Guess\(', text))


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_the_site_knows_the_answer_to_each_guess(lesson):
    "The stored output of `judge` holds the true answer, under the name that the guess has on the site. If not, run the lesson again."
    from layerscale_nb.live.progress import guess_id
    outputs = [o for c in json.loads(lesson.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    html = ''.join(''.join(o.get('data', {}).get('text/html', '')) for o in outputs)
    answers = dict(re.findall(r'data-judge="([\w-]+)" data-true="([^"]+)"', html))
    assert answers.keys() == {guess_id(q) for q in ROWS[lesson.name]['guesses']}


def test_the_table_of_lessons_finds_them_by_itself():
    table = lesson_table()
    assert [*table.index] == [*(r['title'] for r in ROWS.values()), 'all']
    assert all(table[k]['all'] == table[k].iloc[:-1].sum() for k in table if k != 'seconds') and table.cells.min() > 0 and table.checks.min() > 3


def test_a_written_lesson_does_not_show_the_answers(tmp_path):
    "The outputs that answer a guess are left out of a learner's copy, and nothing else is."
    write_lessons(tmp_path)
    for p in LESSONS:
        here, there = (json.loads(f.read_text(encoding='utf-8'))['cells'] for f in (p, tmp_path/p.name))
        changed = [''.join(a['source']) for a, b in zip(here, there) if a.get('outputs') != b.get('outputs')]
        assert changed and all('.judge(' in s for s in changed) and 'you said nothing' not in json.dumps([c.get('outputs') for c in there]), p.name
