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
    first, best = pilots(table, 30), best_two(table, 30)
    assert len({*first, *best}) == 6 and (table.ms[best] <= 30).all()
    assert table.d[best[0]] != table.d[best[1]] and table.macs[best[0]] == table.macs[table.ms <= 30].max()
    for ms in np.sort(table.ms)[5:]:
        macs = table.macs[pilots(table, ms)]
        assert len({*macs}) == 4 and macs.max()/macs.min() > 3.2, 'half a decade, which a power law needs'


def test_a_wider_law_when_pilots_scatter(table):
    "The range holds the truth, and grows with the scatter of the pilots."
    first, best = pilots(table, 30), best_two(table, 30)
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
