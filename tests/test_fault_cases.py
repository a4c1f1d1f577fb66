"Faults made on purpose: each case of `layerscale bench faults` on a small scale, and what its stored table says."
import json
import random
import shutil

import pytest
import torch

from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError, read_json, write_json
from layerscale_nb.experiments.faults import DAMAGE, fault_cases, fault_line, faults_text, try_fault
from layerscale_nb.experiments.sessions import OUTCOMES, fault_bench, left_behind, outcome_of, session_end
from layerscale_nb.study import runs
from layerscale_nb.study.runs import run_study
from layerscale_nb.table import read_rows

QUICK = ('read-only folder', 'clock back a day', 'worker killed')
FILES = {'whole: baseline_seed0/row.json', 'whole: baseline_seed0/best.pt', 'stopped: width_050_seed0/state.pt', 'whole: study.json'}


@pytest.fixture(scope='module')
def bench():
    with fault_bench(kills=4) as b: yield b


def quick(case): return case['kind'] in QUICK or (case['kind'], case['how'], case['jobs']) in (('kill -9', 'driver', 1), ('signal', 'Ctrl-C', 1)) or case['case'] in FILES and case['how'] != 'flipped'


@pytest.mark.parametrize('case', [pytest.param(c, marks=[] if quick(c) else pytest.mark.prove, id=' '.join(map(str, c.values()))) for c in fault_cases()])
def test_a_fault_loses_nothing(bench, case):
    try: found = try_fault(bench, case, seed=1)
    except LayerscaleError as e: pytest.skip(str(e))
    assert found['tries'] and not found['lost'], found


def test_a_loss_would_be_seen(bench):
    "A changed number, a missing row, a left file and a traceback are losses."
    def spoiled(f):
        out = bench.fresh('whole')
        f(out)
        return outcome_of(bench, out)
    assert spoiled(lambda out: None) == 'same'
    table = lambda out: out/'results.csv'
    assert spoiled(lambda out: table(out).write_text(table(out).read_text().replace('baseline,0,done,1.0', 'baseline,0,done,1.5'))) == 'lost'
    assert spoiled(lambda out: table(out).write_text(''.join(table(out).read_text().splitlines(True)[:-1]))) == 'lost'
    assert spoiled(lambda out: (out/'.x.1.part').write_text('')) == 'lost'
    assert spoiled(lambda out: (out.parent/'said.txt').write_text('Traceback (most recent call last)')) == 'lost'
    assert spoiled(lambda out: shutil.copy(out/'baseline_seed0'/'best.pt', out/'width_050_seed0'/'best.pt')) == 'lost'


def test_a_flipped_bit_in_what_is_read_is_seen(bench, tmp_path):
    "Two thousand bits of each file: the same values, or a sentence."
    rng = random.Random(0)
    for name in ('baseline_seed0/row.json', 'baseline_seed0/config.json', 'study.json'):
        whole, values, seen = (bench.whole/name).read_bytes(), read_json(bench.whole/name), 0
        for _ in range(2000):
            (tmp_path/'x.json').write_bytes(DAMAGE['flipped'](whole, rng))
            try: assert read_json(tmp_path/'x.json') == values
            except LayerscaleError as e:
                seen += 1
                assert 'x.json' in str(e)
        assert seen > 1800


def test_a_seal_is_no_value(tmp_path):
    values = dict(a=[1, 2], b=None, c=float('nan'), d={'x': 'ä'})
    write_json(tmp_path/'a.json', values)
    assert repr(read_json(tmp_path/'a.json')) == repr(values)
    held = json.loads((tmp_path/'a.json').read_text())
    (tmp_path/'a.json').write_text(json.dumps({k: v for k, v in held.items() if k != 'sealed'}))
    with pytest.raises(LayerscaleError, match='a.json: damaged'): read_json(tmp_path/'a.json')
    (tmp_path/'a.json').write_text(json.dumps(dict(a=1)))
    assert read_json(tmp_path/'a.json') == dict(a=1), 'older files have none'


def test_a_state_that_outlived_its_run_is_removed(bench):
    "Killed between the row and the removal of the state."
    out = bench.fresh('whole')
    (out/'baseline_seed0'/'state.pt').write_bytes(b'x')
    assert session_end(bench.begin(out)) == 0 and left_behind(out) == []


def test_frames_that_do_not_fit_are_a_sentence(bench, tmp_path, monkeypatch):
    def full(*_): raise RuntimeError('PytorchStreamWriter failed writing file') from OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(LayerscaleError, match='cannot write .*frames.*. Free some space'): list(run_study(bench.st, tmp_path/'s', jobs=2))
    assert left_behind(tmp_path/'s') == []


def test_the_driver_builds_each_network_once(bench, monkeypatch, tmp_path):
    "However many runs there are: what it does for a run must not grow with their number."
    calls, real = [], runs.networks
    monkeypatch.setattr(runs, 'networks', lambda s, nc: calls.append(len(s.variants)) or real(s, nc))
    s = runs.StudyFolder(bench.st, tmp_path)
    for name in [*s.runs]*3: s.net(name)
    assert len(calls) == 1


def test_bench_faults_from_a_terminal(tmp_path, capsys):
    assert main(['bench', 'faults', '--kinds', 'flood']) == 2 and "no kind of fault 'flood'" in capsys.readouterr().err
    words = ['bench', 'faults', '--kinds', 'clock back a day', '--out', str(tmp_path/'f.csv')]
    assert main(words) == 0
    assert '1 tries of 1 cases: 1 ended with the same table' in capsys.readouterr().out
    assert main([*words, '--json']) == 0
    row, = json.loads(capsys.readouterr().out)
    assert (row['tries'], row['same']) == (1, 1) and '1 same, 0 named, 0 lost' in fault_line(row, 1, 1)


def test_nothing_was_lost_in_the_stored_table(repo):
    rows = read_rows(repo/'nbs'/'results'/'faults.csv', text=('case', 'how'))
    assert all(r['tries'] == sum(r[k] for k in OUTCOMES) > 0 for r in rows) and not sum(r['lost'] for r in rows), faults_text(rows)


def test_the_stored_table_is_whole(repo):
    "Every case, and fifty kills at random."
    rows = read_rows(repo/'nbs'/'results'/'faults.csv', text=('case', 'how'))
    made = {(r['kind'], r['case'], r['how'], r['jobs']) for r in rows}
    missing = [c for c in fault_cases() if tuple(c.values()) not in made]
    kills = sum(r['tries'] for r in rows if r['kind'] == 'kill -9')
    if missing or kills < 50: pytest.skip(f'faults.csv holds {kills} random kills of 50 and lacks {len(missing)} cases: `layerscale bench faults` makes them')
