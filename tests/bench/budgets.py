"""The budgets of the design, measured: each line prints a figure, its budget and their ratio (below 1 is within).
Then our training loop's pace as a share of a bare loop's, with the same batch and threads, and its goal (a ratio above 1 is reached)."""
import statistics
import subprocess
import sys
import time


def import_s(module):
    "Smallest wall time of importing a module in a fresh process, less that of an empty process."
    run = lambda code: min(timed(lambda: subprocess.run([sys.executable, '-c', code], check=True)) for _ in range(5))
    return run(f'import {module}') - run('pass')


def timed(f):
    start = time.perf_counter(); f()
    return time.perf_counter() - start


def median_s(f, n): return statistics.median(timed(f) for _ in range(n))


def loops(turns=12, n_train=64):
    "[(network, share of the bare loop's pace, its quartiles, goal)] on RoadScenes, with the recipe's batch."
    from layerscale_nb.experiments.bench import bench_limit
    from layerscale_nb.nets.yolo import yolov8
    from layerscale_nb.study.runs import open_setting
    from layerscale_nb.study.variants import Study, networks
    st = open_setting(Study(imgsz=(96, 320), n_train=n_train, n_val=4))
    nets = dict(yolov8n=(yolov8('n', len(st.names)), 0.95), width_033=(networks(st.study, len(st.names))['width_033'], 0.90))
    limits = {name: (bench_limit(st, net, turns=turns), goal) for name, (net, goal) in nets.items()}
    return [(name, r['batch'], r['ratio'], r['ratio_q1'], r['ratio_q3'], goal) for name, (r, goal) in limits.items()]


def mover():
    "A function that moves the slider `s` of the scaling explorer to its next value, and returns it."
    from layerscale_nb.live.explorers import scaling_explorer
    slider = scaling_explorer('EN-B7', 'dwr', 4).controls['s']
    steps = iter([v for _, v in slider.options]*9)
    def move():
        slider.value = next(steps)
        return slider.value
    return move


def main():
    from layerscale_nb.nets.layer import cost
    from layerscale_nb.detect.scenes import road_scenes
    from layerscale_nb.nets.yolo import yolov8
    from layerscale_nb.nets.layer import cost
    from layerscale_nb.nets.zoo import named_net
    vit, b7, move = named_net('ViT-G/14'), named_net('EN-B7'), mover()
    rows = [('import layerscale_nb', import_s('layerscale_nb'), 0.3), ('import layerscale_nb.nets.yolo', import_s('layerscale_nb.nets.yolo'), 0.3),
            ('import layerscale_nb.cli', import_s('layerscale_nb.cli'), 0.3),
            ('import layerscale_nb.nets.zoo', import_s('layerscale_nb.nets.zoo'), 0.3),
            ('closed form of EN-B7', median_s(lambda: cost(b7), 200), 0.001), ('closed form of ViT-G/14', median_s(lambda: cost(vit), 200), 0.001),
            ('slider of scaling_explorer, EN-B7', median_s(move, 100), 0.1),
            ('closed-form cost of yolov8x at 640', median_s(lambda: cost(yolov8('x'), 640), 50), 0.005),
            ('320 RoadScenes of 320x96', median_s(lambda: road_scenes(320), 3), 3.0)]
    for name, s, budget in rows: print(f'{name:<36} {s*1e3:9.2f} ms   budget {budget*1e3:7.1f} ms   ratio {s/budget:.2f}')
    for name, batch, share, low, high, goal in loops():
        print(f'{f"loop of {name}, batch {batch}":<36} {share:9.2f} of a bare one ({low:.2f} to {high:.2f})   goal {goal:.2f}   ratio {share/goal:.2f}')


if __name__ == '__main__': main()
