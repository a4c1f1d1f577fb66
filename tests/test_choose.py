"A detector for a deadline: who is trained, what is said before, and what is compared after."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError, read_json, stored
from layerscale_nb.experiments.choose import CHOICE, best_two, candidates, card, choose, forecasts, pilots
from layerscale_nb.study.report import read_results
from layerscale_nb.study.runs import open_setting
from layerscale_nb.study.variants import PRESETS
from layerscale_nb.timing.measure import machine, pick_device
from layerscale_nb.timing.roofline import load_profile, save_profile


@pytest.fixture(scope='module')
def here():
    "A profile with the stored rates that says it is of this machine."
    device, threads = machine(pick_device('cpu'))
    return replace(load_profile(stored('results/predictor_cpu_profile.json')), device=device, threads=threads)


@pytest.fixture(scope='module')
def table(here):
    return candidates(open_setting(replace(PRESETS['quick'], n_train=8, n_val=4, device='cpu')), here)


def test_six_networks_are_trained_within_the_deadline(table):
    best = best_two(table, 30)
    first = pilots(table, best)
    assert len({*first, *best}) == 6 and (table.ms[best] <= 30).all()
    assert table.d[best[0]] != table.d[best[1]] and table.macs[best[0]] == table.macs[table.ms <= 30].max()
    for ms in np.sort(table.ms)[5:]:
        macs = table.macs[pilots(table, best_two(table, ms))]
        assert len({*macs}) == 4 and macs.max()/macs.min() > 3.2, 'half a decade, which a power law needs'


def test_a_wider_law_when_pilots_scatter(table):
    "The range holds the truth, and grows with the scatter of the pilots."
    best = best_two(table, 30)
    first = pilots(table, best)
    wide = []
    for noise in (.001, .1):
        rng = np.random.default_rng(0)
        rows = pd.DataFrame([dict(variant=v, map50=.2*(table.macs[v]/1e8)**.3*np.exp(rng.normal(0, noise))) for v in first])
        said = forecasts(table, rows, best)[best[0]]
        assert said['low'] < .2*(table.macs[best[0]]/1e8)**.3 < said['high'] <= 1
        wide.append(said['high'] - said['low'])
    assert wide[1] > 5*wide[0]


def test_the_card_says_what_was_missed():
    choice = dict(ms=10, forecasts=dict(a=dict(macs=1e8, ms=9., map50=.5, low=.4, high=.6), b=dict(macs=2e8, ms=9., map50=.5, low=.4, high=.6)))
    c = card(choice, pd.DataFrame([dict(variant='a', macs=1e8, latency_ms=11, map50=.7), dict(variant='b', macs=2e8, latency_ms=9, map50=.5)]))
    assert c.in_time.tolist() == [False, True] and c.in_range.tolist() == [False, True]


def test_command(here, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_profile(here, tmp_path/'p.json')
    few = '--profile', 'p.json', '--n-train', '8', '--n-val', '4', '--device', 'cpu'
    assert main(['choose', '--ms', '30', '--plan', *few]) == 0
    out = capsys.readouterr().out
    assert out.count('pilot') == 4 and out.count('to be chosen') == 2 and not (tmp_path/'runs').exists()
    for words, text in ((['choose', *few], 'say how long one image may take'), (['choose', '--ms', '1', *few], '0 of 18 networks'),
                        (['choose', '--ms', '-1', *few], "ms is '-1'")):
        assert main(words) == 2 and text in capsys.readouterr().err
    save_profile(replace(here, device='another machine'), tmp_path/'p.json')
    assert main(['choose', '--ms', '30', *few]) == 2 and 'the profile is for device another machine' in capsys.readouterr().err


@pytest.mark.prove
def test_forecasts_are_written_before_the_best_two_are_trained(here, tmp_path):
    st = open_setting(replace(PRESETS['quick'], n_train=96, n_val=32, imgsz=(64, 192), device='cpu', recipe=replace(PRESETS['quick'].recipe, epochs=4)))
    t = candidates(st, here)
    for e in choose(st, tmp_path, 15, t, jobs=1):
        if e.kind == 'trained' and e.total == 6: assert (tmp_path/CHOICE).exists()
    before = (tmp_path/CHOICE).read_text()
    assert {e.kind for e in choose(st, tmp_path, 15, t, jobs=1)} == {'skip'} and (tmp_path/CHOICE).read_text() == before
    assert len(card(read_json(tmp_path/CHOICE), read_results(tmp_path))) == 2
    with pytest.raises(LayerscaleError, match='networks are predicted'): next(choose(st, tmp_path, .001, t))


def test_time_follows_from_the_description(here):
    "The candidates' times need no module; a folded one, traced, gives the same."
    from layerscale_nb.detect.anchors import build_detector
    from layerscale_nb.live.deadline import grid_networks, priced
    from layerscale_nb.timing.trace import module_calls, predict_calls
    nets = {v.name: net for v, net in grid_networks(PRESETS['quick'], 5).items()}
    t = priced(nets, (64, 192), here)
    for name in ('depth_033_width_050', 'baseline', 'width_150'):
        traced = predict_calls(module_calls(build_detector(nets[name]).fuse(verbose=False).eval(), (64, 192)), here).ms
        assert t.ms[name] == pytest.approx(traced, rel=.01)
    assert len(nets) == 18 and t.macs.is_monotonic_increasing and not t.ms.is_monotonic_increasing


def test_the_explorer_of_deadlines(here):
    from layerscale_nb.laws.frontier import power_law
    from layerscale_nb.laws.points import as_points
    from layerscale_nb.live.deadline import choose_explorer, deadline_view, grid_networks, priced
    e = choose_explorer(here, most_ms=12)
    said = lambda: e.out.value
    assert 'keep <b>12 ms</b>' in said() and len(e.page()) < 300_000
    def kept(slower):
        e.set(slower=slower)
        return int(said().split('<b>')[1].split()[0])
    assert kept(1) > kept(2), 'other load leaves fewer networks'
    e.set(size='416x128', most_ms=3)
    assert '0 of 18' in said() and 'the fastest takes' in said()
    t = priced({v.name: n for v, n in grid_networks(PRESETS['quick'], 5).items()}, (64, 192), here)
    law = power_law(as_points(t.macs[::4], [.2, .25, .24, .3, .33], list(t.index[::4]), 'macs', 'map50'))
    *_, table = deadline_view(t, 12, law=law)
    low, _, high = table['rows'][0][-1].split()
    assert table['head'][-1] == 'mAP50, 95%' and 0 < float(low) < float(high) <= 1
    assert float(table['rows'][0][-2]) <= 12


def test_a_card_in_factors():
    from layerscale_nb.live.deadline import Judged, card_part, choose_card
    from layerscale_nb.live.view import draw_view
    right, twice, far = Judged('ms', 10., 10.), Judged('ms', 10., 20., 5., 40., 1.), Judged('ms', 10., 1000., .01, 1e4, 0.)
    xs = lambda r: [x for x, *_, colour in card_part([r])['rects'] if colour == '#0072B2']
    lines = [x for x, *_, colour in card_part([right])['rects'] if colour == '#888888']
    assert xs(right)[0] + 2 == pytest.approx(lines[2] + 1) and xs(twice)[0] + 2 == pytest.approx(lines[3])
    wide = card_part([far])
    assert all(0 <= x and x + w <= wide['size'][0] for x, _, w, *_ in wide['rects']), 'what is far off stays inside'
    html = draw_view(choose_card('a < b', [twice, Judged('mAP50', 0., .2)]))
    assert 'a &lt; b' in html and '20 (2.00)' in html and '1 (0.10)' in html and html.count('role="img"') == 1


def test_other_networks_can_be_judged(table):
    "Pilots are never among them."
    for names in (['baseline'], ['depth_033_width_050'], ['width_300', 'depth_067']):
        found = pilots(table, names)
        assert len({*found} - {*names}) == 4 and table.macs[found].max()/table.macs[found].min() > 3.2
