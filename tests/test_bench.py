"The benchmark runs end to end on a few frames: Ultralytics in its child process, scored by our scorer."
from dataclasses import replace

from layerscale_nb.bench import bench_ultralytics, compare
from layerscale_nb.study import open_setting


def test_ultralytics_child(tiny, tmp_path):
    st = open_setting(replace(tiny, n_train=8, n_val=4, device='cpu'))
    seen = []
    r = bench_ultralytics(st, tmp_path, settings=dict(epochs=2, workers=0, plots=False), seconds=100, look=seen.append)
    assert r['epochs'] == len(r['curve']) == 2 and 0 <= r['curve'][-1][1] <= 1 and r['img_s'] > 0
    assert r['curve'][0][0] < r['curve'][1][0] and len(seen) > 0
    c = compare(dict(curve=[(1., .5)], img_s=100.), r)
    assert c['to_map50']['0.10']['ours_s'] == 1. and c['img_s_ratio'] == 100./r['img_s']
