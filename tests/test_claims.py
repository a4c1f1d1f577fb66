"Verdicts follow from the rows: shuffle what was measured, and a verdict falls."
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from layerscale_nb.core import stored
from layerscale_nb.experiments import fast_claims, shapes
from layerscale_nb.experiments.claims import all_verdicts, claim_row, claims_table, claims_view, corrected
from layerscale_nb.experiments.fast_claims import exponents_agree, fast_verdicts, group_width_needed, step_is_uniform, tables_come_out
from layerscale_nb.experiments.published import printed_rows
from layerscale_nb.experiments.shapes import printed_verdicts, shape_verdicts
from layerscale_nb.experiments.v4_claims import (best_cio_from, costs_scale_as, csp_cuts_third, csp_saves, list_is_exponents, neck_saves,
                                                 osa_is_cheaper, pays_above_one, stage_doubles_field, tiny_layers, v4_verdicts)
from layerscale_nb.experiments.width_claims import size_saved, width_verdicts
from layerscale_nb.laws.claims import ANSWERS, backbone_verdicts, ranking_verdicts
from layerscale_nb.laws.shape import START, Shape, shape_rule
from layerscale_nb.lessons import SITE
from layerscale_nb.live.frontier import TEN_BACKBONES
from layerscale_nb.live.verdicts import answers_of, seed_rows, shuffled_rows
from layerscale_nb.nets.yolo import Yolo
from layerscale_nb.study.report import read_results
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


def survivors(asked, changed, times=40):
    """{claim: how many of the shuffled tables leave its answer as it is}, of the decided claims in `asked(table)`;
    `changed(rng)` gives a shuffled table."""
    said = {v.claim: v.answer for v in asked(None)}
    held = {c: 0 for c, a in said.items() if a not in ('not decided', 'out of reach')}
    rng = np.random.default_rng(0)
    for _ in range(times):
        for v in asked(changed(rng)):
            if v.claim in held: held[v.claim] += v.answer == said[v.claim]
    return held


def exchanged(df, column, measured, rng):
    "The table with all measured values of a network (a value of `column`) given to another one, seed by seed."
    names = list(df[column].unique())
    other = dict(zip(names, rng.permutation(names)))
    rows = df.set_index([column, 'seed'])[measured]
    found = rows.loc[[(other[v], s) for v, s in zip(df[column], df.seed)]]
    return df.assign(**{c: found[c].to_numpy() for c in measured})


def test_the_study_of_width_and_depth_falls_when_the_measured_values_are_shuffled():
    df = read_results(stored('results/kitti_cyclist_width_depth.csv'))
    measured = [c for c in df if c.startswith(('map50', 'precision', 'recall', 'ap50_', 'throughput', 'train_s'))]
    counted = 'depth 0.33 is 43% smaller'
    held = survivors(width_verdicts, lambda rng: exchanged(df, 'variant', measured, rng))
    assert held.pop(counted) == 40 and len(held) >= 6  # a count does not rest on these rows
    assert all(n < 15 for n in held.values()), held


def test_no_verdict_on_width_and_depth_comes_from_chance():
    "Rows in which every network is the same: no claim on accuracy may be decided in more than a few of 40 tables."
    df, rng, decided = read_results(stored('results/kitti_cyclist_width_depth.csv')), np.random.default_rng(1), {}
    for _ in range(40):
        for v in width_verdicts(df.assign(map50=0.25 + 0.01*rng.standard_normal(len(df)))):
            if 'mAP' in v.claim or 'accuracy' in v.claim or 'frontier' in v.claim or 'beats' in v.claim:
                decided[v.claim] = decided.get(v.claim, 0) + (v.answer != 'not decided')
    assert len(decided) == 6 and all(n <= 7 for n in decided.values()), decided


def test_fast_scaling_falls_when_times_and_memory_are_shuffled(monkeypatch):
    few = fast_claims.r_bootstrap
    monkeypatch.setattr(fast_claims, 'r_bootstrap', lambda tables, y: few(tables, y, 60))
    monkeypatch.setattr(fast_claims, '_FAST_CLAIMS', ())  # counts do not rest on these rows
    times, memory, rows = *(frame(stored(f'results/{n}_cpu.csv')) for n in ('actbound', 'memory')), printed_rows()
    def changed(rng):
        setting = times.groupby(['asked_batch', 'dtype', 'channels_last'])[['ms', 'ms_img']]
        moved = setting.transform(lambda c: c)
        for at in setting.groups.values(): moved.loc[at] = times.loc[rng.permutation(at), ['ms', 'ms_img']].to_numpy()
        minutes = [rows[i].minutes for i in rng.permutation(len(rows))]
        return dict(times=times.assign(**moved), memory=memory.assign(held_mb=rng.permutation(memory.held_mb)),
                    printed=[replace(r, minutes=m) for r, m in zip(rows, minutes)])
    held = survivors(lambda t: fast_verdicts(**(t or {})), changed)
    assert len(held) == 6 and all(n < 10 for n in held.values()), held


def test_scaled_yolov4_decides_when_the_rows_do_and_not_when_they_are_shuffled():
    "Tables in which the claims are true, or the opposite is; shuffled, at most a few of 40 still say so."
    read = lambda n: frame(stored(f'results/{n}.csv'))
    base, tta, strides, levels = read('kitti_ablation'), read('kitti_tta'), read('kitti_strides'), read('kitti_levels')
    csp, rng = base.member.str.startswith('cd53s'), np.random.default_rng(0)
    def made(sign):
        ap = 0.05 + sign*0.04*csp + 0.001*rng.standard_normal(len(base))
        best = levels.removed == (3*(levels.imgsz == '512x128') if sign > 0 else 3*(levels.imgsz != '512x128'))
        return dict(ablation=base.assign(map50_95=ap, latency_ms=20 - sign*5*csp + 0.1*rng.random(len(base))), strides=strides.assign(score=0.5),
                    tta=tta.assign(map50_95=0.05 + sign*0.01*(tta.prediction == 'augmented') + 0.0005*rng.random(len(tta))),
                    levels=levels.assign(map50_95=0.05 + 0.01*best))
    trained = lambda t: v4_verdicts(t)[10:15]
    true, false = (trained(made(s)) for s in (1, -1))
    assert [v.answer for v in true] == ['refined', 'refined', 'reproduced', 'refined', 'reproduced']
    assert [v.answer for v in false] == ['refuted']*5
    measured, t = dict(ablation=['map50_95', 'latency_ms'], tta=['map50_95'], levels=['map50_95']), made(1)
    mixed = lambda rng: t | {k: t[k].assign(**{c: rng.permutation(t[k][c]) for c in cs}) for k, cs in measured.items()}
    held = survivors(lambda x: trained(x or t), mixed)
    assert len(held) == 5 and all(n < 20 for n in held.values()), held


def test_another_count_is_another_answer_on_scaled_yolov4():
    counted = [v.answer for v in v4_verdicts()[:10]]
    assert counted == 'reproduced refined refuted reproduced reproduced reproduced refined reproduced refuted reproduced'.split()
    other = [costs_scale_as(dict(r=2, d=1, w=1)), csp_saves(dict(res=30)), pays_above_one(3), neck_saves(printed=50), csp_cuts_third(printed=40),
             osa_is_cheaper(((64, 32, 1),)), best_cio_from(claimed=1), tiny_layers(to=3), list_is_exponents(300),
             stage_doubles_field(claimed=(1.5, 2))]
    assert all(a != b[0] for a, b in zip(counted, other)), [b[0] for b in other]


def test_another_count_is_another_answer_on_fast_scaling():
    assert [exponents_agree({'w': e})[0] for e in (0.5, 0.7, 0.9)] == ['reproduced', 'refined', 'refuted']
    assert [group_width_needed(claimed=(1, e))[0] for e in (0.5, 0.6)] == ['reproduced', 'refined']
    assert group_width_needed(64, 64)[0] == 'reproduced'
    assert [step_is_uniform((1.2*k, 1.1, 1.15))[0] for k in (1, 1.2, 0.8)] == ['reproduced', 'refined', 'refuted']
    wrong = [replace(r, acts_m='0.1') for r in printed_rows()]
    assert [tables_come_out(r)[0] for r in (printed_rows(), wrong)] == ['refined', 'refuted']


def test_another_count_is_another_answer():
    assert size_saved()[0] == 'refined' and size_saved({'half': Yolo(w=0.5)})[0] == 'reproduced'
    assert size_saved({'half': Yolo(w=0.5)}, printed=50)[0] == 'refined' and size_saved({'flat': Yolo(d=0.02)})[0] == 'refuted'


def test_the_ranking_of_backbones_falls(tmp_path):
    "YOLOv5m made far better and far cheaper than it is; then everything shuffled."
    rows = [r for r in read_rows(stored('results/backbones.csv')) if r['data'] == 'roadscenes' and r['recipe'] == 'quick']
    best = dict(yolov5m=dict(map50=1.2, macs=1, params=1), yolov5s=dict(map50=1))
    made = [r | best.get(r['net'], {}) for r in rows]
    answers = lambda rows: [v.answer for v in ranking_verdicts(write_rows(rows, tmp_path/'ranked.csv'))]
    assert answers(made) == ['reproduced']*4 and answers(rows)[2:] == ['reproduced', 'refined']
    swap = {'yolov5m': 'yolov5-inceptionv4', 'yolov5-inceptionv4': 'yolov5m'}
    assert answers([r | dict(net=swap.get(r['net'], r['net'])) for r in rows])[2:] == ['refuted', 'refuted']


def anchors(page):
    "The anchors that Quarto gives to a page's headings: letters, digits, hyphens, from the first letter on."
    texts = [''.join(c['source']) for c in json.loads(page.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown']
    slug = lambda s: re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', s.lower())))
    return [slug(h) for t in texts for h in re.findall(r'(?m)^##+ (.+)$', t)]


def test_every_claim_has_a_place_a_number_and_a_page(repo):
    every = all_verdicts()
    assert all(v.place and v.uncertainty and v.data for v in every)
    for v in every:
        page, part = v.evidence.split('#')
        assert anchors(repo/'nbs'/f'{page}.ipynb').count(part) == 1, f'{v.claim}: no heading {part} on {page}'
        folder, name = page.split('/')
        assert claim_row(v)[-1][1] == f'{SITE}/{folder}/{name.lstrip("0123456789_")}.html#{part}'
    assert len({(v.work, v.claim, v.data) for v in every}) == len(every) == claims_table(every).loc['all', 'all']
    interval, decided, kept = corrected()
    assert len(interval) > len(decided) > len(kept) > 0


def test_the_table_shows_what_was_asked_for():
    every = all_verdicts()
    for v in every[::7]:
        words, table = claims_view(every, v.work, v.answer)
        shown = [w for w, row in zip(every, table['rows']) if row]
        assert v in shown and all((w.work, w.answer) == (v.work, v.answer) for w in shown) and f'**{len(shown)} of' in words['text']


@pytest.mark.parametrize('seeds', [3, 10, 30])
def test_shuffled_rows_confirm_an_honest_claim_rarely_and_an_empty_one_always(seeds):
    "Half of 5% for a claim named before, several times that for the best of five, all tables for one that cannot fail."
    rows = seed_rows(seeds)
    tables = shuffled_rows(rows)
    honest = lambda r: r[..., 3:].mean(-1) - r[..., 1:3].mean(-1)
    empty = lambda r: (5*r.max(-1) - r.sum(-1))/4
    best = np.stack([5*t[:, t.mean(0).argmax()] - t.sum(1) for t in tables])
    share = lambda d: (answers_of(d)[2] == 'reproduced').mean()
    assert 0.01 < share(honest(tables)) < 0.045 < share(best) < 0.25
    assert answers_of(honest(rows))[2] == answers_of(empty(rows))[2] == 'reproduced' and share(empty(tables)) == 1


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
