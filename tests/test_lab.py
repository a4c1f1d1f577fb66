"Panel and explorers in a real JupyterLab, in a real browser: what a reader sees and does."
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from conftest import CHROMIUM, FLAGS, LOOKS, browser_or_skip

playwright = browser_or_skip()
EXPLORERS = ['from test_site import EXPLORERS', 'from IPython.display import display', 'for make in EXPLORERS: display(make())']


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def children_in(folder):
    "Ids of the explorer's child processes that work in this folder."
    found = []
    for p in Path('/proc').glob('[0-9]*'):
        try:
            if 'multiprocessing-fork' in (p/'cmdline').read_text() and os.readlink(p/'cwd') == str(folder): found.append(int(p.name))
        except OSError: pass
    return found


@pytest.fixture(scope='module')
def lab(tmp_path_factory, repo):
    "A JupyterLab server over a copy of the notebooks; (its address, its folder)."
    work = tmp_path_factory.mktemp('lab')
    nbs = work/'nbs'/'live'; nbs.mkdir(parents=True)
    shutil.copy(repo/'nbs'/'live'/'retrain.ipynb', nbs)
    for folder in ('results', 'images'): shutil.copytree(repo/'nbs'/folder, work/'nbs'/folder)
    cell = dict(cell_type='code', id='all', metadata={}, execution_count=None, outputs=[], source='\n'.join(EXPLORERS))
    kernel = dict(name='python3', display_name='Python 3', language='python')
    (nbs/'all.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    (nbs/'runs'/'live').mkdir(parents=True); shutil.copy(work/'nbs'/'results'/'live_points.csv', nbs/'runs'/'live'/'kept.csv')  # a reader who has been here before
    config = work/'config'/'labconfig'; config.mkdir(parents=True)
    (config/'page_config.json').write_text(json.dumps({'disabledExtensions': {'@jupyterlab/apputils-extension:announcements': True}}))
    env = os.environ | dict(JUPYTER_CONFIG_DIR=str(work/'config'), JUPYTER_RUNTIME_DIR=str(work/'runtime'), JUPYTERLAB_WORKSPACES_DIR=str(work/'ws'), JUPYTERLAB_SETTINGS_DIR=str(work/'settings'),
                            PYTHONPATH=os.pathsep.join([str(repo), str(repo/'tests'), os.environ.get('PYTHONPATH', '')]).strip(os.pathsep))
    port = free_port()
    args = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=t', f'--ServerApp.root_dir={work/"nbs"}', '--LabApp.expose_app_in_browser=True']
    with (work/'server.txt').open('w') as log: server = subprocess.Popen(args, env=env, stdout=log, stderr=log, cwd=nbs)
    end = time.time() + 60
    while True:
        try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token=t', timeout=2); break
        except OSError:
            assert server.poll() is None and time.time() < end, (work/'server.txt').read_text()[-2000:]
            time.sleep(0.2)
    yield f'http://127.0.0.1:{port}', nbs
    server.terminate(); server.wait(30)


@pytest.fixture(scope='module')
def page(lab):
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1180, height=1120))
        page.goto(f'{lab[0]}/doc/tree/live/retrain.ipynb?token=t')
        page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=60_000)
        yield page
        browser.close()


def until(ready, seconds, what):
    "The first truthy value of `ready()`."
    end = time.time() + seconds
    while not (value := ready()):
        assert time.time() < end, f'waited {seconds} s for {what}'
        time.sleep(0.05)
    return value


class Explorer:
    "The panel as the reader meets it."
    def __init__(self, page): self.page, self.box = page, page.locator('.jp-OutputArea .widget-vbox:has(.widget-button)').first
    def do(self, command): self.page.evaluate(f"void window.jupyterapp.commands.execute('{command}')")
    def open(self):
        "Run all cells and wait for the panel and its measured step."
        self.page.get_by_text('| Idle').wait_for(timeout=60_000)
        self.do('notebook:run-all-cells')
        self.page.wait_for_selector('.jp-OutputArea .widget-button', timeout=60_000, state='attached')
        self.show()
        until(lambda: self.number('step') not in (None, 'timing …') and self.pictures()[0], 90, 'the measured step')
        return self
    def show(self): self.box.evaluate('b => b.scrollIntoView({block: "start"})')
    def text(self): return self.box.inner_text()
    def button(self, name): return self.box.locator('button', has_text=name)
    def pictures(self): return self.box.evaluate('b => [...b.querySelectorAll("img")].map(i => i.naturalWidth && i.src)')
    def cards(self): return self.box.evaluate('b => [...b.querySelectorAll("div")].filter(d => d.children.length == 5 && d.children[1].tagName == "BR").map(d => d.children[2].innerText)')
    def number(self, name):
        "The number on the card of this name."
        return self.box.evaluate('(b, n) => [...b.querySelectorAll("div")].filter(d => d.children.length == 5 && d.children[0].innerText == n).map(d => d.children[2].innerText)[0]', name)
    def slide(self, name, steps):
        "Drag a slider's handle some positions to the right (or left) and release it."
        row = self.box.locator('.widget-hslider', has=self.page.locator('.widget-label', has_text=name))
        self.show()
        handle, rail = row.locator('.noUi-handle').bounding_box(), row.locator('.noUi-base').bounding_box()
        positions = dict(depth=8, width=10, image=5, epochs=9)[name]
        x, y = handle['x'] + handle['width']/2, handle['y'] + handle['height']/2
        self.page.mouse.move(x, y); self.page.mouse.down()
        self.page.mouse.move(x + rail['width']/(positions - 1)*steps, y, steps=4); self.page.mouse.up()
    def answer_s(self, name, steps, shown='macs'):
        "Seconds from releasing a slider until its number on the panel has changed."
        before = self.number(shown)
        self.slide(name, steps)
        start = time.time()
        until(lambda: self.number(shown) != before, 10, f'{shown} to answer {name}')
        return time.time() - start
    def map50(self):
        "mAP50 of the run as the progress line shows it, or None."
        found = re.search(r'mAP50 (0\.\d+) ·', self.text())
        return float(found[1]) if found else None


def faults(page, box):
    """What a person would notice, in both themes and at three widths; a table on a narrow page may scroll by itself."""
    found, screen = {}, page.viewport_size
    for theme, width in (('Dark', 820), ('Light', 560), ('Light', 820), ('Light', 1400)):
        page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        until(lambda: page.locator(f'body[data-jp-theme-name="JupyterLab {theme}"]').count(), 10, 'the theme')
        page.set_viewport_size(dict(width=width, height=1120)); page.wait_for_timeout(300)
        found[theme, width] = [f for b in box.all() for f in b.evaluate(LOOKS) if width > 600 or 'pixels wide' not in f]
    page.set_viewport_size(screen)
    return {k: v for k, v in found.items() if v}


def test_explorers_in_both_themes_and_at_three_widths(page, lab):
    tab = page.context.browser.new_page(viewport=dict(width=1400, height=1120))
    tab.goto(f'{lab[0]}/doc/tree/live/all.ipynb?token=t')
    tab.wait_for_selector('.jp-Notebook .jp-Cell', timeout=60_000)
    tab.get_by_text('| Idle').wait_for(timeout=60_000)
    tab.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    from test_site import EXPLORERS as makers
    boxes = tab.locator('.jp-OutputArea .widget-vbox:has(.layerscale-view)')
    until(lambda: boxes.count() == len(makers), 60, 'the explorers')
    assert not faults(tab, boxes)
    session = next(s for s in json.loads(urllib.request.urlopen(f'{lab[0]}/api/sessions?token=t').read()) if 'all.ipynb' in s['path'])
    tab.close()
    urllib.request.urlopen(urllib.request.Request(f'{lab[0]}/api/sessions/{session["id"]}?token=t', method='DELETE'))


def test_a_reader_explores(page, lab):
    address, nbs = lab
    runs, e = nbs/'runs'/'live', Explorer(page).open()
    before = len(pd.read_csv(runs/'kept.csv'))
    labels, ours = e.pictures(), lambda: children_in(nbs)
    assert len(labels) == 3 and len(ours()) == 1
    assert page.locator('.jp-Notebook').evaluate('n => [...n.querySelectorAll("img")].every(i => i.naturalWidth)'), 'a broken picture'

    idle = e.answer_s('width', 1)
    e.button('Train').click()
    until(lambda: e.map50() is not None, 120, 'the first validation')
    first = e.map50()
    busy = e.answer_s('depth', 2, 'depth')                      # a slider answers while it trains,
    assert 'to go' in e.text() and e.button('Train').is_disabled()  # and the run goes on
    print(f'a released slider is answered in the browser after {idle*1e3:.0f} ms idle, {busy*1e3:.0f} ms in training')
    assert idle < 3 and busy < 3
    until(lambda: e.map50() not in (None, first), 120, 'mAP50 to change')
    assert e.pictures() != labels

    e.do('notebook:interrupt-kernel'); time.sleep(1)
    now = until(lambda: re.search(r'loss ([\d.]+)', e.text())[1], 5, 'the loss')
    until(lambda: re.search(r'loss ([\d.]+)', e.text())[1] != now, 60, 'the run to outlive an interrupt of the kernel')

    e.button('Keep').click()
    until(lambda: 'Kept in' in e.text(), 10, 'the kept row')
    if os.environ.get('LAYERSCALE_SCREENSHOTS'): take_picture(e)
    e.button('Stop').click()
    until(lambda: 'Stopped' in e.text(), 60, 'the run to stop')
    assert 'to go' not in e.text() and len(e.cards()) == 8 and not {'–', 'timing …'} & set(e.cards())
    assert not faults(page, e.box)
    kept = pd.read_csv(runs/'kept.csv')
    assert len(kept) == before + 1
    row = kept.iloc[-1]
    epochs = pd.read_csv(runs/row.run/'epochs.csv')             # no epoch was lost to the interrupt
    assert list(epochs.epoch) == list(range(1, len(epochs) + 1)) and row.done <= len(epochs)

    e.do('notebook:restart-kernel')
    page.locator('.jp-Dialog button.jp-mod-accept').click()
    until(lambda: not ours(), 20, 'the old child to end')
    e.do('notebook:clear-all-cell-outputs')
    until(lambda: not page.locator('.jp-OutputArea .widget-button').count(), 20, 'the old panel to go')
    e.open()
    assert f'{row.map50:.3f}' in e.text() and len(ours()) == 1
    session = json.loads(urllib.request.urlopen(f'{address}/api/sessions?token=t').read())[0]['id']
    urllib.request.urlopen(urllib.request.Request(f'{address}/api/sessions/{session}?token=t', method='DELETE'))
    until(lambda: not ours(), 20, 'the child to end with its kernel')


def take_picture(e):
    "The panel in training, for the docs: LAYERSCALE_SCREENSHOTS=1."
    until(lambda: (e.map50() or 0) > 0.25, 400, 'a mAP50 worth showing')
    e.show(); time.sleep(1)
    path = Path(__file__).resolve().parent.parent/'nbs'/'images'/'live.png'
    e.box.screenshot(path=path)
    Image.open(path).convert('RGB').quantize(200).save(path, optimize=True)
