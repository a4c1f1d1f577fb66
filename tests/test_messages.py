"What people read: errors of other libraries in one line, text from data as text in HTML and in figures, any terminal."
import re
import subprocess
import sys
from collections import deque
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from layerscale_nb.core import LayerscaleError, human_pair, one_line


class Mute(RuntimeError):
    "An error that says nothing, as `MemoryError()` or `assert` do."


@pytest.mark.parametrize('said, last, line', [
    (MemoryError(), False, 'MemoryError'), (Mute('\n \n'), False, 'Mute'), (ValueError('  one\ntwo'), False, 'one'),
    ('one\ntwo\n\n', True, 'two'), ('', True, 'no further words'), (ValueError('x'*500), False, 'x'*120), (SystemExit(), True, 'SystemExit')])
def test_one_line_of_any_error(said, last, line):
    assert one_line(said, last) == line


def test_an_error_without_text_is_a_sentence(tmp_path, monkeypatch):
    "Each place that quotes another library's error, given one that says nothing."
    import queue

    import pandas as pd
    import torch
    import ultralytics.data.utils as ultralytics_data
    import ultralytics.nn.tasks as tasks

    from layerscale_nb import calibrate, data, ddp, lookup, members, report, runtime, train, trial, worker
    def mute(*_, **__): raise Mute()
    monkeypatch.setattr(pd, 'read_csv', lambda *_, **__: (_ for _ in ()).throw(ValueError()))
    (tmp_path/'results.csv').write_text('a'), (tmp_path/'kept.csv').write_text('a'), (tmp_path/'state.pt').write_text('a')
    with pytest.raises(LayerscaleError, match='results.csv: not readable as a table .ValueError'): report.read_results(tmp_path)
    with pytest.raises(LayerscaleError, match='kept.csv: not readable as a table .ValueError'): trial.read_kept(tmp_path)
    for owner, name in ((torch, 'load'), (ultralytics_data, 'check_det_dataset'), (tasks, 'DetectionModel'), (calibrate, 'measure_calls'), (members, 'check_member')):
        monkeypatch.setattr(owner, name, mute)
    with pytest.raises(LayerscaleError, match='this state cannot be read .Mute'): train.resume(type('S', (), dict(device='cpu')), tmp_path)
    with pytest.raises(LayerscaleError, match='could not be downloaded .Mute'): data.named_set('nowhere.yaml')
    with pytest.raises(LayerscaleError, match='Ultralytics cannot build this model .Mute'): lookup.by_ultralytics({}, 'x.yaml', None, None)
    with pytest.raises(LayerscaleError, match='cannot be measured in fp32: Mute. Try'): calibrate.calibrate('cpu')
    class Broken(torch.nn.Module):
        forward = mute
    with pytest.raises(LayerscaleError, match='fails at 8x8, batch 1, float32: Mute. Try'): runtime.time_module(Broken(), (8, 8), torch.device('cpu'))
    dead = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(3)']); dead.wait(); (tmp_path/'log0.txt').write_text('')
    with pytest.raises(LayerscaleError, match='process 0 of 1 failed .status 3.: no further words'): ddp.wait_for_all([dead], tmp_path)
    told = []
    worker.do_job(mute, {}, queue.Queue(), told.append)
    assert told == [dict(kind='error', text='Mute: no further words')]
    members.own_row('yolov4-tiny', tmp_path)
    assert '"said": "Mute: no further words"' in (tmp_path/'row.json').read_text()


def test_no_module_takes_the_first_line_by_itself(repo):
    "`str(e).splitlines()[0]` fails for an error without text; `one_line` does not."
    for p in (repo/'layerscale_nb').glob('*.py'):
        assert 'str(e).splitlines()' not in p.read_text() and 'strip().splitlines()[' not in p.read_text(), p.name


TRAP = '<img src=x onerror=alert(1)>'
CLASSES = ('a < b & "c"', "it's <b>bold</b>", TRAP)


class Page(HTMLParser):
    "Tags and text of some HTML, and every attribute that holds code."
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.code = [], '', []
        self.feed(html)
    def handle_starttag(self, tag, attrs): self.tags.append(tag); self.code += [k for k, _ in attrs if k.startswith('on')]
    def handle_data(self, data): self.text += data


def harmless(html, *texts):
    "The page shows these texts letter by letter, and holds no tag or code of theirs."
    page = Page(html)
    assert 'img' not in page.tags and 'onerror' not in page.code, html
    for t in texts: assert t in page.text, html
    return page


@pytest.fixture
def panel(tmp_path):
    from layerscale_nb.panel import make_panel
    from layerscale_nb.trial import Trial
    inbox = deque()
    worker = SimpleNamespace(inbox=inbox, send=lambda job: 1, stop=lambda: None, wake=None)
    return make_panel(Trial(data=TRAP), CLASSES, 256, 64, (96, 320), tmp_path/'a<b>', worker)


def test_what_a_panel_says_is_text(panel):
    from layerscale_nb.panel import guarded, on_end, pump, show_images
    harmless(panel.ui.call.value, repr(TRAP), repr(str(panel.out)))
    on_end(panel, dict(kind='error', text=f'{TRAP}: no such class')); harmless(panel.ui.status.value, f'{TRAP}: no such class')
    guarded(panel, lambda p: {}[TRAP])(); harmless(panel.ui.status.value, f'KeyError: {TRAP!r}')
    panel.worker.inbox.append(dict(kind='note', number=1, text=TRAP)); pump(panel); harmless(panel.ui.status.value, TRAP)
    show_images(panel, [], f'{TRAP} & more'); harmless(panel.ui.caption.value, f'{TRAP} & more')


def test_what_a_kept_file_holds_is_text(panel):
    from layerscale_nb.panel import keep, table_html
    from layerscale_nb.trial import Trial
    row = dict(d=.3, w=.2, imgsz=TRAP, epochs=2, done=1, seed='<script>', map50=0.25, macs=1e9, params=1e6, train_s=3.)
    page = harmless(table_html([row]), TRAP, '<script>', '0.250')
    assert 'script' not in page.tags and {'table', 'tr', 'td'} <= set(page.tags)
    done = dict(epoch=1, loss=5., map50=0.1, map50_95=0.05, lr=0.003, train_s=3.)
    panel.run, panel.row, panel.facts = Trial(data=TRAP), done, dict(run='abc', device=TRAP)
    keep(panel)
    assert 'code' in harmless(panel.ui.status.value, f'data={TRAP!r}').tags, 'our own markup is still markup'
    harmless(panel.ui.table.value + panel.ui.kept.value)


def test_svg_and_explorers_show_text():
    from dataclasses import replace

    from layerscale_nb import actbound, core, csp, explore, plot
    from layerscale_nb.roofline import Profile
    from layerscale_nb.zoo import named
    marks = [plot.Mark('line', [1, 2], [1, 2], names=[TRAP], tips=[TRAP]), plot.Mark('dot', [1], [1], names=[TRAP], tips=[TRAP]),
             plot.Mark('rule', [1], names=[TRAP])]
    harmless(plot.svg_chart(marks, TRAP, TRAP), TRAP)
    harmless(plot.flip_book({TRAP: 'x'}, name=TRAP), TRAP)
    with pytest.raises(LayerscaleError, match='Known: <b>, c.'): plot.flip_book({'<b>': '', 'c': ''}, 'zzzzzz')
    net = replace(named('EN-B0'), name=TRAP)
    harmless(explore.scaling_panel(net, 'dWr', 2), TRAP); harmless(explore.scaling_explorer(net).children[-1].value, TRAP)
    kinds = {k: dict(gmac=1., weights_mb=1., near_mb=1., far_mb=1., page_mb=1., call=1.) for k in calls_of(net)}
    p = Profile(TRAP, TRAP, 1, TRAP, True, 1, 'sum', kinds, 0.1, 10, 1., {})
    harmless(actbound.runtime_panel(net, 0.8, 2, 1, [p]), TRAP)
    harmless(actbound.share_bars({TRAP: (1., 1., TRAP)}), TRAP)
    from layerscale_nb.lookup import Price
    from layerscale_nb.scaling import compare
    for shown in (net, compare(net, 'dWr', 2), Price(TRAP, (32, 32), core.Cost(1, 1, 1))): harmless(shown._repr_markdown_(), TRAP)
    box = csp.csp_explorer(profile=Profile(TRAP, TRAP, 1, 'fp32', True, 1, 'sum', kinds, 0.1, 10, 1., {}))
    harmless(box.note.value, TRAP)


def calls_of(net):
    from layerscale_nb.roofline import calls
    return {c.kind for c in calls(net)} | {'silu', 'add', 'norm', 'spatial', '1x1', 'mean'}


DOLLARS = ('$5_bill_$', 'US$1 or $2^')


@pytest.fixture
def results(repo, tmp_path):
    "A finished study whose class names are hard to draw."
    import pandas as pd
    df = pd.read_csv(repo/'nbs'/'results'/'kitti_cyclist_width_depth.csv')
    old = [c[5:] for c in df if c.startswith('ap50_')]
    df = df[[c for c in df if not c.startswith(('ap50_', 'ap_'))]]
    for i, n in enumerate(DOLLARS + CLASSES): df = df.assign(**{f'ap50_{n}': df.map50/(i + 1), f'ap_{n}': df.map50/(i + 2)})
    assert old, 'the stored table has classes'
    return df.assign(data=f'{TRAP}.yaml', variant=df.variant.replace('depth_050', f'depth_{TRAP}_$x_$'))


def test_a_report_of_any_names(results, tmp_path):
    from layerscale_nb.report import write_report
    results.to_csv(tmp_path/'results.csv', index=False)
    title = '<script>& more'
    html = write_report(tmp_path, title).read_text()
    pictures = html.count('<img alt="figure" src="data:')
    assert pictures == 10
    page = Page(html.replace('<img alt="figure"', '<picture'))
    assert 'img' not in page.tags and 'script' not in page.tags and not page.code
    for name in DOLLARS + CLASSES: assert f'ap50_{name}' in page.text
    for text in (title, f'depth_{TRAP}_$x_$', f'{TRAP}.yaml'): assert text in page.text


def drawn(ax):
    "Every text of a figure as matplotlib draws it, and whether it is a formula."
    from matplotlib.text import Text
    ax.figure.canvas.draw()
    return {t._preprocess_math(t.get_text()) for t in ax.figure.findobj(Text) if t.get_text() and t.get_visible()}


def test_names_in_figures_are_letters(results):
    import matplotlib.pyplot as plt

    from layerscale_nb import anymodule, complexity, plot, published, report, scaling
    from layerscale_nb.zoo import named
    v = f'depth_{TRAP}_$x_$'
    for f in (report.plot_overall, report.plot_frontier, report.plot_radar, report.plot_spread, report.plot_cost, report.plot_classes): assert (v, False) in drawn(f(results)), f.__name__
    classes = drawn(report.plot_classes(results))
    for n in DOLLARS + CLASSES: assert (n, False) in classes
    assert (v, False) in drawn(report.plot_differences(report.differences(results)))
    renamed = results.assign(variant=results.variant.replace('baseline', 'the $x_$'))
    assert ('relative to the $x_$', False) in drawn(report.plot_overall(renamed.sort_values('variant', ascending=False, key=lambda s: s == 'the $x_$')))
    ax = plot.axes(); ax.plot([1, 2], [1, 2]); plot.label_points(ax, [1, 2], [1, 2], DOLLARS); assert {(n, False) for n in DOLLARS} <= drawn(ax)
    from dataclasses import replace
    net = replace(named('EN-B0'), name='a $x_$')
    assert (net.name, False) in drawn(scaling.plot_growth(net, s=(1, 2))) and (net.name, False) in drawn(published.plot_search([net], net))
    import torch

    from layerscale_nb.complexity import count
    money = torch.nn.ModuleDict({'$x_$': torch.nn.Conv2d(3, 4, 3), 'y': torch.nn.Conv2d(3, 4, 3)}); money.forward = lambda x: (money['$x_$'](x), money['y'](x))
    assert ('$x_$', False) in drawn(complexity.plot_count(count(money, (1, 3, 8, 8))))
    times = [SimpleNamespace(kind='add', ms=1.)]
    assert (net.name, False) in drawn(anymodule.plot_shares({net.name: anymodule.Prediction(1., times, {})}))
    plt.close('all')


def test_plain_text_draws_what_it_was_given():
    from matplotlib.text import Text

    from layerscale_nb.plot import plain_text
    for s in (r'a\$b', '$', '$$', r'\\$x$', 'x^2_3', '{', '5 %'): assert Text(0, 0, '')._preprocess_math(plain_text(s)) == (s, False)
    assert plain_text('a\udcff') == 'a?' and plain_text(3) == '3'


@pytest.mark.parametrize('need, free, words', [(104e6, 98e6, ('104 MB', '98 MB')), (1e9 + 4e5, 1e9, ('1.0004 GB', '1 GB')), (5.1, 5.0, ('5.1 B', '5 B')),
                                               (2**40 + 1, 2**40, ('1.099511627777 TB', '1.099511627776 TB')), (1000.0, 999.0, ('1 kB', '999 B')), (7, 7, ('7 B', '7 B'))])
def test_two_numbers_of_a_sentence_differ(need, free, words):
    assert human_pair(need, free, 'B') == words


def test_what_is_needed_and_what_is_free_are_told_apart(tiny, monkeypatch, tmp_path):
    import shutil

    from layerscale_nb import augment, study, yolo
    net = yolo.yolov8('n')
    need = yolo.memory_bytes(net, 640)
    with pytest.raises(LayerscaleError, match='needs about 76.8528 MB of memory, 76.8527 MB are free'): yolo.check_memory(net, 640, free=need - 100)
    size = (100, 100)  # 10 images need 600 kB while they are stacked
    augment.check_memory(10, size, free=700_000)
    with pytest.raises(LayerscaleError, match=r'10 images of 100x100 need 600 kB of memory, and 594 kB can be used .nine tenths of what is free.'): augment.check_memory(10, size, free=660_000)
    st = study.open_setting(tiny)
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: SimpleNamespace(free=0))
    with pytest.raises(LayerscaleError, match='0 B are free') as e: study.check_space(st, tmp_path)
    nets = [yolo.cost(n, st.size).params for n in study.networks(tiny, len(st.names)).values()]
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: SimpleNamespace(free=32*max(nets) + 3*sum(nets) + 50e6 - 1000))
    with pytest.raises(LayerscaleError, match='the study needs about') as e: study.check_space(st, tmp_path)
    a, b = re.findall(r'[\d.]+ MB', str(e.value)); assert a != b


def test_a_data_set_in_a_study_is_its_name(tmp_path, monkeypatch):
    "Errors and config.json hold the name; the images decide the fingerprint."
    import json

    from layerscale_nb import study
    from layerscale_nb.augment import STILL
    from layerscale_nb.core import fingerprint
    from layerscale_nb.data import Dataset, roadscenes
    from layerscale_nb.study import Study, Variant, check_folder, exhaust, open_setting, run_config, train_run
    from layerscale_nb.train import Recipe
    from layerscale_nb.trial import Trial, check_trial
    sets = [roadscenes(8, 4, seed) for seed in (0, 1)]
    assert len(repr(sets[0])) < 100 and str(sets[0]) == 'roadscenes'
    make = lambda ds: open_setting(Study(data=ds, imgsz=(32, 64), base=(.33, .125, 512), variants=(Variant('baseline'),), recipe=Recipe(epochs=1, augment=STILL), device='cpu'))
    st, other = map(make, sets)
    v = st.study.variants[0]
    monkeypatch.setattr(study, 'timings', lambda *a: {})
    row = exhaust(train_run(st, v, 0, tmp_path/'baseline_seed0'))
    config = json.loads((tmp_path/'baseline_seed0'/'config.json').read_text())
    assert config['data'] == 'roadscenes' == row['data'] and len(json.dumps(config)) < 2000
    assert fingerprint(run_config(st, v, 0)) == row['config'] != fingerprint(run_config(other, v, 0))
    with pytest.raises(LayerscaleError, match='holds a study with another data'): check_folder(other, tmp_path)
    bare = Dataset('mine', ('car',), *(tuple(type(x)(x.id, x.image, x.size, x.boxes[:0], x.cls[:0]) for x in part) for part in (sets[0].train, sets[0].val)))
    with pytest.raises(LayerscaleError, match='^mine: the 8 training images hold no labelled box'): make(bare)
    with pytest.raises(LayerscaleError, match='data is <Dataset roadscenes: 5 classes, 8 . 4 images>; a run in the background needs a name or a folder'): check_trial(Trial(data=sets[0]))
