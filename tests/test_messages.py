"What people read: errors of other libraries in one line, text from data as text in HTML and in figures, numbers apart."
import json
import re
import shutil
from collections import deque
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from layerscale_nb.live.csp import csp_explorer
from layerscale_nb.core import LayerscaleError, fingerprint, human_pair, one_line

TRAP = '<img src=x onerror=alert(1)>'
CLASSES = ('a < b & "c"', "it's <b>bold</b>", TRAP)
DOLLARS = ('$5_bill_$', 'US$1 or $2^')


def says(sentence): return pytest.raises(LayerscaleError, match=re.escape(sentence))


class Mute(RuntimeError):
    "An error that says nothing, as `MemoryError()` or `assert` do."


def mute(*_, **__): raise Mute()


@pytest.mark.parametrize('said, last, line', [
    (MemoryError(), False, 'MemoryError'), (Mute('\n \n'), False, 'Mute'), (ValueError('  one\ntwo'), False, 'one'),
    ('one\ntwo\n\n', True, 'two'), ('', True, 'no further words'), (ValueError('x'*500), False, 'x'*120),
    (SystemExit(), True, 'SystemExit')])
def test_one_line_of_any_error(said, last, line):
    assert one_line(said, last) == line


def test_an_error_without_text_is_a_sentence(tmp_path, monkeypatch):
    "Each place that quotes another library's error, given one that says nothing."
    import torch
    import ultralytics.data.utils as ultralytics_data
    import ultralytics.nn.tasks as tasks

    from layerscale_nb.timing import calibrate, measure as runtime
    from layerscale_nb.detect import datasets as data, train
    from layerscale_nb.nets import find as lookup
    from layerscale_nb.study import report
    from layerscale_nb.live import trial
    from layerscale_nb import process, table
    def mute_value(*_, **__): raise ValueError()
    monkeypatch.setattr(table.csv, 'DictReader', mute_value)
    for owner, name in ((train.zipfile, 'ZipFile'), (ultralytics_data, 'check_det_dataset'), (tasks, 'DetectionModel'),
                        (calibrate, 'measure_calls')): monkeypatch.setattr(owner, name, mute)
    for name in ('results.csv', 'kept.csv', 'state.pt'): (tmp_path/name).write_text('a')
    small = dict(backbone=[[-1, 1, 'Conv', [8]]], head=[])
    cpu, session = torch.device('cpu'), SimpleNamespace(device='cpu')
    with says('results.csv: not readable as a table (ValueError)'): report.read_results(tmp_path)
    with says('kept.csv: not readable as a table (ValueError)'): trial.read_kept(tmp_path)
    with says('this state cannot be read (Mute)'): train.resume(session, tmp_path)
    with says('could not be downloaded (Mute)'): data.named_set('nowhere.yaml')
    with says('Ultralytics cannot build this model (Mute)'): lookup.by_ultralytics(small, 'x.yaml', None, (1, 1, 8))
    with says('cannot be measured in fp32: Mute. Try'): calibrate.calibrate('cpu')
    class Broken(torch.nn.Module):
        forward = mute
    with says('fails at 8x8, batch 1, float32: Mute. Try'): runtime.time_module(Broken(), (8, 8), cpu)
    *_, (kind, error) = process.said(mute, {})
    assert (kind, str(error)) == ('failed', 'Mute: no further words')


def test_no_module_takes_the_first_line_by_itself(repo):
    "`str(e).splitlines()[0]` fails for an error without text; `one_line` does not."
    files = list((repo/'layerscale_nb').rglob('*.py'))
    assert len(files) > 60
    for p in files:
        assert 'str(e).splitlines()' not in p.read_text() and 'strip().splitlines()[' not in p.read_text(), p.name


class Page(HTMLParser):
    "Tags and text of some HTML, and every attribute that holds code."
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.code = [], '', []
        self.feed(html)
    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.code += [k for k, _ in attrs if k.startswith('on')]
    def handle_data(self, data): self.text += data


def harmless(html, *texts):
    "The page shows these texts letter by letter, and holds no tag or code of theirs."
    page = Page(html)
    assert 'img' not in page.tags and 'onerror' not in page.code, html
    for t in texts: assert t in page.text, html
    return page


@pytest.fixture
def panel(tmp_path):
    from layerscale_nb.live.panel import make_panel
    from layerscale_nb.live.trial import Trial
    worker = SimpleNamespace(inbox=deque(), send=lambda job: 1, stop=lambda: None, wake=None)
    return make_panel(Trial(data=TRAP), CLASSES, 256, 64, (96, 320), tmp_path/'a<b>', worker)


def test_what_a_panel_says_is_text(panel):
    from layerscale_nb.live.panel import guarded, on_end, pump, show_images
    ui = panel.ui
    harmless(ui.call.value, repr(TRAP), repr(str(panel.out)))
    on_end(panel, dict(kind='error', text=f'{TRAP}: no such class'))
    harmless(ui.status.value, f'{TRAP}: no such class')
    guarded(panel, lambda p: {}[TRAP])()
    harmless(ui.status.value, f'KeyError: {TRAP!r}')
    panel.worker.inbox.append(dict(kind='note', number=1, text=TRAP))
    pump(panel)
    harmless(ui.status.value, TRAP)
    show_images(panel, [], f'{TRAP} & more')
    harmless(ui.caption.value, f'{TRAP} & more')


def test_what_a_kept_file_holds_is_text(panel):
    from layerscale_nb.live.panel import keep, kept_table_html
    from layerscale_nb.live.trial import Trial
    row = dict(d=.3, w=.2, imgsz=TRAP, epochs=2, done=1, seed='<script>', map50=0.25, macs=1e9, params=1e6, train_s=3.)
    page = harmless(kept_table_html([row]), TRAP, '<script>', '0.250')
    assert 'script' not in page.tags and {'table', 'tr', 'td'} <= set(page.tags)
    done = dict(epoch=1, loss=5., map50=0.1, map50_95=0.05, lr=0.003, train_s=3.)
    panel.run, panel.row, panel.facts = Trial(data=TRAP), done, dict(run='abc', device=TRAP)
    keep(panel)
    assert 'code' in harmless(panel.ui.status.value, f'data={TRAP!r}').tags, 'our own markup is still markup'
    harmless(panel.ui.table.value + panel.ui.kept.value)


def test_svg_and_explorers_show_text():
    from layerscale_nb.experiments import actbound
    from layerscale_nb import core, cost, svg
    from layerscale_nb.nets import csp
    from layerscale_nb.live import explorers as explore
    from layerscale_nb.lessons import lesson_rows
    from layerscale_nb.live.controls import Explorer, Guess
    from layerscale_nb.live.progress import answer_mark, progress_view
    from layerscale_nb.live.view import draw_view
    from layerscale_nb.cost import Count
    from layerscale_nb.timing.roofline import TERMS, Profile, calls
    from layerscale_nb.nets.scale import compare
    from layerscale_nb.nets.zoo import named_net
    line = svg.Mark('line', [1, 2], [1, 2], names=[TRAP], tips=[TRAP])
    dot, rule = svg.Mark('dot', [1], [1], names=[TRAP], tips=[TRAP]), svg.Mark('rule', [1], names=[TRAP])
    harmless(svg.svg_chart([line, dot, rule], TRAP, TRAP), TRAP)
    net = replace(named_net('EN-B0'), name=TRAP)
    for shown in (net, compare(net, 'dWr', 2), Count(TRAP, (32, 32), cost.Cost(1, 1, 1), {})):
        harmless(shown._repr_markdown_(), TRAP)
    harmless(draw_view(explore.scaling_view(net, 'dWr', 2)), TRAP)
    e = explore.scaling_explorer(net)
    for html in (e.out.value, e.still()): harmless(html, TRAP)
    assert TRAP not in e.page()
    kinds = {c.kind for c in calls(net)} | {'silu', 'add', 'norm', 'spatial', '1x1'}
    rates = {k: dict.fromkeys(TERMS, 1.) for k in kinds}
    profile = Profile(TRAP, TRAP, 1, 'fp32', True, 1, 'sum', rates, 0.1, 10, 1., {})
    harmless(draw_view(actbound.runtime_view(net, 0.8, 2, 1, [profile])), TRAP)
    harmless(draw_view([actbound.part_times({TRAP: (1., 1., TRAP)})]), TRAP)
    harmless(csp_explorer(profile=profile).note.value, TRAP)
    guess = Guess(TRAP, unit=TRAP)
    harmless(guess.still() + guess._repr_mimebundle_()['text/html'], TRAP)
    harmless(guess.then(Explorer, TRAP, lambda: [])._repr_mimebundle_()['text/html'])
    harmless(answer_mark(TRAP, TRAP, 'b', TRAP), TRAP)
    kept = {lesson_rows()[0]['guesses'][0]: dict(said=TRAP, true=TRAP)}
    harmless(draw_view(progress_view(dict(guesses=kept, solved={}))), TRAP)


@pytest.fixture
def results(repo):
    "A finished study whose names are hard to draw."
    import pandas as pd
    df = pd.read_csv(repo/'nbs'/'results'/'kitti_cyclist_width_depth.csv')
    df = df[[c for c in df if not c.startswith(('ap50_', 'ap_'))]]
    for i, n in enumerate(DOLLARS + CLASSES, 1):
        df = df.assign(**{f'ap50_{n}': df.map50/i, f'ap_{n}': df.map50/(i + 1)})
    return df.assign(data=f'{TRAP}.yaml', variant=df.variant.replace('depth_050', f'depth_{TRAP}_$x_$'))


def test_a_report_of_any_names(results, tmp_path):
    from layerscale_nb.study.report import write_report
    results.to_csv(tmp_path/'results.csv', index=False)
    title = '<script>& more'
    html = write_report(tmp_path, title).read_text()
    assert html.count('<img alt="figure" src="data:') == 10
    page = Page(html.replace('<img alt="figure"', '<picture'))
    assert 'img' not in page.tags and 'script' not in page.tags and not page.code
    for name in DOLLARS + CLASSES: assert f'ap50_{name}' in page.text
    for text in (title, f'depth_{TRAP}_$x_$', f'{TRAP}.yaml'): assert text in page.text


def drawn(ax):
    "Every text of a figure as matplotlib draws it, and whether it is a formula."
    from matplotlib.text import Text
    ax.figure.canvas.draw()
    return {t._preprocess_math(t.get_text()) for t in ax.figure.findobj(Text) if t.get_text() and t.get_visible()}


def test_names_in_the_reports_figures_are_letters(results):
    import matplotlib.pyplot as plt

    from layerscale_nb.study import report
    v = f'depth_{TRAP}_$x_$'
    for kind in ('overall', 'frontier', 'radar', 'spread', 'cost', 'classes'):
        assert (v, False) in drawn(getattr(report, f'plot_{kind}')(results)), kind
    classes = drawn(report.plot_classes(results))
    for n in DOLLARS + CLASSES: assert (n, False) in classes
    assert (v, False) in drawn(report.plot_differences(report.differences(results)))
    alone = results[results.variant == 'baseline'].assign(variant='the $x_$')
    assert ('relative to the $x_$', False) in drawn(report.plot_overall(alone))
    plt.close('all')


def test_names_in_all_other_figures_are_letters():
    import matplotlib.pyplot as plt
    import torch

    from layerscale_nb.timing import trace as anymodule
    from layerscale_nb.nets import count as complexity, scale as scaling
    from layerscale_nb import plot
    from layerscale_nb.experiments import published
    from layerscale_nb.nets.zoo import named_net
    ax = plot.axes()
    ax.plot([1, 2], [1, 2])
    plot.label_points(ax, [1, 2], [1, 2], DOLLARS)
    assert {(n, False) for n in DOLLARS} <= drawn(ax)
    net, name = replace(named_net('EN-B0'), name='a $x_$'), ('a $x_$', False)
    times = anymodule.Prediction(1., [SimpleNamespace(kind='add', ms=1.)], {})
    assert name in drawn(scaling.plot_growth(net, s=(1, 2)))
    assert name in drawn(published.plot_search([net], net))
    assert name in drawn(anymodule.plot_shares({net.name: times}))
    class Parts(torch.nn.ModuleDict):
        def forward(self, x): return [m(x) for m in self.values()]
    parts = Parts({k: torch.nn.Conv2d(3, 4, 3) for k in ('$x_$', 'y')})
    assert ('$x_$', False) in drawn(complexity.plot_count(complexity.count(parts, (1, 3, 8, 8))))
    plt.close('all')


def test_plain_text_draws_what_it_was_given():
    from matplotlib.text import Text

    from layerscale_nb.plot import plain_text
    for s in (r'a\$b', '$', '$$', r'\\$x$', 'x^2_3', '{', '5 %'):
        assert Text(0, 0, '')._preprocess_math(plain_text(s)) == (s, False)
    assert plain_text('a\udcff') == 'a?' and plain_text(3) == '3'


@pytest.mark.parametrize('need, free, words', [
    (104e6, 98e6, ('104 MB', '98 MB')), (1e9 + 4e5, 1e9, ('1.0004 GB', '1 GB')), (5.1, 5.0, ('5.1 B', '5 B')),
    (2**40 + 1, 2**40, ('1.099511627777 TB', '1.099511627776 TB')), (1000.0, 999.0, ('1 kB', '999 B')),
    (7, 7, ('7 B', '7 B'))])
def test_two_numbers_of_a_sentence_differ(need, free, words):
    assert human_pair(need, free, 'B') == words


def test_what_is_needed_and_what_is_free_are_told_apart(tiny, monkeypatch, tmp_path):
    from layerscale_nb.detect import augment
    from layerscale_nb.study import runs as study
    from layerscale_nb.study.variants import networks
    from layerscale_nb.nets import memory, yolo
    from layerscale_nb.nets.layer import cost
    net = yolo.yolov8('n')
    need = memory.memory_bytes(net, 640)
    needed, free = human_pair(need, need - 100, 'B')
    assert needed != free
    with says(f'needs about {needed} of memory, {free} are free'): memory.check_memory(net, 640, free=need - 100)
    size = (100, 100)  # 10 images need 600 kB while they are stacked
    augment.check_image_memory(10, size, free=700_000)
    sentence = '10 images of 100x100 need 600 kB of memory, and 594 kB can be used (nine tenths of what is free).'
    with says(sentence): augment.check_image_memory(10, size, free=660_000)
    st = study.open_setting(tiny)
    params = [cost(n, st.size).params for n in networks(tiny, len(st.names)).values()]
    free = 32*max(params) + 3*sum(params) + 50e6 - 1000
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: SimpleNamespace(free=free))
    with says('the study needs about') as e: study.check_space(st, tmp_path)
    a, b = re.findall(r'[\d.]+ MB', str(e.value))
    assert a != b


def test_a_data_set_in_a_study_is_its_name(tmp_path, monkeypatch):
    "Errors and config.json hold the name; the images decide the fingerprint."
    from layerscale_nb.study import runs as study
    from layerscale_nb.study.variants import Study, Variant
    from layerscale_nb.detect.augment import STILL
    from layerscale_nb.detect.datasets import roadscenes
    from layerscale_nb.detect.recipe import Recipe
    from layerscale_nb.live.trial import Trial, check_trial
    monkeypatch.setattr(study, 'timings', lambda *a: {})
    sets, v = [roadscenes(8, 4, seed) for seed in (0, 1)], Variant('baseline')
    recipe = Recipe(epochs=1, augment=STILL)
    how = dict(imgsz=(32, 64), base=(.33, .125, 512), variants=(v,), recipe=recipe, device='cpu')
    assert len(repr(sets[0])) < 100 and str(sets[0]) == 'roadscenes'
    st, other = (study.open_setting(Study(data=ds, **how)) for ds in sets)
    row = study.train_run(st, v, 0, tmp_path/'baseline_seed0').finish().row
    config = json.loads((tmp_path/'baseline_seed0'/'config.json').read_text())
    assert config['data'] == 'roadscenes' == row['data'] and len(json.dumps(config)) < 2000
    hashes = [fingerprint(study.run_config(s, v, 0)) for s in (st, other)]
    assert hashes[0] == row['config'] != hashes[1]
    with says('holds a study with another data'): study.check_folder(other, tmp_path)
    empty = tuple(replace(x, boxes=x.boxes[:0], cls=x.cls[:0]) for x in sets[0].train)
    bare = replace(sets[0], name='mine', train=empty)
    with says('mine: the 8 training images hold no labelled box'): study.open_setting(Study(data=bare, **how))
    with says('data is <Dataset roadscenes: 5 classes, 8 + 4 images>; a run in the background needs a name'):
        check_trial(Trial(data=sets[0]))
