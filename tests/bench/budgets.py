"The budgets of the design, measured: each line prints a figure, its budget and their ratio (below 1 is within)."
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


def main():
    from layerscale_nb.live.explorers import scaling_explorer
    from layerscale_nb.nets.layer import cost
    from layerscale_nb.detect.scenes import road_scenes
    from layerscale_nb.nets.yolo import yolov8
    from layerscale_nb.nets.layer import cost
    from layerscale_nb.nets.zoo import named_net
    vit, b7, box = named_net('ViT-G/14'), named_net('EN-B7'), scaling_explorer('EN-B7', 'dwr', 4)
    slider = box.children[1].children[1]
    steps = iter([v for _, v in slider.options]*9)
    def move(): slider.value = next(steps)
    rows = [('import layerscale_nb', import_s('layerscale_nb'), 0.3), ('import layerscale_nb.nets.yolo', import_s('layerscale_nb.nets.yolo'), 0.3),
            ('import layerscale_nb.cli', import_s('layerscale_nb.cli'), 0.3),
            ('import layerscale_nb.nets.zoo', import_s('layerscale_nb.nets.zoo'), 0.3),
            ('closed form of EN-B7', median_s(lambda: cost(b7), 200), 0.001), ('closed form of ViT-G/14', median_s(lambda: cost(vit), 200), 0.001),
            ('slider of scaling_explorer, EN-B7', median_s(move, 100), 0.1),
            ('closed-form cost of yolov8x at 640', median_s(lambda: cost(yolov8('x'), 640), 50), 0.005),
            ('320 RoadScenes of 320x96', median_s(lambda: road_scenes(320), 3), 3.0)]
    for name, s, budget in rows: print(f'{name:<36} {s*1e3:9.2f} ms   budget {budget*1e3:7.1f} ms   ratio {s/budget:.2f}')


if __name__ == '__main__': main()
