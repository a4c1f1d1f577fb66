"""Build the site in _docs: nbdev processes the notebooks, Quarto renders them if it is on PATH, and the result is checked.

    python tests/docs.py           everything
    python tests/docs.py --check   only check what lies in _docs
"""
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

sys.path.insert(0, str(Path(__file__).resolve().parent))
from house import FOLDERS, first_text
from layerscale_nb.lessons import SITE

root = Path(__file__).resolve().parent.parent
HOST = f'{SITE}/'
FOLD = '#| code-fold: true\n', '#| code-summary: "Imports"\n'
QUESTIONS = dict(nets='Networks and costs', timing='Time', detect='Detectors', study='Studies', laws='Laws', live='Live',
                 experiments='Results')


def sidebar(nbs: Path) -> str:
    "The sidebar as YAML: lessons, one group for each folder of the library, results, terminal."
    import yaml
    entry = lambda p: dict(href=str(p.relative_to(nbs)), text=first_text(p)[0][2:])
    pages = lambda folder: [entry(p) for p in sorted((nbs/folder).glob('*.ipynb'))]
    named = lambda *names: [entry(nbs/f'{n}.ipynb') for n in names if (nbs/f'{n}.ipynb').exists()]
    groups = {'Lessons': pages('lessons'), 'Basics': named('core', 'cost', 'table', 'process', 'lessons', 'plot', 'svg')}
    groups |= {QUESTIONS[f]: pages(f) for f in FOLDERS if f in QUESTIONS}
    groups['Results'] = named('claims', 'measured') + groups['Results']
    groups['Terminal'] = named('terminal', 'cli', 'options', 'main', 'anchor_loss')
    contents = [dict(section=k, contents=v) for k, v in groups.items() if v]
    return yaml.safe_dump(dict(website=dict(sidebar=dict(contents=[dict(href='index.ipynb', text='Home'), *contents, *named('supply', 'glossary')]))),
                          sort_keys=False, allow_unicode=True)


def half_build():
    "What `nbdev_docs` does before Quarto: into `_proc`, without a network."
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    os.chdir(root)
    os.environ['LAYERSCALE_SITE'] = '1'  # explorers give the data of all their states
    refresh_quarto_yml()
    (root/'nbs'/'sidebar.yml').write_text(sidebar(root/'nbs'), encoding='utf-8')
    proc = Path(proc_nbs())
    (proc/'_quarto.yml').unlink(missing_ok=True)
    shutil.copy(root/'_quarto.yml', proc)  # a checkout without symlinks has none in nbs/
    (proc/'readme.ipynb').unlink(missing_ok=True)  # GitHub's page; the site has its own home
    for p in proc.rglob('*.ipynb'): finish_page(p, proc)


def finish_page(page: Path, proc: Path):
    "Links to the host become relative, HTML goes through as it is, and no output waits for a kernel."
    up = '../'*(len(page.relative_to(proc).parts) - 1) or './'
    nb = json.loads(re.sub(re.escape(HOST) + r'([\w/]*\.html)(#_\w+)?', rf'{up}\1', page.read_text(encoding='utf-8')))
    left_out = under_title(root/'nbs'/page.relative_to(proc))
    if left_out and nb['cells'][1].get('id') != 'under-title':  # a page that did not change is finished already
        nb['cells'].insert(1, dict(cell_type='markdown', id='under-title', metadata={}, source=left_out.splitlines(keepends=True)))
    for c in nb['cells']:
        if c['cell_type'] == 'code' and many_imports(text(c['source'])): c['source'] = [*FOLD, *text(c['source']).splitlines(keepends=True)]
        for o in c.get('outputs', []):
            data = o.get('data', {})
            data.pop('application/vnd.jupyter.widget-view+json', None)
            if html := text(data.pop('text/html', '')): o['data'] = {'text/markdown': raw_html(html)}
            elif shown := text(data.get('text/markdown', '')): data['text/markdown'] = plain_doc(shown).splitlines(keepends=True)
        c['outputs'] = [o for o in c.get('outputs', []) if o.get('data', 1)] if c['cell_type'] == 'code' else []
        if c['cell_type'] != 'code': del c['outputs']
    nb['metadata'].pop('widgets', None)
    page.write_text(json.dumps(nb), encoding='utf-8')


def under_title(notebook: Path) -> str:
    "What stands in a notebook's first text under its title and question: nbdev keeps only these two."
    return '\n'.join(l for l in first_text(notebook) if not l.startswith(('# ', '> '))).strip()


def text(held) -> str:
    "A text that a notebook may hold as a list of lines."
    return held if isinstance(held, str) else '\n'.join(l.rstrip('\n') for l in held)


def raw_html(html: str) -> str:
    "HTML for Quarto's markdown: untouched, and without the scripts that Quarto loads for HTML outputs."
    return f'`````{{=html}}\n{html}\n`````'


def many_imports(source: str) -> bool:
    "Whether a cell holds nothing but imports, and many of them: the site folds it."
    lines = source.splitlines()
    return len(lines) > 5 and all(l.startswith(('import ', 'from ')) for l in lines)


def plain_doc(shown: str) -> str:
    "What `show_doc` wrote, without links in the code of a signature, which would show as they are typed, and without italics."
    head, fence, rest = shown.partition('```python\n')
    code, end, said = rest.partition('\n```\n')
    if not end: return shown
    return head + fence + re.sub(r'\[`([\w.]+)`\]\([^)\s]+\)', r'`\1`', code) + end + re.sub(r'(?m)^\*(.+)\*$', r'\1', said)


def render():
    "Quarto's half: `_proc` becomes `_docs`."
    out = subprocess.run(['quarto', 'render', str(root/'_proc'), '--no-execute'], capture_output=True, text=True)
    print(out.stdout + out.stderr)
    shutil.rmtree(root/'_docs', ignore_errors=True)
    if out.returncode: sys.exit(out.returncode)
    shutil.move(root/'_proc'/'_docs', root/'_docs')
    if warnings := re.findall(r'(?im)^.*\b(?:warning|warn)\b.*$', out.stdout + out.stderr): sys.exit('\n'.join(warnings))


class Links(HTMLParser):
    "The links, ids and loaded files of a page."
    def __init__(self, text: str):
        super().__init__()
        self.links, self.ids, self.loads = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        loads = a.get('src') if tag in ('script', 'img', 'iframe', 'source') else a.get('href') if tag == 'link' and a.get('rel') in ('stylesheet', 'icon') else None
        if loads: self.loads.append(loads)


def faults(docs: Path, heaviest=1.5e6) -> list:
    "What is wrong with a rendered site: dead links and anchors, files from elsewhere, pages of over 1.5 MB."
    pages = {p: Links(p.read_text(encoding='utf-8')) for p in sorted(docs.rglob('*.html')) if 'site_libs' not in p.parts}
    found = []
    for p, page in pages.items():
        say = lambda what: found.append(f'{p.relative_to(docs)}: {what}')
        if p.stat().st_size > heaviest: say(f'{p.stat().st_size/1e6:.1f} MB')
        for link in dict.fromkeys(page.links + page.loads):
            u = urlparse(link.replace(HOST, '/'))
            if u.scheme or link.startswith('//'):
                if link in page.loads and u.scheme != 'data': say(f'loads {link:.80}')
                continue
            target = (docs/unquote(u.path).lstrip('/') if u.path.startswith('/') else (p.parent/unquote(u.path))).resolve() if u.path else p
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): say(f'dead link {link:.80}')
            elif u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids: say(f'no anchor {link:.80}')
    return found


if __name__ == '__main__':
    if '--check' not in sys.argv:
        half_build()
        if not shutil.which('quarto'):
            print('notebooks are processed in _proc. Quarto is not installed, so the site was not rendered: https://quarto.org/docs/get-started')
            sys.exit(0)
        render()
    if found := faults(root/'_docs'): sys.exit('\n'.join([*found, f'{len(found)} faults']))
    print(f'{len(list((root/"_docs").rglob("*.html")))} pages in _docs, no dead link')
