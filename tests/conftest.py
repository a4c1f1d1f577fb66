import json
import os
import shutil
from pathlib import Path

import pytest

import sockets

sockets.watch()
root = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_network():
    "No test names another machine, also where an error of the network would be caught."
    before = len(sockets.SEEN)
    yield
    assert not sockets.SEEN[before:]


@pytest.fixture(scope='session')
def repo():
    return root


def real(name):
    "A folder of real data beside the project; the test says clearly when it is absent."
    base = Path(os.environ.get('LAYERSCALE_DATA', root.parent/'shared'/'data'))
    if not (base/name).is_dir():
        pytest.skip(f'real data {name} is not in ../shared/data (set LAYERSCALE_DATA to its folder to run this test)')
    return base/name


CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
LOOKS = (root/'tests'/'looks.js').read_text(encoding='utf-8')  # a function of an element, for the browser
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']  # of the browser


def browser_or_skip():
    "Playwright's module; the tests of a file say clearly when there is no browser for them."
    if not CHROMIUM: pytest.skip('no chromium on PATH: tested without a browser only (apt-get install chromium)', allow_module_level=True)
    return pytest.importorskip('playwright.sync_api', reason='playwright is not installed: tested without a browser only')


def golden(name):
    "Published numbers with their sources, and what was counted on built networks, as JSON."
    return json.loads((root/'tests'/'golden'/f'{name}.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='session')
def kitti_root(): return real('kitti_cyclist')


@pytest.fixture(scope='session')
def bccd_root(): return real('bccd')


@pytest.fixture(scope='session')
def tiny():
    "A study small enough for tests: two variants of a very thin net on 32 scenes."
    from layerscale_nb.study.variants import Study, Variant
    from layerscale_nb.detect.recipe import Recipe
    return Study(variants=(Variant('baseline'), Variant('depth_033', d=0.33)), base=(1.0, 0.125, 512), imgsz=(96, 320),
                 n_train=32, n_val=8, recipe=Recipe(epochs=3))
