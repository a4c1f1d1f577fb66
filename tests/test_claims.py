"Verdicts follow from the rows: shuffle what was measured, and a verdict falls."
import numpy as np
import pytest

from layerscale_nb.core import stored
from layerscale_nb.experiments import shapes
from layerscale_nb.experiments.shapes import printed_verdicts, shape_verdicts
from layerscale_nb.laws.claims import ANSWERS, backbone_verdicts
from layerscale_nb.laws.shape import START, Shape, shape_rule
from layerscale_nb.live.frontier import TEN_BACKBONES
from layerscale_nb.table import frame, read_rows, write_rows

MEASURED = 'map50', 'map50_95', 'recall', 'inverse_normalized_loss'


def shuffled(rows, rng):
    "Every network with the measured values of another one, all its seeds together."
    nets = list(dict.fromkeys(r['net'] for r in rows))
    other = dict(zip(nets, rng.permutation(nets)))
    found = {(r['net'], r['seed']): r for r in rows}
    return [r | {k: found[other[r['net']], r['seed']][k] for k in MEASURED} for r in rows]


@pytest.mark.parametrize('where', [TEN_BACKBONES, ('data=bccd', 'recipe=muon')], ids=['scenes', 'cells'])
def test_a_decided_verdict_falls_when_the_measured_values_are_shuffled(where, tmp_path):
    rows = [r for r in read_rows(stored('results/backbones.csv')) if f'data={r["data"]}' == where[0] and f'recipe={r["recipe"]}' == where[1]]
    said = {v.claim: v.answer for v in backbone_verdicts(where=where)}
    assert {*said.values()} <= {*ANSWERS} and len(said) == 6
    rng, held = np.random.default_rng(0), dict.fromkeys(said, 0)
    for i in range(40):
        table = write_rows(shuffled(rows, rng), tmp_path/f'{i}.csv')
        for v in backbone_verdicts(table, where): held[v.claim] += v.answer == said[v.claim]
    decided = {c: n for c, n in held.items() if said[c] != 'not decided'}
    assert all(n < 10 for n in decided.values()), decided


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    table = write_rows(read_rows(stored('results/backbones.csv'))[::-1], tmp_path/'turned.csv')
    assert backbone_verdicts(table, TEN_BACKBONES) == backbone_verdicts(where=TEN_BACKBONES)


def test_verdicts_on_shapes_fall_when_the_losses_are_shuffled():
    df = frame(stored('results/shapes.csv'))
    said, held, rng = [v.answer for v in shape_verdicts(df)], np.zeros(2), np.random.default_rng(0)
    assert said[1] == 'reproduced'
    for _ in range(12):
        held += [v.answer == s for v, s in zip(shape_verdicts(df.assign(loss=rng.permutation(df.loss))), said)]
    assert all(n < 4 for n, s in zip(held, said) if s != 'not decided'), held


def test_what_is_printed_is_judged_by_counting(monkeypatch):
    assert [v.answer for v in printed_verdicts()] == ['refuted', 'refined', 'reproduced']
    monkeypatch.setitem(shapes.PUBLISHED, 'So400m', Shape(*shape_rule(START, 1500)))
    assert printed_verdicts()[0].answer == 'reproduced'
