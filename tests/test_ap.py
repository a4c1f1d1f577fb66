"Our AP against pycocotools, on the same predictions."
import contextlib, io

import numpy as np
import pytest

from layerscale_nb.detect.metrics import bootstrap_map50, paired_bootstrap, match_all, scores
from layerscale_nb.core import LayerscaleError


def random_run(seed, images=40, nc=4, dets=30):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(images):
        n = int(rng.integers(0, 9))
        xy, wh = rng.uniform(0, 250, (n, 2)), rng.uniform(8, 90, (n, 2))
        boxes, cls = np.c_[xy, xy+wh], rng.integers(0, nc, n)
        near = np.c_[boxes + rng.normal(0, 0.06, (n, 4))*np.tile(wh, 2), rng.uniform(0.3, 1, n).round(2), cls] if n else np.zeros((0, 6))
        twice = near[rng.random(n) < 0.4] + np.r_[rng.normal(0, 3, 4), -0.1, 0] if n else near
        xy = rng.uniform(0, 250, (dets, 2))
        false = np.c_[xy, xy + rng.uniform(8, 90, (dets, 2)), rng.uniform(0, 0.7, dets).round(2), rng.integers(0, nc, dets)]
        d = np.concatenate([near, twice, false]); d[:, 4] = d[:, 4].clip(0.01, 1)
        out.append((d, boxes, cls))
    return [list(x) for x in zip(*out)]


def coco(dets, boxes, cls, nc):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        gt, xywh = COCO(), lambda b: [float(b[0]), float(b[1]), float(b[2]-b[0]), float(b[3]-b[1])]
        ann = [dict(image_id=i, category_id=int(c), bbox=xywh(b), area=1., iscrowd=0) for i, (bs, cs) in enumerate(zip(boxes, cls)) for b, c in zip(bs, cs)]
        for k, a in enumerate(ann, 1): a['id'] = k
        gt.dataset = dict(images=[dict(id=i) for i in range(len(boxes))], annotations=ann, categories=[dict(id=c) for c in range(nc)])
        gt.createIndex()
        dt = gt.loadRes([dict(image_id=i, category_id=int(d[5]), bbox=xywh(d), score=float(d[4])) for i, ds in enumerate(dets) for d in ds])
        e = COCOeval(gt, dt, 'bbox'); e.params.areaRng, e.params.areaRngLbl = [[0, 1e10]], ['all']
        e.evaluate(); e.accumulate()
    p = e.eval['precision'][:, :, :, 0, -1]           # threshold, recall, class
    p = np.where(p < 0, np.nan, p)
    return np.nanmean(p[0]), np.nanmean(p), np.nanmean(p[0], axis=0)


@pytest.mark.parametrize('seed', range(8))
def test_equals_pycocotools(seed):
    nc = 4
    run = random_run(seed, dets=30 if seed % 2 else 150)  # more than 100 per image, too
    ours = scores(match_all(*run, nc))
    map50, map_, by_class = coco(*run, nc)
    assert abs(ours['map50'] - map50) < 1e-3 and abs(ours['map50_95'] - map_) < 1e-3
    assert np.allclose(ours['ap50'], by_class, atol=1e-3)
    assert 0.05 < map_ < 0.95  # the comparison is not about zeros


def test_class_without_truth_is_not_zero():
    run = random_run(3, nc=3)
    a, b = scores(match_all(*run, 3)), scores(match_all(*run, 5))
    assert a['map50'] == pytest.approx(b['map50']) and np.isnan(b['ap50'][4])


def test_nothing_to_find_is_an_error():
    with pytest.raises(LayerscaleError, match='no labelled box'): scores(match_all([np.zeros((0, 6))], [np.zeros((0, 4))], [[]], 2))


def test_no_detection_is_zero():
    s = scores(match_all([np.zeros((0, 6))], [np.array([[0, 0, 9, 9]])], [[0]], 1))
    assert s['map50'] == 0 and s['recall'] == 0


def test_bootstrap_interval_covers():
    "The 95% interval of the difference between two equally good detectors holds zero in most worlds."
    from numpy.random import default_rng
    holds = 0
    for world in range(20):
        rng = default_rng(world)
        boxes = [np.c_[x := rng.uniform(0, 200, (4, 2)), x+40] for _ in range(60)]
        cls = [np.zeros(4, int)]*60
        make = lambda r: [np.c_[b, r.random(4), np.zeros(4)][r.random(4) < 0.7] for b in boxes]
        d = paired_bootstrap(match_all(make(default_rng(100+world)), boxes, cls, 1), match_all(make(default_rng(200+world)), boxes, cls, 1), draws=200)
        holds += d.verdict == 'not shown'
    assert holds >= 17


def test_different_images_cannot_be_paired():
    a, b = match_all(*random_run(1), 4), match_all(*random_run(2), 4)
    with pytest.raises(LayerscaleError, match='different images'): paired_bootstrap(a, b)


def test_bootstrap_seed():
    m = match_all(*random_run(1), 4)
    assert (bootstrap_map50(m, 20, 3) == bootstrap_map50(m, 20, 3)).all() and (bootstrap_map50(m, 20, 3) != bootstrap_map50(m, 20, 4)).any()


def test_few_labelled_images_still_have_an_interval():
    "A draw without a labelled image has no mAP and is left out; with one labelled image in twenty there is no interval, and no verdict."
    def pair(labelled):
        boxes = [np.array([[10., 10, 50, 50]])]*labelled + [np.zeros((0, 4))]*(20 - labelled)
        cls = [np.zeros(len(b), int) for b in boxes]
        sure = [np.array([[10., 10, 50, 50, .9, 0]])]*labelled + [np.zeros((0, 6))]*(20 - labelled)
        return paired_bootstrap(match_all(sure, boxes, cls, 1), match_all([d[:0] for d in sure], boxes, cls, 1))
    d = pair(3)
    assert d.verdict == 'better' and 0 < d.low <= d.high
    assert pair(1).diff > 0
