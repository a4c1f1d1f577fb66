"The anchor head: its loss against a slow oracle, training, resuming, checkpoints, export, and what is missing is said."
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscale_nb.detect.anchors import COCO_ANCHORS, anchor_loss, anchors_of, build_detector, fit_anchors, cell_grid, join_maps, match_anchors, net_loss, with_anchors
from layerscale_nb.detect.metrics import scores
from layerscale_nb.detect.augment import STILL, make_batch, make_store
from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.datasets import roadscenes
from layerscale_nb.detect.store import to_frames
from layerscale_nb.nets.ladder import LADDER, named_yolo, with_head

from layerscale_nb.detect.detection import detect, validate
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.detect.train import fit, save_checkpoint, start, train_step
from layerscale_nb.nets.yolo import build_yolo, quiet_ultralytics
from layerscale_nb.nets.layer import cost

CPU = torch.device('cpu')


def sigmoid(v): return 1/(1 + math.exp(-v))


def bce(v, target): return max(v, 0) - v*target + math.log1p(math.exp(-abs(v)))


def plain_ciou(a, b):
    "Complete IoU of two boxes x1 y1 x2 y2, from its definition."
    (ax, ay, ax2, ay2), (bx, by, bx2, by2) = a, b
    both = max(0, min(ax2, bx2) - max(ax, bx))*max(0, min(ay2, by2) - max(ay, by))
    iou = both/((ax2 - ax)*(ay2 - ay) + (bx2 - bx)*(by2 - by) - both)
    diagonal = (max(ax2, bx2) - min(ax, bx))**2 + (max(ay2, by2) - min(ay, by))**2
    apart = ((ax + ax2 - bx - bx2)/2)**2 + ((ay + ay2 - by - by2)/2)**2
    v = 4/math.pi**2*(math.atan((bx2 - bx)/(by2 - by)) - math.atan((ax2 - ax)/(ay2 - ay)))**2
    return iou - apart/diagonal - (v*v/(v - iou + 1) if v else 0)


def oracle(raw, sizes, strides, anchors, objects, nc):
    "The loss of a batch by loops: raw[image][map][anchor][row][column] is a list of 5 + nc numbers; objects[image] is a list of (box, class)."
    na, maps = len(anchors[0]), len(strides)
    box_terms, class_terms, worth = [[] for _ in strides], [[] for _ in strides], {}
    for i, those in enumerate(objects):
        for (x1, y1, x2, y2), label in those:
            for l, ((h, w), s) in enumerate(zip(sizes, strides)):
                for a, (aw, ah) in enumerate(anchors[l]):
                    rw, rh = (x2 - x1)/aw, (y2 - y1)/ah
                    if max(rw, 1/rw, rh, 1/rh) >= 4: continue
                    px, py = (x1 + x2)/2/s, (y1 + y2)/2/s
                    cx, cy = min(int(px), w - 1), min(int(py), h - 1)
                    around = [(cx, cy), (cx - 1 if px - cx < .5 else cx + 1, cy), (cx, cy - 1 if py - cy < .5 else cy + 1)]
                    for c, r in around:
                        if not (0 <= c < w and 0 <= r < h): continue
                        v = raw[i][l][a][r][c]
                        x, y = (c + 2*sigmoid(v[0]) - .5)*s, (r + 2*sigmoid(v[1]) - .5)*s
                        bw, bh = aw*(2*sigmoid(v[2]))**2, ah*(2*sigmoid(v[3]))**2
                        fit = plain_ciou((x - bw/2, y - bh/2, x + bw/2, y + bh/2), (x1, y1, x2, y2))
                        box_terms[l].append(1 - fit)
                        class_terms[l].append(sum(bce(v[5 + k], float(k == label)) for k in range(nc))/nc)
                        worth[i, l, a, r, c] = max(worth.get((i, l, a, r, c), 0), fit)
    mean = lambda parts: sum(sum(p)/len(p) for p in parts if p)
    claims = sum(bce(raw[i][l][a][r][c][4], worth.get((i, l, a, r, c), 0.)) for i in range(len(objects)) for l, (h, w) in enumerate(sizes) for a in range(na) for r in range(h) for c in range(w))
    return [.05*3/maps*mean(box_terms), claims/len(objects)/na/1600, .5*nc/80*3/maps*mean(class_terms) if nc > 1 else 0.]


@pytest.mark.parametrize('seed', range(8))
def test_loss_is_the_oracles(seed):
    r = np.random.default_rng(seed)
    strides, na, nc, b, k = ((8, 16, 32), (16, 32), (8, 16, 32, 64, 128))[seed % 3], 3 + seed % 2, (1, 3, 7)[seed % 3], 3, 5
    side = 128 if seed % 3 == 2 else 64
    sizes = tuple((side//s, 2*side//s) for s in strides)
    anchors = tuple(tuple(tuple(r.uniform(.7, 5, 2)*s) for _ in range(na)) for s in strides)
    maps = [r.normal(0, 1.5, (b, na*(5 + nc), h, w)) for h, w in sizes]
    low = r.uniform(-3, 1, (b, k, 2))*0 + r.uniform(0, 1, (b, k, 2))*np.array([2*side, side])*.9
    boxes = np.concatenate([low, np.minimum(low + np.exp(r.uniform(np.log(3), np.log(side), (b, k, 2))), [2*side, side])], -1)
    if seed == 4: boxes[0, 1] = boxes[0, 0]                                    # two objects at one place
    if seed == 5: boxes[1, 0] = [2*side - 8, side - 8, 2*side + 8, side + 8]   # a centre on the last corner
    labels, valid = r.integers(0, nc, (b, k)), np.arange(k) < np.array([[k], [2], [0]])
    raw = [[m[i].reshape(na, 5 + nc, *m.shape[2:]).transpose(0, 2, 3, 1).tolist() for m in maps] for i in range(b)]
    want = oracle(raw, sizes, strides, anchors, [[(boxes[i, j].tolist(), int(labels[i, j])) for j in range(k) if valid[i, j]] for i in range(b)], nc)
    truth = dict(boxes=torch.tensor(boxes*valid[..., None]).float(), labels=torch.tensor(labels), valid=torch.tensor(valid))
    got = anchor_loss(dict(raw=join_maps([torch.tensor(m).float() for m in maps], na), sizes=sizes), truth, strides, anchors)
    assert np.allclose(got.tolist(), want, rtol=2e-4, atol=1e-6), (got.tolist(), want)
    assert want[0] > 0


def test_loss_without_any_box():
    net = named_yolo('yolov5n', 3).rescaled(1, .5)
    model = build_detector(net).train()
    truth = dict(boxes=torch.zeros(2, 1, 4), labels=torch.zeros(2, 1, dtype=torch.long), valid=torch.zeros(2, 1, dtype=torch.bool))
    terms = net_loss(net, model(torch.rand(2, 3, 64, 64)), truth)
    assert terms[0] == 0 and terms[2] == 0 and terms[1] > 0
    terms.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_perfect_prediction_has_no_box_loss():
    "Raw numbers that decode to the object itself, at the object's own cell."
    sizes, strides, anchors = ((8, 8),), (8,), (((12., 20.),),)
    box = [[[20., 13., 35., 31.]]]
    truth = dict(boxes=torch.tensor(box), labels=torch.zeros(1, 1, dtype=torch.long), valid=torch.ones(1, 1, dtype=torch.bool))
    at, may = match_anchors(truth, sizes, strides, anchors)
    raw = torch.full((1, 6, 64), -20.)
    low, s, shape = cell_grid(sizes, strides, anchors, CPU)
    for i in at[may]:
        share = torch.stack([(27.5 - low[0, i])/8/2 + .25, (22. - low[1, i])/8/2 + .25, (15/shape[0, i])**.5/2, (18/shape[1, i])**.5/2])
        raw[0, :4, i], raw[0, 4, i] = torch.logit(share), 20.
    terms = anchor_loss(dict(raw=raw, sizes=sizes), truth, strides, anchors)
    assert int(may.sum()) == 3 and terms[0] < 1e-5 and terms[1] < 1e-6


@pytest.mark.parametrize('name', [n for n in LADDER if not n.startswith('yolov8')])
def test_every_anchor_head_of_the_ladder_takes_a_step(name):
    net = named_yolo(name, 2).rescaled(.1, .05)
    s = start(net, Recipe(), 4, device=CPU)
    assert sum(p.numel() for p in s.model.parameters()) == cost(net, net.stride).params
    size = (net.stride, 2*net.stride)
    truth = dict(boxes=torch.tensor([[[4., 4, 40, 30]]]*2), labels=torch.ones(2, 1, dtype=torch.long), valid=torch.ones(2, 1, dtype=torch.bool))
    before = s.model.model[-1].convs[0].weight.detach().clone()
    assert train_step(s, dict(img=torch.rand(2, 3, *size), **truth)).isfinite() and not torch.equal(before, s.model.model[-1].convs[0].weight)
    with torch.no_grad(): y = s.average(torch.rand(1, 3, *size))[0]
    na, strides = net.resolved[-1].args[0], net.resolved[-1].strides
    assert y.shape == (1, 4 + 2, na*sum(int(size[0]/k)*int(size[1]/k) for k in strides)) and s.model.stride.tolist() == [float(k) for k in strides]


@pytest.mark.parametrize('name', ['yolov4-tiny', 'yolov4-p6'])
def test_the_v8_head_learns_at_its_own_strides(name):
    "The loss of the YOLOv8 head is told the strides of the graph."
    net = with_head(named_yolo(name, 2).rescaled(.1, .1))
    s = start(net, Recipe(), 4, device=CPU)
    truth = dict(boxes=torch.tensor([[[4., 4, 40, 30]]]*2), labels=torch.ones(2, 1, dtype=torch.long), valid=torch.ones(2, 1, dtype=torch.bool))
    x = torch.rand(2, 3, net.stride, 2*net.stride)
    preds = s.model(x)
    ok = truth['valid']
    box = truth['boxes'][ok]/torch.tensor([x.shape[3], x.shape[2]]*2)
    flat = dict(bboxes=torch.cat([(box[:, :2] + box[:, 2:])/2, box[:, 2:] - box[:, :2]], 1), cls=truth['labels'][ok].float()[:, None], batch_idx=ok.nonzero()[:, 0].float())
    assert torch.allclose(net_loss(net, preds, truth), s.model.loss(flat, preds=preds)[0]/2, rtol=1e-4, atol=1e-4)


def test_bias_is_the_recipes():
    net = named_yolo('yolov5n', 3)
    head = build_detector(net).model[-1]
    for conv, s in zip(head.convs, (8, 16, 32)):
        bias = conv.bias.view(3, 8)
        assert torch.allclose(bias[:, 4].sigmoid(), torch.tensor(8/(640/s)**2/(1 + 8/(640/s)**2))) and torch.allclose(bias[:, 5:].exp(), torch.tensor(.6/2.00001))


def test_a_net_without_a_loss_is_refused():
    net = named_yolo('yolov5n')
    with pytest.raises(LayerscaleError, match='yolov5n ends in C3, for which there is no loss. Give it a head with ladder.with_head'):
        start(replace(net, rows=net.rows[:-1]), Recipe(), 10, device=CPU)
    with pytest.raises(LayerscaleError, match='not in an anchor head'): with_anchors(named_yolo('yolov8n'), COCO_ANCHORS)
    with pytest.raises(LayerscaleError, match='needs 4 anchors for each of 3 maps'): with_anchors(named_yolo('yolov4-p5'), COCO_ANCHORS)
    with pytest.raises(LayerscaleError, match='4 boxes cannot give 9 anchors'): fit_anchors(np.ones((4, 2)), 3, 3)


def test_fitted_anchors():
    r = np.random.default_rng(0)
    want = np.array([(8, 8), (30, 10), (20, 60), (100, 40)], float)
    sides = (want[:, None]*np.exp(r.normal(0, .05, (4, 50, 2)))).reshape(-1, 2)
    got = np.array(fit_anchors(r.permutation(sides), 2, 2)).reshape(-1, 2)
    assert np.abs(got/want - 1).max() < .07
    assert fit_anchors(sides, 2, 2) == fit_anchors(r.permutation(sides), 2, 2)      # the order of the boxes does not matter
    same = fit_anchors(np.full((20, 2), 12.), 2, 2)                                 # one shape only
    assert all(a == (12, 12) for m in same for a in m)


def scenes(n=8, size=(96, 320)):
    frames = to_frames(roadscenes(n, 8).train, size, [])
    boxes = np.concatenate(frames.boxes)
    return make_store(frames, CPU), boxes[:, 2:] - boxes[:, :2]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A thin YOLOv5n with its own head and anchors of its own, driven into eight scenes."
    folder = tmp_path_factory.mktemp('anchors')
    store, sides = scenes()
    net = with_anchors(named_yolo('yolov5n', 5).rescaled(1, .75), fit_anchors(sides, 3, 3))
    recipe = Recipe(epochs=60, batch=2, ema=.9, lr=4e-3, eval_share=.05, augment=STILL)
    s = fit(net, store, store, recipe, device=CPU, folder=folder).finish()
    save_checkpoint(s, roadscenes(1, 1).names, folder/'best.pt', store.size)
    return s, store, folder


def test_it_finds_what_it_has_seen(trained):
    s, store, _ = trained
    found = scores(s.matches)['map50']
    assert found > .3 and s.rows[-1]['loss'] < .6*s.rows[0]['loss'], found
    untrained = start(s.net, s.recipe, 1, device=CPU).average
    assert scores(validate(untrained, store, 5))['map50'] < .05


def test_the_checkpoint_predicts_the_same(trained, tmp_path):
    s, store, folder = trained
    quiet_ultralytics()
    from ultralytics import YOLO
    model = YOLO(folder/'best.pt')
    image = store.images[0].permute(1, 2, 0).numpy()
    theirs = model.predict(image[..., ::-1].copy(), imgsz=list(store.size), conf=.05, iou=.7, verbose=False, device='cpu')[0].boxes.data.numpy()
    ours = detect(model.model.float().eval(), store, [0], conf=.05)[0]
    assert len(ours) > 0
    for top in ours[:3]:
        near = theirs[np.abs(theirs[:, :4] - top[:4]).max(1).argmin()]
        assert np.abs(near[:4] - top[:4]).max() < 1.5 and abs(near[4] - top[4]) < .02 and near[5] == top[5]
    kept = detect(s.average, store, [0], conf=.05)[0]
    assert np.abs(kept[0, :4] - ours[0, :4]).max() < 1 and abs(kept[0, 4] - ours[0, 4]) < .01   # the file holds half precision


def test_another_process_opens_the_checkpoint(trained):
    "The class of the head is found by its name, without this package being imported first."
    code = f"from ultralytics import YOLO; import numpy as np; m = YOLO({str(trained[2]/'best.pt')!r}); print(len(m.predict(np.zeros((96, 320, 3), np.uint8), imgsz=[96, 320], verbose=False, device='cpu')), type(m.model.model[-1]).__name__)"
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.stdout.split('\n')[-2] == '1 AnchorHead', r.stderr[-800:]


def test_it_exports(trained):
    s, store, folder = trained
    quiet_ultralytics()
    from ultralytics import YOLO
    model = YOLO(folder/'best.pt')
    path = model.export(format='torchscript', imgsz=list(store.size), verbose=False)
    x = torch.rand(1, 3, *store.size)
    with torch.no_grad(): assert torch.allclose(torch.jit.load(path)(x), s.average(x)[0], atol=.5, rtol=.02)   # half precision weights


def test_it_exports_to_onnx(trained):
    "The file says what the checkpoint says, by an evaluator that knows no torch."
    pytest.importorskip('onnx', reason='the onnx package is not installed here: pip install onnx to run this test')
    from layerscale_nb.experiments.members import exported
    quiet_ultralytics()
    images = make_batch(trained[1], torch.arange(2))['img']
    row = exported(trained[2]/'best.pt', images, trusted=True)
    assert row['onnx_diff_px'] < .01 and row['onnx_diff_score'] < 1e-4 and row['onnx_mb'] > .1


def test_training_goes_on_where_it_stopped(tmp_path):
    store, sides = scenes()
    net = with_anchors(named_yolo('yolov5n', 5).rescaled(1, .5), fit_anchors(sides, 3, 3))
    recipe = Recipe(epochs=3, batch=4)
    whole = fit(net, store, store, recipe, device=CPU).finish()
    for p in fit(net, store, store, recipe, device=CPU, folder=tmp_path):
        if p.row and p.epoch == 2: break
    again = fit(net, store, store, recipe, device=CPU, folder=tmp_path).finish()
    assert [r['epoch'] for r in again.rows] == [1, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(whole.average.state_dict().values(), again.average.state_dict().values()))
    with pytest.raises(LayerscaleError, match='another run'):
        fit(with_anchors(net, COCO_ANCHORS), store, store, recipe, device=CPU, folder=tmp_path).finish()


def test_checkpoints_of_the_flat_package_open(tmp_path, monkeypatch):
    "The head of a checkpoint saved before the package had folders is found under its old name."
    import subprocess
    import sys

    from layerscale_nb.detect.anchors import AnchorHead, build_detector
    from layerscale_nb.nets.ladder import named_yolo
    import layerscale_nb.anchor_loss
    model = build_detector(named_yolo('yolov5n', 3).rescaled(0.33, 0.25)).eval()
    monkeypatch.setattr(AnchorHead, '__module__', 'layerscale_nb.anchor_loss')
    torch.save(dict(model=model, ema=None, train_args=dict(task='detect')), tmp_path/'old.pt')
    assert b'layerscale_nb.anchor_loss' in (tmp_path/'old.pt').read_bytes()
    code = 'import sys, torch; from ultralytics import YOLO; m = YOLO(sys.argv[1]).model\n' \
           'print(type(m.model[-1]).__module__, tuple(m.eval()(torch.zeros(1, 3, 64, 64))[0].shape))'
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path/'old.pt')], capture_output=True, text=True)
    assert 'layerscale_nb.detect.anchors (1, 7, ' in run.stdout, run.stderr[-2000:]
