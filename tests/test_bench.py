"The benchmark runs end to end on a few frames: Ultralytics in its child process, scored by our scorer."
import json
from dataclasses import replace

import pytest

import layerscale_nb.experiments.bench as bench
from layerscale_nb.experiments.bench import TUNED, bench_limit, bench_table, bench_ultralytics, compare_trainers, final_scores
from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError
from layerscale_nb.study.runs import open_setting
from layerscale_nb.nets.yolo import Yolo


def test_ultralytics_child(tiny, tmp_path):
    st = open_setting(replace(tiny, n_train=8, n_val=4, device='cpu'))
    seen = []
    r = bench_ultralytics(st, Yolo(d=.33, w=.125, nc=len(st.names)), tmp_path, settings=dict(epochs=2, workers=0, plots=False), seconds=100, look=seen.append)
    assert r['epochs'] == len(r['curve']) == 2 and 0 <= r['curve'][-1][1] <= 1 and r['img_s'] > 0
    assert r['curve'][0][0] < r['curve'][1][0] and len(seen) > 0
    c = compare_trainers(dict(curve=[(1., .5)], img_s=100., train_s=1.), r)
    assert c['to_map50']['0.10']['ours_s'] == 1. and c['img_s'] == pytest.approx(100./r['img_s']*r['curve'][-1][0]/r['train_s'])


def test_a_child_that_fails_is_a_sentence(tiny, tmp_path):
    st = open_setting(replace(tiny, n_train=8, n_val=4, device='cpu'))
    with pytest.raises(LayerscaleError, match='did not finish an epoch; its log is .*log.txt'):
        bench_ultralytics(st, Yolo(d=.33, w=.125, nc=len(st.names)), tmp_path, settings=dict(no_such_setting=1), seconds=100)
    assert 'no_such_setting' in (tmp_path/'ultralytics'/'log.txt').read_text()


@pytest.mark.prove
def test_tuned_settings_are_ones_ultralytics_takes(tiny, tmp_path):
    st = open_setting(replace(tiny, n_train=8, n_val=4, device='cpu'))
    r = bench_ultralytics(st, Yolo(d=.33, w=.125, nc=len(st.names)), tmp_path, settings=TUNED | dict(epochs=1, workers=0), level=1., seconds=100, name='tuned')
    assert r['name'] == 'tuned' and r['epochs'] == 1


def test_limit_compares_two_loops(tiny):
    r = bench_limit(open_setting(tiny), Yolo(d=.33, w=.125, nc=5), turns=4, steps=2)
    assert r['ratio_q1'] <= r['ratio'] <= r['ratio_q3'] and 0 < r['ratio'] < 1.5 and r['batch'] == 8


def test_bench_command_prints_one_json_object(tiny, monkeypatch, capsys, tmp_path):
    ran = []
    def theirs(st, net, folder, settings=None, level=.12, seconds=720, seed=0, look=None, name='ultralytics'):
        ran.append((name, settings, level))
        return dict(name=name, curve=[(10., .05), (20., .15)], own_map50=.15, img_s=5., train_s=20., epochs=2)
    monkeypatch.setattr(bench, 'bench_ultralytics', theirs)
    monkeypatch.setattr(bench, 'open_setting', lambda s, real=bench.open_setting: real(replace(s, n_train=16, n_val=4, imgsz=(96, 320))))
    out = tmp_path/'b.json'
    assert main(['bench', 'train', '--json', '--epochs', '1', '--device', 'cpu', '--net', '.33/.125', '--batch', '4', '--seeds', '0', '1', '--out', str(out)]) == 0
    r = json.loads(capsys.readouterr().out)
    assert r == json.loads(out.read_text()) and r['origin']['seed'] == '0 1'
    assert [(x['name'], x['seed']) for x in r['runs']] == [('layerscale', 0), ('tuned', 0), ('ultralytics', 0), ('layerscale', 1), ('tuned', 1)] and ran[0][1]['rect'] and ran[0][1]['epochs'] == 1 and ran[0][1]['batch'] == r['batch'] == 4 and ran[1][1] is None
    assert r['ratios']['tuned']['to_map50']['0.10']['ultralytics_s'] == 20. and r['limit']['ratio'] > 0 and r['origin']['device']
    assert list(bench_table(r).index) == ['layerscale', 'tuned', 'ultralytics', 'layerscale', 'tuned']
    f = final_scores(r)
    assert list(f.index) == ['layerscale', 'tuned'] and f['mean']['tuned'] == .15 and (f['count'] == 2).all()


@pytest.mark.prove
def test_a_stopped_benchmark_keeps_its_finished_runs(tiny, monkeypatch, tmp_path):
    def stop(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr(bench, 'bench_ultralytics', stop)
    monkeypatch.setattr(bench, 'open_setting', lambda s, real=bench.open_setting: real(replace(s, n_train=16, n_val=4, imgsz=(96, 320))))
    assert main(['bench', 'train', '--epochs', '1', '--device', 'cpu', '--net', '.33/.125', '--batch', '4', '--out', str(tmp_path/'b.json')]) == 130
    assert [x['name'] for x in json.loads((tmp_path/'b.json').read_text())['runs']] == ['layerscale']


def test_bench_count_keeps_its_result(monkeypatch, tmp_path, capsys):
    from layerscale_nb.experiments import counters
    monkeypatch.setattr(counters, 'bench_count', lambda **kw: dict(rows=[1]))
    assert main(['bench', 'count', '--json', '--out', str(tmp_path/'a'/'c.json')]) == 0
    assert json.loads((tmp_path/'a'/'c.json').read_text()) == json.loads(capsys.readouterr().out) == dict(rows=[1])


def test_bench_recipe_takes_pieces_by_name_and_prints_rows(monkeypatch, capsys):
    import pandas as pd
    from layerscale_nb.experiments import recipe
    asked = {}
    monkeypatch.setattr(recipe, 'bench_recipe', lambda **kw: asked.update(kw) or pd.DataFrame([dict(piece='batch 16', map50=0.5)]))
    assert main(['bench', 'recipe', '--json', '--pieces', 'full recipe', 'batch 16']) == 0
    assert json.loads(capsys.readouterr().out) == [dict(piece='batch 16', map50=0.5)]
    assert list(asked['pieces']) == ['full recipe', 'batch 16']
    monkeypatch.undo()
    assert main(['bench', 'recipe', '--pieces', 'batch 61']) == 2
    assert "Did you mean 'batch 16'?" in capsys.readouterr().err


def test_bad_budgets_are_sentences(capsys):
    for argv, text in ((['bench', 'train', '--minutes', '0'], 'minutes is'), (['bench', 'train', '--epochs', '0'], 'epochs is'), (['bench', 'train', '--net', 'EN-B0'], 'both trainers'), (['bench', 'recipe', '--epochs', 'x'], 'epochs is')):
        assert main(argv) == 2
        assert text in capsys.readouterr().err


def test_out_of_memory_in_a_benchmark_is_a_sentence(monkeypatch, capsys):
    def full(**kw): raise RuntimeError('CUDA out of memory. Tried to allocate 20.00 GiB')
    monkeypatch.setattr(bench, 'bench_train', full)
    assert main(['bench', 'train']) == 2
    assert 'layerscale: out of memory. Use a smaller --imgsz' in capsys.readouterr().err


def test_the_slider_of_the_budgets_moves(repo):
    "`make bench` measures it: each move sets the next value."
    import importlib.util
    spec = importlib.util.spec_from_file_location('budgets', repo/'tests'/'bench'/'budgets.py')
    budgets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(budgets)
    move = budgets.mover()
    assert len({move() for _ in range(3)}) == 3
