"Shapes of detectors: equal compute, a prediction before its test, and what three seeds can show."
import math

import numpy as np
import pandas as pd
import pytest

from layerscale_nb.core import LayerscaleError
from layerscale_nb.laws.yolo_shape import YoloShape, detector_of, read_plan, rounded_shape, yolo_macs
from layerscale_nb.experiments.yolo_shapes import (
    YOLO_CENTRE, neighbours, plan_jobs, predict_shape, shape_results, simple_shapes, star_jobs, star_rows, train_shape, visible)
from layerscale_nb.nets.count import count
from layerscale_nb.nets.yolo import build_yolo, yolov8

BEST = dict(width=.3, depth=.2, r=.4)  # powers of the made-up optimum


def made_up(shape, n, seed, rng):
    t = 3*yolo_macs(shape)*n
    off = [math.log(v/c/(t/2e12)**p)**2 for v, c, p in zip(shape, YOLO_CENTRE, BEST.values())]
    return dict(shape._asdict(), images=n, seed=seed, nc=5, t=t, loss=3*(t/1e12)**-.1*(1 + .1*sum(off))*rng.normal(1, .003),
                map50=rng.normal(.5, .01))


@pytest.fixture(scope='module')
def star():
    rng = np.random.default_rng(1)
    return pd.DataFrame([made_up(s, n, seed, rng) for _, s, n, seed in star_jobs()])


def test_shapes_are_the_networks_they_say():
    assert detector_of(YoloShape(16, 1, 288), 80).resolved == yolov8('n').resolved
    assert detector_of(YoloShape(32, 1, 288), 80).resolved == yolov8('s').resolved
    shape = YoloShape(8, 3, 192)
    assert yolo_macs(shape) == count(build_yolo(detector_of(shape)), (1, 3, *shape.size)).macs


def test_the_star_costs_what_was_allowed():
    jobs = star_jobs()
    assert len(jobs) == 60 and sum(3*yolo_macs(s)*n for _, s, n, _ in jobs) < 1.3e14


def test_known_exponents_come_back_and_the_prediction_has_equal_compute(star):
    plan = predict_shape(star, 1.6e13)
    for k, (s, low, high) in plan['exponents'].items(): assert abs(s/BEST[k] - 1) < .35, (k, s)
    jobs = plan_jobs(plan)
    assert {n for _, s, n, _ in jobs for n in [round(plan['compute']/3/yolo_macs(s))]} == {n for *_, n, _ in jobs}
    assert all(abs(3*yolo_macs(s)*n/plan['compute'] - 1) < .01 for _, s, n, _ in jobs)
    assert {*plan['shapes']} >= {'predicted', 'dWr', 'uniform', 'ladder', 'wider', 'larger'}
    with pytest.raises(LayerscaleError, match='within the star'): predict_shape(star, 1e12)
    with pytest.raises(LayerscaleError, match='one seed shows no spread'): predict_shape(star[star.seed == 0], 1.6e13)


def test_verdicts_depend_on_what_can_be_seen(star):
    plan = predict_shape(star, 1.6e13)
    best, least = plan['shapes']['predicted'], plan['visible_loss']
    for factor, said in ((.5, 'not decided'), (2, 'predicted'), (-2, 'rival')):
        rows = [dict(s._asdict(), seed=seed, loss=math.exp(factor*least*(s != best)), map50=.5) for _, s, _, seed in plan_jobs(plan)]
        t = shape_results(pd.DataFrame(rows), plan).drop('predicted')
        assert {*t[t['shape'] != 'x'.join(map(str, best))].by_loss} == {said}
    assert visible(star) == pytest.approx(plan['visible_loss']) and visible(star, 12) == pytest.approx(plan['visible_loss']/2)


def test_rounding_and_neighbours():
    assert rounded_shape(17, 1.6, 300) == (16, 2, 288) and rounded_shape(1, .1, 1) == (8, 1, 96)
    assert neighbours(YoloShape(8, 1, 96)) == dict(wider=(16, 1, 96), larger=(8, 1, 192))
    for name, s in simple_shapes(YOLO_CENTRE, 4*yolo_macs(YOLO_CENTRE)).items(): assert .6 < yolo_macs(s)/yolo_macs(YOLO_CENTRE)/4 < 1.6, name


def test_a_run_repeats_and_reads_files_that_are_there(tmp_path):
    a, b = (train_shape(YoloShape(8, 1, 96), 24, device='cpu', drawn=24) for _ in range(2))
    assert a['loss'] == b['loss'] and a['seen'] == 24 and a['loss'] > 0
    with pytest.raises(LayerscaleError, match='no rows of a star yet'): star_rows(tmp_path/'x.csv')
    with pytest.raises(LayerscaleError, match='no prediction yet'): read_plan(tmp_path/'x.json')
