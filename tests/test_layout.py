"The repository agrees with itself. Every test here walks all folders; `test_nothing_is_overlooked` says so."
import ast
import builtins
import configparser
import inspect
import json
import re
import shlex
import shutil
import subprocess
import symtable
import sys
import tarfile
import tokenize
from fnmatch import fnmatch

import nbformat
import pytest
from house import ALIASES, FOLDERS, folder_of

IGNORED = ('.venv', '.git', 'runs', '_proc', '_docs', '__pycache__', '.ipynb_checkpoints', '*.egg-info', 'build', 'dist')


def notebooks(repo):
    return sorted(p for p in (repo/'nbs').rglob('*.ipynb') if not any(part.startswith(('.', '_')) for part in p.parts))


def modules(repo):
    "dotted module name -> file, all but the generated index and the empty package files."
    found = sorted(p for p in (repo/'layerscale_nb').rglob('*.py') if p.name not in ('__init__.py', '_modidx.py'))
    return {'.'.join(p.relative_to(repo/'layerscale_nb').with_suffix('').parts): p for p in found}


def code_cells(p): return [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'code']


def exports(repo):
    "dotted module name -> its notebook."
    found = {}
    for p in notebooks(repo):
        for s in code_cells(p):
            if m := re.match(r'#\| default_exp ([\w.]+)', s): found[m[1]] = p
    return found


def tracked(repo, *patterns):
    "The files that git tracks, or those that an unpacked sdist came with."
    listed = repo/'layerscale_nb.egg-info'/'SOURCES.txt'
    if (repo/'.git').exists():
        command = ['git', 'ls-files', *patterns]
        found = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout.splitlines()
    elif (repo/'PKG-INFO').exists() and listed.exists():
        found = [f for f in listed.read_text().splitlines() if not patterns or any(fnmatch(f, p) for p in patterns)]
    else: pytest.skip('neither a git checkout nor an unpacked sdist: nothing says which files belong to it')
    return [f for f in found if (repo/f).is_file()]


def copied(repo, to):
    shutil.copytree(repo, to, symlinks=True, ignore=shutil.ignore_patterns(*IGNORED))
    return to


def test_nothing_is_overlooked(repo):
    "The walks see every notebook and every module that git tracks."
    seen = {str(p.relative_to(repo)) for p in notebooks(repo)}
    assert seen >= set(tracked(repo, '*.ipynb')) and len(seen) > 40
    written = {f for f in tracked(repo, 'layerscale_nb/*.py') if not f.endswith(('__init__.py', '_modidx.py'))}
    assert {str(p.relative_to(repo)) for p in modules(repo).values()} >= written and len(written) > 40


def test_top_level(repo):
    need = ('settings.ini nbs layerscale_nb setup.py tests _quarto.yml pyproject.toml Makefile README.md LICENSE CHANGELOG.md '
            'CONTRIBUTING.md MANIFEST.in configs .ci/run .github/workflows/test.yml')
    assert not [n for n in need.split() if not (repo/n).exists()]
    link = repo/'nbs'/'_quarto.yml'
    assert link.resolve() == repo/'_quarto.yml' or link.read_text() in ('../_quarto.yml', (repo/'_quarto.yml').read_text())
    assert 'metadata-files: [nbdev.yml, sidebar.yml]' in (repo/'_quarto.yml').read_text()


def test_export_in_sync(repo, tmp_path):
    copy = copied(repo, tmp_path/'copy')
    for p in modules(copy).values(): p.unlink()
    code = 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()'
    subprocess.run([sys.executable, '-c', code], cwd=copy, check=True, capture_output=True)
    for m, p in modules(repo).items():
        assert modules(copy).get(m) and modules(copy)[m].read_text() == p.read_text(), f'{m} is not what its notebook exports'
    assert set(modules(repo)) == set(exports(repo))


def test_a_module_lies_where_its_notebook_lies(repo):
    for m, p in exports(repo).items():
        name = m.strip('_').replace('.', '/')  # nbdev passes over files whose names begin with an underscore
        assert p == repo/'nbs'/f'{name}.ipynb', f'{p.name} exports {m}'


def imports_of(repo):
    "(module, module it imports, line), also of imports inside functions."
    known = modules(repo)
    for m, p in known.items():
        for n in ast.walk(ast.parse(p.read_text())):
            if not isinstance(n, ast.ImportFrom): continue
            if n.level: base = '.'.join(m.split('.')[:-n.level] + ([n.module] if n.module else []))
            elif n.module.startswith('layerscale_nb'): base = n.module[len('layerscale_nb'):].lstrip('.')
            else: continue
            for a in n.names: yield m, base if base in known else f'{base}.{a.name}'.lstrip('.'), n.lineno


def test_imports_go_downwards(repo):
    "A module imports from its own folder and from those above it in the one list."
    seen, order = 0, list(FOLDERS)
    for m, used, line in imports_of(repo):
        if m in ALIASES: continue
        assert used in modules(repo) and used not in ALIASES, f'{m}, line {line}: there is no {used}'
        above = order.index(folder_of(used)) <= order.index(folder_of(m))
        assert above, f'{m}, line {line}: imports {used}, whose folder is below its own'
        seen += 1
    assert seen > 150


def test_no_circles(repo):
    edges = {}
    for m, used, _ in imports_of(repo): edges.setdefault(m, set()).add(used)

    def visit(m, path):
        assert m not in path, ' imports '.join([*path[path.index(m):], m])
        if m in done: return
        for used in edges.get(m, ()): visit(used, [*path, m])
        done.add(m)

    done = set()
    for m in modules(repo): visit(m, [])


def test_notebooks_clean(repo):
    for p in notebooks(repo):
        nb = json.loads(p.read_text())
        nbformat.validate(nb)  # Quarto stops at a cell of an unknown type
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
        if not code_cells(p): continue
        shown = any(c.get('outputs') for c in json.loads(p.read_text())['cells'])
        assert shown, f'{p.name} has no outputs: run it before you commit'


def test_figures_say_what_they_show(repo):
    "A cell with a picture has `#| fig-alt` among its first lines, and every drawing in HTML has a label."
    for p in notebooks(repo):
        for c in json.loads(p.read_text())['cells']:
            source, kinds = ''.join(c['source']), [k for o in c.get('outputs', []) for k in o.get('data', {})]
            if any(k.startswith('image/') for k in kinds):
                assert re.match(r'(#\|.*\n)*#\| fig-alt: "[^"\\]{20,}"\n', source), f'{p.name} {c["id"]} has a picture and no fig-alt'
            for o in c.get('outputs', []):
                html = ''.join(o.get('data', {}).get('text/html', ''))
                assert all('role="img" aria-label="' in svg for svg in re.findall(r'<svg[^>]*>', html)), f'{p.name} {c["id"]}'


def test_links_between_notebooks(repo):
    "Links name the notebook, so that they work in JupyterLab, on GitHub and on the site; none is dead."
    for p in notebooks(repo):
        text = '\n'.join(''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'markdown')
        assert not re.findall(r'\]\((?!http)[^)]*\.html', text), f'{p.name} links to an .html page'
        for target in re.findall(r'\]\((?!http)([^)#]+\.(?:ipynb|png|csv|json))', text):
            assert (p.parent/target).exists(), f'{p.name} links to {target}, which is not there'


def test_module_size_and_lines(repo):
    for m, p in modules(repo).items():
        text = p.read_text()
        lines = [l for l in text.splitlines() if l.strip() and not l.startswith('#')]
        assert len(lines) <= 420, f'{m} has {len(lines)} lines'


def test_cells_are_short(repo):
    for p in notebooks(repo):
        for s in code_cells(p):
            if s.startswith('#| export'): assert len([l for l in s.splitlines() if l.strip()]) <= 45, f'{p.name}: a cell of over 45 lines'


def test_public_definitions_have_docstrings(repo):
    for m, p in modules(repo).items():
        for n in ast.parse(p.read_text()).body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)): assert ast.get_docstring(n), f'{m}.{n.name} has no docstring'


def test_readme_is_generated(repo):
    done = subprocess.run([sys.executable, 'tests/readme.py', '--check'], cwd=repo)
    assert done.returncode == 0, 'README.md is not readme.ipynb: run make readme'


def test_readme_commands_exist(repo):
    text, make = (repo/'README.md').read_text(), (repo/'Makefile').read_text()
    for target in set(re.findall(r'(?m)(?:^|`)make (\w+)', text)):
        assert re.search(rf'^{target}:', make, re.M), f'README names make {target}'
    assert 'make test' in (repo/'.ci'/'run').read_text()


def test_no_machine_paths(repo):
    bad = re.compile(r'(?<![\w.:~-])/(?:work|root|home|tmp)/[\w.]+')
    texts = [f for f in tracked(repo) if f.endswith(('.py', '.ipynb', '.md', '.yml', '.yaml', '.ini', '.csv', '.json'))]
    hits = {f: m[0] for f in texts if (m := bad.search((repo/f).read_text(errors='ignore')))}
    assert not hits, hits


def test_stored_results_have_an_origin(repo):
    import pandas as pd
    need = {'command', 'versions', 'device', 'seed', 'date'}
    for p in (repo/'nbs'/'results').glob('*.csv'): assert need <= set(pd.read_csv(p)), p.name
    for p in (repo/'nbs'/'results').glob('*.json'): assert need <= set(json.loads(p.read_text())['origin']), p.name


def test_settings(repo):
    c = configparser.ConfigParser(delimiters=['='])
    c.read(repo/'settings.ini')
    c = c['DEFAULT']
    import layerscale_nb
    assert c['version'] == layerscale_nb.__version__ and c['pip_name'] == 'layerscale-nb' and c['lib_path'] == 'layerscale_nb'


def test_builds(repo, tmp_path):
    "An sdist and, from it, a wheel with all modules, the command and the requirements."
    import zipfile
    src = copied(repo, tmp_path/'src')
    r = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '-o', str(tmp_path/'dist'), str(src)], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    wheel = zipfile.ZipFile(next((tmp_path/'dist').glob('*.whl')))
    names = wheel.namelist()
    assert {f'layerscale_nb/{m.replace(".", "/")}.py' for m in exports(repo)} <= set(names)
    with tarfile.open(next((tmp_path/'dist').glob('*.tar.gz'))) as f: packed = {n.partition('/')[2] for n in f.getnames()}
    assert not set(tracked(repo)) - packed, 'MANIFEST.in leaves files out of the sdist'
    read = lambda ending: wheel.read(next(n for n in names if n.endswith(ending))).decode()
    assert 'Requires-Dist: torch<3,>=2.4' in read('METADATA')
    assert 'layerscale=layerscale_nb.cli:main' in read('entry_points.txt').replace(' ', '')


def test_imports_stand_alone(repo):
    "nbdev's docs step runs every cell with an import, so a cell holds imports or code, not both."
    for p in notebooks(repo):
        for s in code_cells(p):
            kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(s).body}
            assert len(kinds) < 2, f'{p.name} mixes imports and code in one cell:\n{s}'


def tables(t):
    yield t
    for inner in t.get_children(): yield from tables(inner)


def names_of(cell: str) -> tuple:
    "The names that a cell defines, and those that it takes from other cells."
    top = symtable.symtable(cell, 'cell', 'exec')
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for t in tables(top) for s in t.get_symbols() if s.is_referenced() and (t is top or s.is_global())}
    return defined, used - defined - set(dir(builtins))


def test_exec_doc_cells_find_their_names(repo):
    "nbdev's docs step runs imports, exports and `exec_doc` cells only: these give each other every name that they use."
    seen = 0
    for p in notebooks(repo):
        known = set()
        for s in code_cells(p):
            marks = {l.removeprefix('#|').split()[0] for l in s.splitlines() if l.startswith('#|')}
            runs = marks & {'export', 'exec_doc'} or any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(s).body)
            if not runs: continue
            defined, used = names_of(s)
            known |= defined
            seen += 'exec_doc' in marks
            assert 'exec_doc' not in marks or not used - known, f'{p.name}: mark the cell of {sorted(used - known)} as exec_doc:\n{s}'
    assert seen > 20


def test_a_line_holds_one_statement(repo):
    "Lines of the modules hold at most 120 characters and one statement; what nbdev writes above the first cell is left out."
    seen = 0
    for m, p in modules(repo).items():
        body = re.split(r'(?m)^# %% (?:\.\./)+nbs', p.read_text(), maxsplit=1)
        if len(body) < 2: continue
        long = [l for l in body[1].splitlines() if len(l) > 120]
        assert not long, f'{m} has a line of {len(long[0])} characters: {long[0].strip()[:80]}'
        with p.open('rb') as f:
            several = [t.start[0] for t in tokenize.tokenize(f.readline) if t.type == tokenize.OP and t.string == ';']
        assert not several, f'{m}, line {several[0]}: several statements in a line'
        seen += 1
    assert seen > 40


def stored_commands(repo):
    "Every command that stands beside a stored result."
    import pandas as pd
    for p in sorted((repo/'nbs'/'results').iterdir()):
        if p.suffix == '.csv': yield from ((p.name, c) for c in pd.read_csv(p).command.unique())
        else: yield p.name, json.loads(p.read_text())['origin']['command']


def unknown_names(code: str):
    "Names that a piece of code uses, and neither imports, assigns nor finds among Python's own."
    space, tree = dict(vars(builtins)), ast.parse(code)
    for n in tree.body:
        if isinstance(n, (ast.Import, ast.ImportFrom)): exec(ast.unparse(n), space)
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    bound = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    return {n.id for n in names} - bound - set(space)


def test_stored_commands_run(repo):
    "The command beside a result names modules, functions and options that exist today."
    from layerscale_nb.cli import make_parser
    from layerscale_nb.live.retrain import live_explorer
    kinds = set()
    for name, command in stored_commands(repo):
        first, *words = shlex.split(command)
        kinds.add(first.partition('(')[0])
        if first == 'layerscale': make_parser().parse_args(words)
        elif words[:1] == ['-c']: assert not unknown_names(words[1]), f'{name}: {unknown_names(words[1])}'
        elif first == 'python': assert (repo/words[0]).is_file(), f'{name}: {words[0]}'
        else: inspect.signature(live_explorer).bind(**eval(command.replace('live_explorer', 'dict')))
    assert kinds == {'layerscale', 'python', 'live_explorer'}


def public_functions(repo):
    "(module, lines of its file, function or method) of all that has no underscore."
    for m, p in modules(repo).items():
        text = p.read_text()
        for x in ast.parse(text).body:
            if not isinstance(x, (ast.FunctionDef, ast.ClassDef)) or x.name.startswith('_'): continue
            found = [x] if isinstance(x, ast.FunctionDef) else [y for y in x.body if isinstance(y, ast.FunctionDef)]
            yield from ((m, text.splitlines(), f) for f in found if not f.name.startswith('_'))


def test_public_parameters_have_docments(repo):
    "Nine in ten say in a comment what they are: unit, shape or allowed values."
    said = []
    for _, lines, f in public_functions(repo):
        args = [a for a in f.args.args + f.args.kwonlyargs if a.arg not in ('self', 'cls')]
        said += ['#' in lines[a.lineno - 1][a.col_offset:] for a in args]
    assert len(said) > 1000 and sum(said)/len(said) > 0.9, f'{sum(said)} of {len(said)}'


def test_one_name_means_one_thing(repo):
    "No two modules define the same name, private ones included."
    homes = {}
    for m, p in modules(repo).items():
        for n in ast.parse(p.read_text()).body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)): names = [n.name]
            elif isinstance(n, ast.Assign):
                names = [x.id for t in n.targets for x in ast.walk(t) if isinstance(x, ast.Name) and x.id != '__all__']
            else: names = []
            for name in names: homes.setdefault(name, set()).add(m)
    twice = {name: sorted(where) for name, where in homes.items() if len(where) > 1}
    assert not twice and len(homes) > 900, twice


def test_each_page_asks_its_question(repo):
    "A page's second line and its module's first are the same question, and the README lists it with a link."
    readme = (repo/'README.md').read_text()
    for m, p in exports(repo).items():
        title = next(''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'markdown')
        name, question = title.split('\n')[0], title.split('\n')[2]
        assert name.startswith('# ') and len(name) < 40 and question.startswith('> ') and question.endswith('?'), m
        assert ast.get_docstring(ast.parse(modules(repo)[m].read_text())) == question[2:], m
        link = f'[{m}](nbs/{m.replace(".", "/")}.ipynb): {question[2:]}'
        assert m in ALIASES or link in readme, link
