"Members of equal price, AP by object size, stages removed after training, test-time augmentation."
import math

import numpy as np
import pytest

from layerscale_nb.core import LayerscaleError, read_json
from layerscale_nb.experiments.family import ABLATED, FAMILY, Member, augment_table, augmented, evaluate, levels_table, load_member, member_net, only_size, open_data, run_family, shrink, stride_scores, train_member, without_levels
from layerscale_nb.nets.ladder import named_yolo, with_head
from layerscale_nb.nets.yolo import build_yolo
from layerscale_nb.nets.layer import cost


def test_another_activation_costs_the_same():
    a, b = (member_net(Member('yolov4-csp', 0.3, 0.2, act=x), 3) for x in ('', 'SiLU'))
    assert cost(a, 64).total == cost(b, 64).total and a.act == 'Mish' and b.act == 'SiLU'
    with pytest.raises(LayerscaleError, match='activation'): member_net(Member('yolov4-csp', act='GELU'), 3)


def test_members_cost_about_the_same():
    macs = [cost(member_net(m, 3), m.size).macs for m in FAMILY + ABLATED]
    assert max(macs) < 2*min(macs)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('member')
    m = Member('yolov4-p6', 0.1, 0.07, (64, 192))
    row = train_member(m, 'roadscenes', folder/'a', epochs=2, n_train=12, n_val=6, device='cpu')
    return m, folder/'a', row


def test_a_finished_run_is_not_trained_again(run):
    m, folder, row = run
    again = dict(epochs=2, n_train=12, n_val=6, device='cpu')
    assert train_member(m, 'roadscenes', folder, **again) == row == read_json(folder/'row.json')
    for other in (dict(epochs=3), dict(seed=7), dict(n_train=11)):
        with pytest.raises(LayerscaleError, match='holds a run with other settings'): train_member(m, 'roadscenes', folder, **again | other)
    assert {'command', 'versions', 'device', 'seed', 'date'} <= set(row) and not (folder/'state.pt').exists()


def test_the_loaded_member_is_the_trained_one(run):
    import torch
    m, folder, row = run
    names, _, val = open_data('roadscenes', m.size, 1, 6)
    model, net = load_member(folder/'best.pt', m, len(names))
    assert cost(net, m.size).params == row['params'] == sum(p.numel() for p in model.parameters())
    got = evaluate(model, val, len(names))
    assert got['map50'] == pytest.approx(row['map50'], abs=0.02)
    from ultralytics import YOLO
    theirs = YOLO(folder/'best.pt').model.float().eval()
    x = torch.rand(1, 3, *m.size)
    with torch.no_grad(): assert torch.allclose(theirs(x)[0], model(x)[0], atol=1e-3)


class Evil:
    "A pickle that calls something when it is opened."
    def __init__(self, *call): self.call = call
    def __reduce__(self): return self.call[0], self.call[1:]


def evil_calls(ran):
    "What a pickle may call to make the file `ran`."
    import os
    from pathlib import Path

    from layerscale_nb.nets.yolo import quiet_ultralytics
    quiet_ultralytics()
    from ultralytics.nn.tasks import DetectionModel
    text = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    rows = dict(backbone=[[-1, 1, 'Conv', [8, 3, 2]]], head=[], nc=1, activation=f'[{text}, nn.SiLU()][1]')
    return dict(method=(Path.touch, Path(ran)), system=(os.system, f'touch {ran}'), eval=(eval, text), model=(DetectionModel, rows))


@pytest.mark.parametrize('how', ['method', 'system', 'eval', 'model'])
def test_no_code_of_a_checkpoint_runs(how, run, tmp_path):
    import torch
    from ultralytics.nn.tasks import DetectionModel
    m, folder, _ = run
    ran, known = tmp_path/'ran', torch.serialization.get_safe_globals()
    evil = Evil(*evil_calls(ran)[how])
    try:
        torch.serialization.add_safe_globals([DetectionModel])  # someone may have called it safe before
        for where in ('ema', 'model', 'optimizer'):
            saved = torch.load(folder/'best.pt', weights_only=False, map_location='cpu') | {where: evil}
            torch.save(saved, tmp_path/'evil.pt')
            try: model, _ = load_member(tmp_path/'evil.pt', m, 8)
            except LayerscaleError as e: assert 'evil.pt' in str(e) and '\n' not in str(e)
            else: assert where != 'ema' and isinstance(model, DetectionModel)
            assert not ran.exists() and DetectionModel in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(known)
    torch.load(tmp_path/'evil.pt', weights_only=False)
    assert ran.exists()  # or the test proves nothing


def test_another_checkpoint_is_a_sentence(run, tmp_path):
    import torch
    m, folder, _ = run
    (tmp_path/'text.pt').write_text('weights')
    (tmp_path/'cut.pt').write_bytes((folder/'best.pt').read_bytes()[:5000])
    torch.save(dict(model=None), tmp_path/'none.pt')
    torch.save(dict(ema=dict(weight=torch.zeros(3))), tmp_path/'plain.pt')
    for name in ('text.pt', 'cut.pt', 'none.pt', 'plain.pt', 'absent.pt'):
        with pytest.raises(LayerscaleError, match=f'{name}[: ]'): load_member(tmp_path/name, m, 8)
    with pytest.raises(LayerscaleError, match='best.pt holds other weights than yolov5n of 8 classes'):
        load_member(folder/'best.pt', Member('yolov5n'), 8)


def test_ultralytics_opens_a_checkpoint_only_where_it_is_yours(tmp_path):
    pytest.importorskip('onnx', reason='the onnx package is not installed here: pip install onnx to run this test')
    import torch

    from layerscale_nb.experiments.members import by_yolo, exported
    torch.save(dict(ema=Evil(*evil_calls(tmp_path/'ran')['method'])), tmp_path/'evil.pt')
    for f in (by_yolo, lambda path: exported(path, torch.zeros(1, 3, 64, 64))):
        with pytest.raises(LayerscaleError, match='evil.pt: Ultralytics runs .* say trusted=True'): f(tmp_path/'evil.pt')
    assert not (tmp_path/'ran').exists()


def test_tables_have_a_row_for_each(run):
    m, folder, _ = run
    levels = levels_table(folder/'best.pt', m, 'roadscenes', 6)
    assert [r['removed'] for r in levels] == [0, 1, 2] and levels[0]['params'] > levels[1]['params'] > levels[2]['params']
    said = stride_scores(folder/'best.pt', m, 'roadscenes', 3)
    assert [r['stride'] for r in said] == [8, 16, 32, 64] and all(0 <= r['score'] <= 1 for r in said)
    rows = augment_table(folder/'best.pt', m, 'roadscenes', 6)
    assert [r['prediction'] for r in rows] == ['plain', 'augmented'] and rows[1]['latency_ms'] > rows[0]['latency_ms']


@pytest.mark.parametrize('name', ['yolov4-p7', 'yolov4-p5', 'yolov8n', 'yolov5n', 'd53-fpnspp-leaky'])
def test_removing_stages_is_exact(name):
    import torch
    net = member_net(Member(name, 0.1, 0.06), 2)
    model, x = build_yolo(net).eval(), torch.rand(1, 3, net.stride, 2*net.stride)
    torch.manual_seed(0)
    for p in model.parameters(): torch.nn.init.normal_(p, 0, 0.1)
    heads = len(net.resolved[-1].src)
    with torch.no_grad():
        whole = model(x)[0]
        for n in range(heads):
            part = shrink(model, net, n)(x)[0]
            assert part.shape[-1] == sum(int(x.shape[2]/s)*int(x.shape[3]/s) for s in net.resolved[-1].strides[:heads - n])
            assert torch.allclose(whole[..., :part.shape[-1]], part, atol=1e-3, rtol=1e-3)


def test_removed_rows_are_those_nobody_reads():
    net = with_head(named_yolo('yolov4-p7'))
    small, kept = without_levels(net, 2)
    read = {j for l in small.resolved for j in l.src}
    assert set(range(len(small.rows) - 1)) <= read and len(small.rows) == len(kept) < len(net.rows)
    assert without_levels(net, 0)[0].rows != () and cost(without_levels(net, 0)[0], 256).total == cost(net, 256).total
    for n in (-1, 5, 1.5):
        with pytest.raises(LayerscaleError, match='levels to remove'): without_levels(net, n)


def test_only_size():
    small, large = [0, 0, 8, 8], [50, 50, 100, 100]
    boxes, cls = np.array([small, large], float), np.array([0, 0])
    det = np.array([[*small, 0.9, 0], [*large, 0.8, 0], [200, 200, 206, 206, 0.7, 0], [200, 0, 260, 60, 0.6, 0], [*small, 0.5, 1]])
    d, b, c = only_size(det, boxes, cls, 0, 16)
    assert b.tolist() == [small] and d[:, 4].tolist() == [0.9, 0.7, 0.5]   # its own, a false small one, one of another class
    d, b, c = only_size(det, boxes, cls, 32, math.inf)
    assert b.tolist() == [large] and d[:, 4].tolist() == [0.8, 0.6]
    d, b, c = only_size(np.zeros((0, 6)), boxes, cls, 0, 16)
    assert len(d) == 0 and len(b) == 1
    d, b, c = only_size(det, np.zeros((0, 4)), np.zeros(0), 0, math.inf)
    assert len(d) == 5 and len(b) == 0


def test_augmented_joins_three_predictions():
    import torch
    net = member_net(Member('yolov8n', 1, 0.3), 2)
    model, x = build_yolo(net).eval(), torch.rand(1, 3, 128, 192)
    with torch.no_grad(): one, three = model(x)[0], augmented(model)(x)[0]
    assert three.shape[:2] == one.shape[:2] and three.shape[2] > one.shape[2]


def test_run_family_writes_the_table(tmp_path):
    import pandas as pd
    members = (Member('yolov4-tiny', 1, 0.1, (64, 64)), Member('yolov5n', 0.5, 0.3, (64, 64)))
    from layerscale_nb.experiments import family
    real, family.train_member = family.train_member, lambda m, *a, **k: train_member(m, *a, **k, n_train=8, n_val=4)
    try: run_family('roadscenes', tmp_path/'t.csv', members, tmp_path/'runs', epochs=1)
    finally: family.train_member = real
    got = pd.read_csv(tmp_path/'t.csv')
    assert got.member.tolist() == ['yolov4-tiny', 'yolov5n'] and got.epochs.tolist() == [1, 1]


def test_a_member_with_its_own_head(tmp_path):
    "Trains with anchors of its data, reloads with them, loses its coarse maps exactly."
    import torch
    m = Member('yolov5n', 1, 0.4, (64, 192), head='anchor')
    row = train_member(m, 'roadscenes', tmp_path, epochs=1, n_train=16, n_val=4, device='cpu')
    assert row['member'] == 'yolov5n-anchor'
    names, train, val = open_data('roadscenes', m.size, 16, 4)
    model, net = load_member(tmp_path/'best.pt', m, len(names))
    corners = train.boxes[train.valid]
    assert net == member_net(m, len(names), corners[:, 2:] - corners[:, :2]) and cost(net, m.size).params == row['params']
    x = torch.rand(1, 3, 64, 192)
    with torch.no_grad():
        whole, part = model(x)[0], shrink(model, net, 1)(x)[0]
    assert part.shape[-1] == 3*(8*24 + 4*12) and torch.allclose(whole[..., :part.shape[-1]], part, atol=1e-4)
    with pytest.raises(LayerscaleError, match='of its own head only'): augmented(model)
    assert [r['stride'] for r in stride_scores(tmp_path/'best.pt', m, 'roadscenes', 3)] == [8, 16, 32]


def test_a_member_goes_the_whole_way(tmp_path):
    "A process of its own for each; what fails is a row with its sentence and is tried again; what is finished is not."
    pytest.importorskip('onnx', reason='the onnx package is not installed here: pip install onnx to run this test')
    from layerscale_nb.experiments.members import COLUMNS, run_members
    from layerscale_nb.table import read_rows
    out = tmp_path/'members.csv'
    run_members(out, ('yolov5n', 'yolov9n'), steps=4)
    good, bad = rows = read_rows(out)
    assert tuple(good) == COLUMNS and good['said'] == '' and bad['said'].startswith("no network 'yolov9n'") and bad['params'] == ''
    assert int(good['params']) == cost(named_yolo('yolov5n'), 640).params and float(good['reload_diff']) == 0
    assert float(good['loss_last']) < float(good['loss_first']) and float(good['onnx_diff_px']) < 1e-3*float(good['moves_px'])
    assert run_members(out, ('yolov5n',), steps=4) == [good]                   # nothing is run again


def test_a_dead_child_is_a_row():
    import multiprocessing
    import shutil
    import sys
    from layerscale_nb.experiments import members
    multiprocessing.set_executable(shutil.which('false'))
    try: row = members.child_row('yolov5n')
    finally: multiprocessing.set_executable(sys.executable)
    assert row['said'] == 'the process ended (exit status 1).' and row['member'] == 'yolov5n'
    assert {'command', 'versions', 'device', 'seed', 'date'} <= set(row)


def test_stored_members_are_the_whole_ladder(repo):
    import pandas as pd
    from layerscale_nb.nets.ladder import LADDER
    t = pd.read_csv(repo/'nbs'/'results'/'family_members.csv', keep_default_na=False).set_index('member')
    assert list(t.index) == list(LADDER) and (t.said == '').all()
    for m, r in t.iterrows(): assert r.params == cost(named_yolo(m), 64 if named_yolo(m).stride < 128 else 128).params and r.reload_diff == 0 and r.loss_last < r.loss_first and r.onnx_diff_px < 1e-3*r.moves_px, m


def test_times_are_remembered(tmp_path):
    from layerscale_nb.nets.ladder import v4_large
    from layerscale_nb.timing.latency import scale_to_latency
    from layerscale_nb.experiments.members import remembered, time_reduced
    from layerscale_nb.table import read_rows
    asked = []
    def fake(net): asked.append(net.name); return cost(net, net.imgsz).macs/1e10
    path = tmp_path/'times.csv'
    first = scale_to_latency(50, time_of=remembered(path, fake, 'made up'))
    n = len(asked)
    again = scale_to_latency(50, time_of=remembered(path, how='made up'))
    assert (again.net, again.tried) == (first.net, first.tried) and len(asked) == n == len(first.tried) == len(read_rows(path))
    with pytest.raises(LayerscaleError, match='has no time .other. of yolov4-p5 at width 1 and depth 1'): remembered(path, how='other')(v4_large(5))
    path.write_text(path.read_text().replace(read_rows(path)[0]['device'], 'another machine'))
    with pytest.raises(LayerscaleError, match='holds times of another machine, and this is .* one file for each device'): remembered(path, fake, 'made up')(v4_large(5))
    assert time_reduced(named_yolo('yolov4-tiny'), 4, 'cpu', 1) > 0


def test_the_trainer_refuses_before_it_builds(monkeypatch):
    "A network beyond the memory, or an image that its stride does not divide: a sentence, and no module is made."
    from dataclasses import replace
    from layerscale_nb.detect import train
    from layerscale_nb.experiments.members import few_steps, two_scenes
    monkeypatch.setattr(train, 'start', lambda *a, **k: pytest.fail('it was built'))
    p7 = named_yolo('yolov4-p7')
    with pytest.raises(LayerscaleError, match='yolov4-p7 needs about .* to train'): few_steps(replace(p7, w=50.), two_scenes(128))
    with pytest.raises(LayerscaleError, match='multiple of the stride 128; the next one is 128'): few_steps(p7, two_scenes(96))
