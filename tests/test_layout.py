"The repository agrees with itself."
import ast
import configparser
import json
import re
import shutil
import subprocess
import sys

import pytest

NUMBER = re.compile(r'(\d+)([a-z]?)_')


def notebooks(repo): return sorted(p for p in (repo/'nbs').glob('*.ipynb'))


def code_cells(p): return [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'code']


def exports(repo):
    "module name -> notebook."
    found = {}
    for p in notebooks(repo):
        for s in code_cells(p):
            if m := re.match(r'#\| default_exp (\w+)', s): found[m[1]] = p
    return found


def test_top_level(repo):
    need = 'settings.ini nbs layerscale_nb setup.py tests _quarto.yml pyproject.toml Makefile README.md LICENSE CHANGELOG.md CONTRIBUTING.md MANIFEST.in configs .ci/run .github/workflows/test.yml'.split()
    assert not [n for n in need if not (repo/n).exists()]
    link = repo/'nbs'/'_quarto.yml'
    assert link.is_symlink() and link.resolve() == repo/'_quarto.yml'
    assert 'metadata-files: [nbdev.yml, sidebar.yml]' in (repo/'_quarto.yml').read_text()


def test_export_in_sync(repo, tmp_path):
    copy = tmp_path/'copy'
    shutil.copytree(repo, copy, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__', '*.egg-info'))
    for p in (copy/'layerscale_nb').glob('*.py'):
        if p.name != '__init__.py': p.unlink()
    subprocess.run([sys.executable, '-c', 'from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()'], cwd=copy, check=True, capture_output=True)
    for p in (repo/'layerscale_nb').glob('*.py'): assert (copy/'layerscale_nb'/p.name).read_text() == p.read_text(), f'{p.name} is not what its notebook exports: run nbdev_export'
    assert {p.stem for p in (repo/'layerscale_nb').glob('*.py')} == {*exports(repo), '__init__', '_modidx'}


def test_notebooks_clean(repo):
    for p in notebooks(repo):
        nb = json.loads(p.read_text())
        assert 'widgets' not in nb['metadata'], f'{p.name} holds widget state: run nbdev_clean and remove it'
        assert set(nb['metadata']) <= {'kernelspec'}, f'{p.name}: {set(nb["metadata"])}'
        for c in nb['cells']:
            assert c['metadata'] == {}, f'{p.name}: cell metadata'
            if c['cell_type'] == 'code':
                assert c['execution_count'] is None, f'{p.name}: execution counts: run nbdev_clean'
                assert not [o for o in c['outputs'] if o['output_type'] == 'error'], f'{p.name} stores an error'
        assert p.stat().st_size < 700_000, f'{p.name} is {p.stat().st_size/1e3:.0f} kB'


def test_notebooks_show_their_outputs(repo):
    for p in notebooks(repo):
        if p.name == 'index.ipynb': continue
        assert any(c.get('outputs') for c in json.loads(p.read_text())['cells']), f'{p.name} has no outputs: run it before you commit'


def test_imports_go_downwards(repo):
    key = lambda p: NUMBER.match(p.name).groups()
    order = {m: (int(key(p)[0]), key(p)[1]) for m, p in exports(repo).items()}
    for m, p in exports(repo).items():
        used = {x for s in code_cells(p) for x in re.findall(r'layerscale_nb\.(\w+)', s)} - {m}
        assert all(order[u] < order[m] for u in used if u in order), f'{p.name} imports from a later notebook'


def test_module_size_and_cells(repo):
    for m, p in exports(repo).items():
        lines = [l for l in (repo/'layerscale_nb'/f'{m}.py').read_text().splitlines() if l.strip() and not l.startswith('#')]
        assert len(lines) <= 420, f'{m}.py has {len(lines)} lines'
        for s in code_cells(p):
            if s.startswith('#| export'): assert len([l for l in s.splitlines() if l.strip()]) <= 45, f'{p.name}: a cell of over 45 lines'


def test_public_definitions_have_docstrings(repo):
    for m in exports(repo):
        for n in ast.parse((repo/'layerscale_nb'/f'{m}.py').read_text()).body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)): assert ast.get_docstring(n), f'{m}.{n.name} has no docstring'


def test_readme_is_generated(repo):
    assert subprocess.run([sys.executable, 'tests/readme.py', '--check'], cwd=repo).returncode == 0, 'README.md is not index.ipynb: run make readme'


def test_readme_commands_exist(repo):
    text, make = (repo/'README.md').read_text(), (repo/'Makefile').read_text()
    for target in set(re.findall(r'(?m)(?:^|`)make (\w+)', text)): assert re.search(rf'^{target}:', make, re.M), f'README names make {target}'
    assert 'make test' in (repo/'.ci'/'run').read_text()


def test_no_machine_paths(repo):
    files = subprocess.run(['git', 'ls-files'], cwd=repo, capture_output=True, text=True).stdout.split('\n')
    if files == ['']: pytest.skip('not a git checkout')
    bad = re.compile(r'(?<![\w.:~-])/(?:work|root|home|tmp)/[\w.]+')
    hits = {f: m[0] for f in files if f.endswith(('.py', '.ipynb', '.md', '.yml', '.yaml', '.ini', '.csv', '.json')) and (repo/f).is_file() and (m := bad.search((repo/f).read_text(errors='ignore')))}
    assert not hits, hits


def test_stored_results_have_an_origin(repo):
    import pandas as pd
    for p in (repo/'nbs'/'results').glob('*.csv'): assert {'command', 'versions', 'device', 'seed', 'date'} <= set(pd.read_csv(p)), p.name
    for p in (repo/'nbs'/'results').glob('*.json'): assert {'command', 'versions', 'device', 'seed', 'date'} <= set(json.loads(p.read_text())['origin']), p.name


def test_settings(repo):
    c = configparser.ConfigParser(delimiters=['=']); c.read(repo/'settings.ini'); c = c['DEFAULT']
    import layerscale_nb
    assert c['version'] == layerscale_nb.__version__ and c['pip_name'] == 'layerscale-nb' and c['lib_path'] == 'layerscale_nb'


def test_builds(repo, tmp_path):
    "An sdist and, from it, a wheel with all modules, the command and the requirements."
    import zipfile
    src = tmp_path/'src'
    shutil.copytree(repo, src, symlinks=True, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__', '*.egg-info', 'build', 'dist'))
    r = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '-o', str(tmp_path/'dist'), str(src)], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    wheel = zipfile.ZipFile(next((tmp_path/'dist').glob('*.whl')))
    names = wheel.namelist()
    assert {f'layerscale_nb/{m}.py' for m in exports(repo)} <= set(names)
    meta = wheel.read(next(n for n in names if n.endswith('METADATA'))).decode()
    assert 'Requires-Dist: torch>=2.4' in meta and 'layerscale=layerscale_nb.cli:main' in wheel.read(next(n for n in names if n.endswith('entry_points.txt'))).decode().replace(' ', '')


def test_imports_stand_alone(repo):
    "nbdev's docs step runs every cell with an import, so a cell holds imports or code, not both."
    for p in notebooks(repo):
        for s in code_cells(p):
            kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(s).body}
            assert len(kinds) < 2, f'{p.name} mixes imports and code in one cell:\n{s}'


def test_a_line_holds_one_statement(repo):
    "Lines of the modules hold at most 120 characters and one statement; the generated index and lists of names are left out."
    import tokenize
    seen = 0
    for p in sorted((repo/'layerscale_nb').glob('*.py')):
        if p.name == '_modidx.py': continue
        body = p.read_text().split('# %% ../nbs', 1)
        if len(body) < 2: continue
        long = [l for l in body[1].splitlines() if len(l) > 120]
        assert not long, f'{p.name} has a line of {len(long[0])} characters: {long[0].strip()[:80]}'
        with p.open('rb') as f: several = [t.start[0] for t in tokenize.tokenize(f.readline) if t.type == tokenize.OP and t.string == ';']
        assert not several, f'{p.name}, line {several[0]}: several statements in a line'
        seen += 1
    assert seen > 40
