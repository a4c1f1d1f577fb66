"The arena: a plan of equal cost, rows that follow it, and an explorer that takes networks of one's own."
import json, math
import numpy as np, pandas as pd, pytest
from layerscale_nb.core import LayerscaleError, read_json, stored
from layerscale_nb.detect.datasets import roadscenes
from layerscale_nb.experiments import arena, arena_live
from layerscale_nb.nets.layer import cost


@pytest.fixture
def small(tmp_path):
    "A folder with a plan of three forms and made-up rows: the deeper, the better."
    plan = arena.plan_arena(forms=arena.FORMS[:3], ms=10., ratio=lambda f, w: 0.5 + 3*f.d*w)
    rng, rows = np.random.default_rng(0), []
    for form, w, seed, c in arena.arena_jobs(plan):
        v = 0.5 + 0.2*form.d + 0.002*rng.standard_normal()
        rows.append(dict(config='x', form=form.name, w=w, seed=seed, **c, map50=v, map50_95=v/2, recall=v, s=1.,
                         curve=json.dumps([v/2, v]), found='[[[0,90,1,2,30,40]],[],[]]'))
    pd.DataFrame(rows).to_csv(tmp_path/'arena.csv', index=False)
    (tmp_path/'arena.json').write_text(json.dumps(dict(nets=plan)))
    return tmp_path


def test_the_stored_plan_is_of_equal_cost_by_todays_closed_forms():
    nets = read_json(stored('results/arena.json'))['nets']
    base = {n['group']: n for n in nets if n['form'] == arena.BASE.name}
    assert len({(n['form'], n['w']) for n in nets}) >= 40
    forms = {f.name: f for f in arena.FORMS}
    for n in nets:
        c = cost(arena.form_net(forms[n['form']], n['w']), forms[n['form']].size)
        assert (c.macs, c.acts, c.params) == (n['macs'], n['acts'], n['params']), n
        assert abs(math.log(n[n['group']]/base[n['group']][n['group']])) < 0.1, n


def test_standings_say_who_is_ahead_and_how_sure_that_is(small):
    df, plan = arena.read_arena(small/'arena.csv')
    t = arena.standings(df, plan, 'macs')
    assert list(t.index) == [f.name for f in (arena.FORMS[2], arena.FORMS[1], arena.FORMS[0])]
    assert 0 < t.half.iloc[0] < 0.01
    s = arena.arena_summary(df, plan)
    assert s.base_place['macs'] == 3 and s.told_apart['macs'] == 1
    mixed = df.assign(map50=np.random.default_rng(1).permutation(df.map50.to_numpy()))  # the response shuffled
    assert arena.arena_summary(mixed, plan).told_apart['macs'] < 1


def test_a_missing_table_or_plan_is_one_sentence(small):
    with pytest.raises(LayerscaleError, match='layerscale bench arena makes them'): arena.read_arena(small/'none.csv')
    (small/'arena.json').unlink()
    with pytest.raises(LayerscaleError, match='--plan'): arena.read_arena(small/'arena.csv')


def test_a_network_of_ones_own_falls_into_the_cloud(small):
    own = small/'own.csv'
    e = arena_live.arena_explorer(small/'arena.csv', own=own)
    assert 'Yours' not in e.out.value
    arena_live.train_own(arena.Form('yolov8', size=(64, 192)), 0.125, 4.0, own, scenes=roadscenes(16, 4, size=(160, 480)))
    e.show()
    assert 'Yours' in e.out.value and 'times the macs' in e.out.value
    row, = arena.arena_rows(own).to_dict('records')
    assert row['ms'] > 0 and len(json.loads(row['curve'])) == 8
    arena_live.train_own(arena.Form('yolov8', size=(64, 192)), 0.125, 4.0, own, scenes=roadscenes(16, 4, size=(160, 480)))
    assert len(arena.arena_rows(own)) == 1  # it is not trained again


def test_the_wish_says_what_is_wrong(small):
    e = arena_live.arena_explorer(small/'arena.csv', own=small/'own.csv')
    e.wish.fields[1].value = 'deep'
    e.train.button.click()
    assert e.train.child is None and 'd (depth)' in e.train.told.value


def test_the_page_holds_every_state_and_is_small(small):
    e = arena_live.arena_explorer(small/'arena.csv', own=small/'own.csv')
    assert len(e.page()) < 300_000 and 'data:image/jpeg' in e.page()
