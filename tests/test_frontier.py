"Laws through few models: intervals that keep their promise, ranges for models nobody trained, and one sentence for bad tables."
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import linregress, t

from conftest import golden
from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError, stored
from layerscale_nb.laws.frontier import (bootstrap_exponent, foresee, imagined_points, leave_one_out, mean_errors, most_telling, one_law,
                                         pareto_models, power_law, shift_of)
from layerscale_nb.laws.offset import offset_law
from layerscale_nb.laws.points import Points, as_points, inverse_normalized_loss, published_points, read_points
from layerscale_nb.laws.report import frontier_report, frontier_text, plot_law
from layerscale_nb.live.frontier import frontier_explorer
from layerscale_nb.table import write_rows

TRUE = 0.2  # exponent of the imagined tables


def tables(n, seeds, how_many=500, **kw):
    "Imagined tables of n models that span the half decade a fit asks for."
    rng, found = np.random.default_rng(7), []
    while len(found) < how_many:
        p = imagined_points(n, seeds, rng, b=TRUE, **kw)
        if max(p.x)/min(p.x) >= 10**0.5: found.append(p)
    return found


@pytest.mark.parametrize('n, seeds', [(10, 2), (4, 2), (4, 1), (7, 3)])
def test_the_interval_covers(n, seeds):
    "A nominal 95% interval holds the true exponent in 92 to 98 of 100 tables, at the sizes that are really fitted."
    laws = [power_law(p) for p in tables(n, seeds)]
    assert 0.92 <= np.mean([law.low <= TRUE <= law.high for law in laws]) <= 0.98


def test_bootstraps():
    "Over models and seeds: the percentile interval is too narrow at ten models, the studentized one covers."
    p = tables(10, 2)
    inside = lambda studentized: np.mean([low <= TRUE <= high for low, high in (bootstrap_exponent(q, studentized, 299) for q in p)])
    assert inside(False) < 0.92 <= inside(True) <= 0.98


def test_seeds_are_no_models():
    "Ten copies of every run leave the interval as it is."
    p = tables(6, 1, 1)[0]
    copies = Points(p.models, p.x, tuple(r*10 for r in p.runs))
    assert power_law(copies).low == pytest.approx(power_law(p).low) and power_law(copies).high == pytest.approx(power_law(p).high)


def test_ranges_of_unseen_models_cover():
    inside = []
    for p in tables(11, 2):
        f = foresee(power_law(p.only(p.models[:-1])), p.x[-1])
        inside.append(f.low <= p.y[-1] <= f.high)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_shift_covers_and_is_the_factor():
    hits = []
    for p in tables(10, 2):
        raised = Points(p.models, p.x, tuple(tuple(1.3*v for v in r) if i < 3 else r for i, r in enumerate(p.runs)))
        s = shift_of(raised, raised.models[:3])
        hits.append((s.low <= 1.3 <= s.high, s.bend[1] <= 0 <= s.bend[2]))
    assert all(0.92 <= v <= 0.98 for v in np.mean(hits, 0))
    exact = as_points([1, 10, 100, 1, 10, 100], [1, 2, 4, 3, 6, 12])
    s = shift_of(exact, ('4', '5', '6'))
    assert (s.factor, s.exponent) == pytest.approx((3, np.log10(2))) and s.bend[0] == pytest.approx(0, abs=1e-9)
    assert np.isnan(shift_of(exact, ('4', '5')).bend[0])


def test_the_line_is_the_usual_one():
    p = tables(8, 2, 1)[0]
    law, usual = power_law(p), linregress(np.log(p.x), np.log(p.y))
    assert (law.b, np.log(law.a)) == pytest.approx((usual.slope, usual.intercept))
    assert law.high - law.b == pytest.approx(t.ppf(0.975, 6)*usual.stderr)
    f = foresee(law, 30.0)
    logs = np.log(p.x)
    half = t.ppf(0.975, 6)*law.sd*np.sqrt(1 + 1/8 + (np.log(30) - logs.mean())**2/((logs - logs.mean())**2).sum())
    assert np.log([f.low, f.high]) == pytest.approx(np.log(f.y) + np.array([-half, half]))
    assert not f.extrapolated and foresee(law, 1e6).extrapolated


def test_leaving_out_and_its_baselines():
    p = as_points([1, 2, 4, 8, 16], [1, 2, 4, 8, 4], list('abcde'))
    left = {l.model: l for l in leave_one_out(p)}
    assert left['e'].foreseen.y == pytest.approx(16) and left['e'].mean == 3.75 and left['e'].nearest == 8 and left['e'].foreseen.extrapolated
    assert left['e'].law.b == pytest.approx(1) and most_telling(list(left.values())).model == 'e'
    assert mean_errors([left['e']]) == pytest.approx(dict(law=12, mean=0.25, nearest=4))


def test_the_pareto_frontier():
    p = as_points([1, 2, 3, 4], [1, 3, 2, 4], list('abcd'), yname='map50')
    assert pareto_models(p) == ['a', 'b', 'd']
    assert pareto_models(Points(p.models, p.x, p.runs, 'macs', 'loss')) == ['a']
    assert pareto_models(Points(p.models, p.x, p.runs, 'macs', 'inverse_normalized_loss')) == ['a', 'b', 'd']


def test_inverse_normalized_loss():
    assert inverse_normalized_loss([5, 10, 4, 2]).tolist() == [2, 1, 2.5, 5]
    for bad, sentence in (([], 'one number for each epoch'), ([[1, 2]], 'one number for each epoch'), ([1, 0], 'epoch 2 is 0'),
                          ([float('inf'), 1], 'epoch 1 is inf')):
        with pytest.raises(LayerscaleError, match=sentence): inverse_normalized_loss(bad)


@pytest.mark.parametrize('c, a, b', [(0.6, -0.3, -0.5), (0.1, 0.2, 0.4), (20, 60, -0.25), (0.9, -0.05, -2.0)])
def test_an_offset_is_found_again(c, a, b):
    x = np.geomspace(0.3, 40, 8)
    law = offset_law(as_points(x, c + a*x**b))
    assert (law.c, law.a, law.b) == pytest.approx((c, a, b), rel=1e-3)
    assert law(x) == pytest.approx(c + a*x**b, rel=1e-5) and (law.limit == law.c) == (b < 0)
    scaled = offset_law(as_points(1e9*x, c + a*x**b))  # macs, not G
    assert (scaled.c, scaled.b) == pytest.approx((c, b), rel=1e-3)


def test_an_offset_is_not_made_up():
    "A pure power law with the scatter of architectures is seldom said to have a limit, and the interval of b covers."
    rng = np.random.default_rng(0)
    told = [offset_law(imagined_points(10, 2, rng, b=0.1, scatter=0.05)) for _ in range(60)]
    assert np.mean([np.isfinite(o.limit) for o in told]) < 0.1 and 0.88 <= np.mean([o.low <= 0.1 <= o.high for o in told])


def test_one_law_across_families():
    chance = [one_law(dict(zip('abc', three)))['p'] for three in zip(*[iter(tables(6, 1, 600))]*3)]
    assert 0.02 <= np.mean(np.array(chance) < 0.05) <= 0.09
    p = tables(6, 1, 1)[0]
    assert one_law(dict(a=p, b=Points(p.models, p.x, tuple((3*v,) for r in p.runs for v in r))))['p'] < 0.01
    with pytest.raises(LayerscaleError, match='give at least two'): one_law(dict(a=p))


def test_printed_points_are_those_of_the_sources():
    rows = {r['model']: r for r in published_points()}
    for name in ('yolov5', 'yolov8_family'):
        for r in golden(name)['rows']: assert rows[r['name']]['macs'] == pytest.approx(r['published']['flops_B']*1e9/2)
    assert all(r['source'] for r in rows.values()) and len(rows) == 25


def row(net, seed=0, **kw): return dict(net=net, seed=seed, recipe='layerscale', macs=1e9, map50=0.5) | kw


def rows_of(n): return [row(f'net{i}', s, macs=1e9*2**i, map50=0.3 + 0.05*i + 0.01*s) for i in range(n) for s in range(2)]


BAD = {
    'a zero': (rows_of(5) + [row('zero', map50=0.0)], [], 'map50 of zero is 0; a power law is fitted in logarithms and needs numbers above zero'),
    'a negative cost': (rows_of(5) + [row('minus', macs=-1)], [], 'macs of minus is -1; a power law'),
    'a missing metric': (rows_of(5) + [row('none', map50=float('nan'))], [], 'map50 of none is missing (not a number). Leave the model out'),
    'text': (rows_of(5), ['--y', 'recipe'], "recipe of net0 is 'layerscale', no number. Take another column."),
    'equal costs': ([row(f'n{i}', map50=0.1*(i + 1)) for i in range(5)], [], 'macs is 1 G for all 5 models'),
    'equal scores': ([row(f'n{i}', macs=2.0**i) for i in range(5)], [], 'map50 is 0.5 for all 5 models: there is nothing to explain'),
    'few models': (rows_of(3), [], 'a law through 3 models (net0, net1, net2) says nothing about another one: it takes 4 models or more'),
    'few left': (rows_of(5), ['--without', 'net0', 'net1'], 'a law through 3 models (net2, net3, net4) says nothing'),
    'a short span': ([row(f'n{i}', macs=1e9 + 1e8*i, map50=0.1*(i + 1)) for i in range(5)], [], 'macs grows by a factor of 1.4 only'),
    'one run twice': (rows_of(5) + [row('net0')], [], 'net0, seed 0, stands in two rows. Remove one.'),
    'two recipes': (rows_of(5) + [row('net0', recipe='study')], [], 'Keep one, with where recipe=layerscale or recipe=study.'),
    'a wrong column': (rows_of(5), ['--y', 'mAP50'], "no column 'mAP50'. Did you mean 'map50'?"),
    'a wrong cost': (rows_of(5), ['--x', 'mac'], "no column 'mac'. Did you mean 'macs'?"),
    'a wrong model': (rows_of(5), ['--without', 'nett0'], "no model 'nett0'. Did you mean 'net0'?"),
    'another model': (rows_of(2), ['--without', 'x'], "no model 'x'. Known: net0, net1."),
    'a wrong series': (rows_of(5), ['--shift', 'nett1'], "no model 'nett1' in the table. Did you mean 'net1'?"),
    'all in the series': (rows_of(5), ['--shift', *(f'net{i}' for i in range(5))], 'the series holds 5 of 5 models'),
    'a wrong value': (rows_of(5), ['--where', 'recipe=studdy'], "recipe is never 'studdy'. Known: layerscale."),
    'half a choice': (rows_of(5), ['--where', 'recipe'], 'write it as COLUMN=VALUE'),
    'a plan of zero': (rows_of(5), ['--plan', '0'], "plan is '0'; it must be a number > 0."),
    'a plan of words': (rows_of(5), ['--plan', '2G'], "plan is '2G'; it must be a number > 0."),
    'a picture nowhere': (rows_of(5), ['--out', 'nowhere/x.png'], 'cannot write nowhere/x.png'),
    'a picture of no kind': (rows_of(5), ['--out', 'x.pictur'], 'cannot write x.pictur'),
    'no finished run': ([r | dict(status='failed') for r in rows_of(5)], [], 'no finished row in it'),
    'no names': ([{k: v for k, v in r.items() if k != 'net'} for r in rows_of(5)], [], 'no column names the models')}


@pytest.mark.parametrize('case', BAD)
def test_a_bad_table_gets_one_sentence(case, tmp_path, capsys, monkeypatch):
    rows, words, sentence = BAD[case]
    monkeypatch.chdir(tmp_path)
    write_rows(rows, 'results.csv')
    assert main(['frontier', 'results.csv', *words]) == 2
    out, said = capsys.readouterr()
    assert not out and said.count('\n') == 1 and sentence in said, said


def test_a_missing_file(tmp_path, capsys):
    assert main(['frontier', str(tmp_path/'none.csv')]) == 2 and 'none.csv: no such file. Give a csv' in capsys.readouterr().err
    (tmp_path/'empty.csv').write_text('')
    assert main(['frontier', str(tmp_path/'empty.csv')]) == 2 and 'no finished row' in capsys.readouterr().err
    (tmp_path/'bytes.csv').write_bytes(bytes(range(256)))
    assert main(['frontier', str(tmp_path/'bytes.csv')]) == 2 and 'not readable as a table' in capsys.readouterr().err


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(rows_of(6) + [row('failed', status='failed', map50=0), row('net0', recipe='study')], 'results.csv')
    words = ['frontier', 'results.csv', '--where', 'recipe=layerscale', '--plan', '2e9', '1e12', '--shift', 'net0', 'net1', '--out', 'x.png']
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in ('6 with 12 runs, macs 1 G to 32 G', 'exponent', 'pareto    net0', 'within their 95% range', 'macs 2 G: map50', 'extrapolated',
                 'at equal macs'): assert part in said, said
    assert (tmp_path/'x.png').stat().st_size > 5000
    assert main([*words[:-2], '--json']) == 0
    r = json.loads(capsys.readouterr().out, parse_constant=lambda c: pytest.fail(f'{c} is no JSON'))
    assert r['law']['df'] == 4 and [f['extrapolated'] for f in r['plan']] == [False, True] and len(r['left_out']) == 6 and r['series']['bend'] == [None]*3
    assert r['law']['low'] < r['law']['exponent'] < r['law']['high'] and set(r['errors']) == {'law', 'mean', 'nearest'}


def test_the_command_needs_no_torch():
    code = 'import sys; from layerscale_nb.cli import main; main(sys.argv[1:])\nprint([m for m in ("torch", "pandas", "matplotlib") if m in sys.modules])'
    words = ['frontier', str(stored('results/kitti_cyclist_width_depth.csv'))]
    assert subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, check=True).stdout.strip().endswith('[]')


def test_what_the_report_says():
    flat = as_points(np.geomspace(1, 100, 6), [1, 1.1, 0.9, 1.1, 0.9, 1])
    assert 'no trend is shown' in frontier_text(frontier_report(flat)) and 'no better than the' in frontier_text(frontier_report(flat))
    steep = as_points(np.geomspace(1, 100, 6), np.geomspace(1, 10, 6)*[1, 1.01, 1, 0.99, 1, 1])
    assert 'better than both' in frontier_text(frontier_report(steep)) and 'no trend' not in frontier_text(frontier_report(steep))


def test_the_picture():
    p = read_points(stored('results/kitti_cyclist_width_depth.csv'))
    ax = plot_law(power_law(p), plan=[2e9], series=['width_033', 'width_050', 'baseline'])
    dashed = [line for line in ax.lines if line.get_linestyle() == '--']
    assert len(dashed) == 4 and {t.get_text() for t in ax.texts} >= set(p.models) and ax.get_xlabel() == 'macs (G)'
    assert max(dashed[1].get_xdata()) > 2


def test_the_explorer(tmp_path):
    e = frontier_explorer()
    assert set(e.controls) == {'x', 'y', 'left', 'plan'} and 'Exponent' in e.out.value
    e.set(left='yolov5-inceptionv4')
    assert 'yolov5-inceptionv4, left out, reached' in e.out.value
    write_rows([r | dict(recall=0.2 + 0.1*r['seed'], inverse_normalized_loss=5.0*(r['seed'] + 1)) for r in rows_of(4)], tmp_path/'results.csv')
    e = frontier_explorer(tmp_path/'results.csv', left='net3', plan=3e9)
    assert 'says nothing about another one' in e.out.value  # three are left
    e.set(left='no model', y='inverse_normalized_loss')
    assert 'is 7.07' in e.out.value or 'Exponent' in e.out.value
    assert len(e.page()) < 300_000
    with pytest.raises(LayerscaleError, match="no column 'map5'"): frontier_explorer(tmp_path/'results.csv', y='map5')
