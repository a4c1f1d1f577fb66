"Explorers on a page without a kernel: moved in a real browser with the network off, they show what Python shows."
import random
import shutil
from importlib import import_module

import pytest

from conftest import CHROMIUM, FLAGS, LOOKS, browser_or_skip

from layerscale_nb.core import stored
from layerscale_nb.lessons import lesson_rows
from layerscale_nb.live.controls import Explorer, Guess, option_text
from layerscale_nb.live.progress import (LearnerPage, answer_mark, calibration, guess_id, guess_words, keep_guess, progress_view,
                                         read_progress)
from layerscale_nb.live.view import draw_view

playwright = browser_or_skip()
SHOWN = '''e => ({text: e.textContent.replace(/\\s+/g, ' ').trim(),
    shapes: ['rect', 'circle', 'polyline', 'path', 'title', 'b', 'tr'].map(t => e.querySelectorAll(t).length),
    places: [...e.querySelectorAll('rect')].map(r => ['x', 'y', 'width', 'height'].map(k => Number(r.getAttribute(k)))).flat()})'''


def scaling():
    from layerscale_nb.live.explorers import scaling_explorer
    return scaling_explorer()


def csp():
    from layerscale_nb.live.csp import csp_explorer
    from layerscale_nb.timing.roofline import load_profile
    return csp_explorer(profile=load_profile(stored('results/predictor_cpu_profile.json')))


def runtime():
    from layerscale_nb.experiments.actbound import runtime_explorer
    from layerscale_nb.table import read_rows
    from layerscale_nb.timing.roofline import load_profile
    return runtime_explorer([load_profile(stored('results/predictor_cpu_profile.json'))], read_rows(stored('results/actbound_cpu.csv')))


def balance():
    from layerscale_nb.experiments.balance import balance_explorer
    from layerscale_nb.table import read_rows
    from layerscale_nb.timing.roofline import load_profile
    profile, rows = load_profile(stored('results/predictor_cpu_profile.json')), read_rows(stored('results/actbound_cpu.csv'))
    return balance_explorer(rows, profile, (34.7, dict(macs=0.859, acts=0.971)))


def of(module, name):
    "The explorer function of this name, called without arguments."
    def make(): return getattr(import_module(f'layerscale_nb.{module}'), name)()
    make.__name__ = name.removesuffix('_explorer')
    return make


OTHERS = [of(*words.split(':')) for words in (
    'live.costs:cost_explorer', 'experiments.published:tables_explorer', 'live.levels:levels_explorer',
    'live.detectors:yolo_explorer', 'live.verdicts:sureness_explorer', 'live.verdicts:study_explorer', 'live.verdicts:kept_explorer',
    'live.verdicts:shuffle_explorer',
    'live.frontier:frontier_explorer', 'live.deadline:choose_explorer', 'live.curves:curves_explorer', 'live.shapes:shape_explorer', 'experiments.claims:claims_explorer')]
EXPLORERS = [scaling, csp, runtime, balance, *OTHERS]


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()


def opened(browser, repo, folder, *parts, address=''):
    "A page that holds these parts and the shared script, with the network off; (page, errors of the page)."
    shutil.copy(repo/'nbs'/'explorers.js', folder)
    body = '<!doctype html><meta charset="utf-8"><script src="explorers.js" defer></script>' + ''.join(parts)
    (folder/'page.html').write_text(body + '<div id="python"></div>', encoding='utf-8')
    context = browser.new_context(offline=True, viewport=dict(width=390, height=800))
    page, errors = context.new_page(), []
    page.on('pageerror', lambda e: errors.append(str(e)))
    page.goto(f'{(folder/"page.html").as_uri()}{address}')
    return page, errors


def random_state(e: Explorer, rng) -> dict:
    "One value for each choice that the page has."
    state = {}
    for c in e.choices: state[c.name] = rng.choice(c.values(state, True))
    return state


def move(page, e: Explorer, state: dict):
    "Move the controls of the page, from the first to the last."
    for i, (c, v) in enumerate(zip(e.choices, state.values())):
        control = page.locator('.layerscale-controls label').nth(i).locator('select, input')
        values, before = [], {k: state[k] for k in list(state)[:i]}
        values = [option_text(x) for x in c.values(before, True)]
        if c.menu: control.select_option(option_text(v))
        elif len(values) > 1: control.fill(str(values.index(option_text(v))))


@pytest.mark.parametrize('make', EXPLORERS, ids=lambda f: f.__name__)
def test_the_page_shows_what_python_shows(make, browser, repo, tmp_path):
    e, rng = make(), random.Random(0)
    assert len(e.page()) < 300_000
    page, errors = opened(browser, repo, tmp_path, e.page())
    for _ in range(20):
        state = random_state(e, rng)
        move(page, e, state)
        page.locator('#python').evaluate('(d, html) => { d.innerHTML = html }', draw_view(e.view(**state)))
        here, there = (page.locator(s).first.evaluate(SHOWN) for s in ('.layerscale-explorer .layerscale-view', '#python .layerscale-view'))
        assert here['text'] == there['text'] and here['shapes'] == there['shapes'], state
        assert here['places'] == pytest.approx(there['places'], abs=0.2, rel=1e-3), state
    assert not errors and page.evaluate('document.documentElement.scrollWidth') <= 390  # a phone
    for ink, paper in (('#212529', '#fff'), ('#fff', '#222')):
        page.evaluate(f"document.documentElement.style = 'color: {ink}; background: {paper}'")
        faint = page.locator('.layerscale-explorer .layerscale-view').first.evaluate(LOOKS)
        assert not [f for f in faint if 'pixels wide' not in f and 'cut' not in f], paper  # a wide table scrolls by itself


def test_a_state_can_be_shared(browser, repo, tmp_path):
    "The address holds the state, and a page opened with it shows it."
    e, state = scaling(), dict(net='ResNet-50', rule='w', alpha=1.0, s=8.0)
    page, _ = opened(browser, repo, tmp_path, e.page())
    move(page, e, state)
    address = '#' + page.url.split('#')[1]
    shown = page.locator('.layerscale-view').first.inner_text()
    again, errors = opened(browser, repo, tmp_path, e.page(), address=address)
    assert 'ResNet-50' in shown and again.locator('.layerscale-view').first.inner_text() == shown and not errors


def test_dragging_a_slider_draws_anew(browser, repo, tmp_path):
    page, errors = opened(browser, repo, tmp_path, scaling().page())
    before, box = page.locator('.layerscale-view').first.inner_text(), page.locator('input[type=range]').last.bounding_box()
    page.mouse.move(box['x'] + 8, box['y'] + box['height']/2)
    page.mouse.down(); page.mouse.move(box['x'] + box['width'] - 3, box['y'] + box['height']/2, steps=5); page.mouse.up()
    assert page.locator('.layerscale-view').first.inner_text() != before and not errors


def test_a_guess_unlocks_its_explorer(browser, repo, tmp_path, monkeypatch):
    monkeypatch.setenv('LAYERSCALE_SITE', '1')
    guess = Guess('How many <b>?', unit='times')
    parts = [x._repr_mimebundle_()['text/html'] for x in (guess, guess.then(scaling))]
    page, errors = opened(browser, repo, tmp_path, *parts)
    explorer = page.locator('.layerscale-explorer')
    assert not explorer.is_visible() and 'How many <b>?' in page.locator('form').inner_text()
    page.locator('form button').click()  # nothing was typed
    assert not explorer.is_visible()
    page.locator('form input').fill('2')
    page.locator('form button').click()
    assert explorer.is_visible() and 'Your guess: 2' in page.locator('form').inner_text()
    page.reload()  # the guess is kept
    assert explorer.is_visible() and not errors


def test_a_guess_is_kept_with_the_answer(browser, repo, tmp_path, monkeypatch):
    "The answer is hidden until the guess; after it the list of lessons says what Python says."
    monkeypatch.setenv('LAYERSCALE_SITE', '1')
    lesson = lesson_rows()[0]
    question = lesson['guesses'][0]
    form = Guess(question)._repr_mimebundle_()['text/html']
    lists = LearnerPage(tmp_path).page() + LearnerPage(tmp_path, table=False).page()
    answer = f'<section><div class="cell">it is 40{answer_mark(question, None, 40.06, "acts")}</div><p>The first stage.</p><section>Next.</section></section>'
    page, errors = opened(browser, repo, tmp_path, form, answer, lists)
    assert not page.get_by_text('The first stage.').is_visible() and page.get_by_text('Next.').is_visible()
    assert page.locator('.layerscale-progress').last.inner_text().startswith('No guess yet')
    page.locator('form input').fill('100')
    page.locator('form button').click()
    assert page.get_by_text('you said 100, it is 40.1: too high').is_visible() and page.get_by_text('The first stage.').is_visible()
    assert page.locator('form button').is_disabled()  # the first guess counts
    page.reload()
    keep_guess(question, 100.0, 40.06, 'acts', tmp_path)
    view = progress_view(read_progress(tmp_path), solved=False)
    view[1]['rows'] = [[row[0][0], *row[1:]] for row in view[1]['rows']]
    page.locator('#python').evaluate('(d, html) => { d.hidden = false; d.innerHTML = html }', draw_view(view))
    here, there = (page.locator(s).first.evaluate(SHOWN) for s in ('.layerscale-progress .layerscale-view', '#python'))
    assert here['text'] == there['text'] and 'you overrate acts' in here['text'] and lesson['title'] in here['text'] and not errors
    assert 'you overrate acts' in page.locator('.layerscale-progress').last.inner_text()
    assert page.locator('.layerscale-progress a').first.get_attribute('href') == 'costs.html'


def test_what_a_browser_has_kept_is_escaped(browser, repo, tmp_path):
    "Another page of the same host may have written anything under our names."
    page, errors = opened(browser, repo, tmp_path, LearnerPage(tmp_path).page())
    names = [guess_id(q) for l in lesson_rows() for q in l['guesses']]
    bad = ['{', '7', 'null', '{"said": {}}', '{"said": "<img src=x onerror=alert(1)>", "true": "<b>a</b>", "about": "<i>"}', '{"said": 3, "true": 1, "about": "<i>"}']
    page.evaluate('([names, bad]) => names.forEach((n, i) => localStorage.setItem("layerscale-" + n, bad[i % bad.length]))', [names, bad])
    page.reload()
    box = page.locator('.layerscale-progress').first
    assert '<img src=x' in box.inner_text() and 'you overrate <i>' in box.inner_text()
    assert not errors and not box.locator('img, i').count()


def test_calibration_is_one_rule(browser, repo, tmp_path):
    "Python and the page say the same of the same guesses."
    rng = random.Random(0)
    def value(): return rng.choice(['a', 'b', 0.0, 5.0, rng.uniform(-2, 9), 10**rng.uniform(-3, 3)])
    page, errors = opened(browser, repo, tmp_path)
    for n in range(60):
        rows = [dict(said=value(), true=value(), about=rng.choice(['', 'macs', 'acts', 'Width'])) for _ in range(n % 12)]
        assert page.evaluate('rows => layerscale.calibration(rows)', rows) == calibration(rows), rows
        assert page.evaluate('rows => rows.map(layerscale.words)', rows) == [*map(guess_words, rows)]
    assert not errors
