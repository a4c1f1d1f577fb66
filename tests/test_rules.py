"Scaled classifiers and planned detectors: what is compared has equal costs, and what cannot be trained is said."
import itertools
import re
import time

import numpy as np
import pandas as pd
import pytest

from layerscale_nb.core import LayerscaleError
from layerscale_nb.experiments.planned import planned_cost, planned_explorer, same_settings
from layerscale_nb.experiments.rules import random_nets, resized, rule_jobs, rule_verdicts, scaled_nets, tiny_regnet, with_macs
from layerscale_nb.experiments.pictures import drawn
from layerscale_nb.nets.count import count
from layerscale_nb.nets.layer import cost
from layerscale_nb.table import write_rows

ROW = dict(net='yolov5n', recipe='quick', head='v8', data='roadscenes', imgsz='192x64', epochs=1, batch=8, n_train=8, n_val=4, nc=5,
           seed=0, macs=1e8, params=1e6, acts=1e6, map50=0.5)


def test_rules_are_compared_at_the_cost_they_have():
    base = tiny_regnet()
    for (rule, s), net in scaled_nets(base).items():
        assert 0.8 < cost(net).macs/cost(base).macs/s < 1.2, (rule, s)
        if s == 8: assert count(net.build(net.r), (1, 3, net.r, net.r)).total == cost(net).total
    widest, deepest = (with_macs(base, r, 8*cost(base).macs) for r in ('w', 'd'))
    assert sum(widest.ds) == sum(base.ds) and deepest.ws == base.ws and cost(widest).acts < cost(deepest).acts


def test_random_networks_differ_and_cost_what_was_asked():
    nets = random_nets(16, 2e7)
    assert len({(n.ds, n.ws, n.stages[0].g) for n in nets}) == 16 == len(nets)
    assert all(abs(cost(n).macs/2e7 - 1) < 0.1 for n in nets) and nets == random_nets(16, 2e7)


def test_the_jobs_of_a_sweep():
    jobs = rule_jobs(images=100)
    assert len(jobs) == 3*16 + 2*16 and {k[0] for k in jobs} == {'rule', 'random'}
    assert len(rule_jobs(images=100, search=0)) == 48


def test_a_larger_picture_shows_the_same():
    pics = drawn(20, 10, side=64)
    small, large = resized(pics, 32).x.float(), resized(pics, 48).x.float()
    assert small.shape[-1] == 32 and large.shape[-1] == 48 and abs(small.mean() - large.mean()) < 1


def test_planned_networks_that_cannot_be(tmp_path):
    with pytest.raises(LayerscaleError, match='stride'): planned_cost('yolov5n-vit_tiny_patch16_224', ROW)
    with pytest.raises(LayerscaleError, match="recipe is never 'adam'"): planned_explorer(write_rows([ROW], tmp_path/'t.csv'), ('recipe=adam',))
    with pytest.raises(LayerscaleError, match='no such file'): planned_explorer(tmp_path/'none.csv', ())
    assert same_settings(ROW)['imgsz'] == (64, 192) and same_settings(ROW, 'path/to/scenes')['data'] == 'path/to/scenes'
    box = planned_explorer(write_rows([ROW | dict(net=n) for n in ('yolov5n', 'yolov5s')], tmp_path/'two.csv'), ('recipe=quick',))
    assert 'says nothing about another one' in box.children[1].children[-1].value


def test_a_planned_network_can_be_stopped(tmp_path):
    rows = [ROW | dict(net=f'net{i}', macs=1e7*3**i, params=1e5*2**i, acts=1e5*2**i, ms=1.0, epochs=4000, inverse_normalized_loss=1 + i/10) for i in range(5)]
    box = planned_explorer(write_rows(rows, tmp_path/'t.csv'), ('data=roadscenes',), out=tmp_path/'planned.csv', y='inverse_normalized_loss')
    name, train = box.children[1].children[1], box.children[2]
    name.value = 'yolov5n'
    train.button.click()
    assert train.button.description == 'Stop'
    until(lambda: re.search('epoch +[1-9][0-9]*/4000', train.told.value), train.told)
    train.button.click()
    until(lambda: train.button.description == 'Train it', train.told)
    until(lambda: 'stopped; finished epochs are kept' in train.told.value, train.told)
    assert not (tmp_path/'planned.csv').exists()


def until(true, told, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, told.value
        time.sleep(0.05)


def test_verdicts_on_rules_fall_when_the_rules_are_shuffled():
    rng, rows = np.random.default_rng(0), []
    for rule, s, seed in itertools.product(('w', 'dw', 'dwr', 'dWr', 'alpha=0.5'), (2, 4, 8), (0, 1, 2)):
        rows.append(dict(group='rule', rule=rule, s=s, seed=seed, macs=s*1e6, data='drawn', error=.3 + .05*(rule == 'w') + rng.normal(0, .001)))
    rows += [dict(group='hybrid', rule='net 1', s=8, seed=seed, macs=8e6, data='drawn', error=.25 + rng.normal(0, .001)) for seed in (0, 1, 2)]
    df = pd.DataFrame(rows)
    said = [v.answer for v in rule_verdicts(df)]
    assert said == ['reproduced']*3
    held = np.zeros(3)
    for _ in range(40): held += [v.answer == s for v, s in zip(rule_verdicts(df.assign(error=rng.permutation(df.error))), said)]
    assert (held < 10).all(), held
