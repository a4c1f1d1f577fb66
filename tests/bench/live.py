"""The live explorer, measured.
    python tests/bench/live.py points [numbers]   train the lesson's points, nbs/results/live_points.csv (about 10 minutes on two cores)
    python tests/bench/live.py speed    sliders, cancelling, process against thread, nbs/results/live_speed.json (about 2 minutes)"""
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import pandas as pd

from layerscale_nb.core import provenance, write_atomic
from layerscale_nb.table import write_rows
from layerscale_nb.live.retrain import live_explorer
from layerscale_nb.live.panel import pump, wait
from layerscale_nb.timing.measure import pick_device
from layerscale_nb.live.trainer import Trainer, device_place

results = Path(__file__).resolve().parents[2]/'nbs'/'results'
POINTS = [dict(), dict(seed=1), dict(seed=2), dict(w=0.5), dict(d=1.0), dict(imgsz='480x160'), dict(w=0.125)]


def points(which):
    out, path = Path(tempfile.mkdtemp()), results/'live_points.csv'
    for i in which or range(len(POINTS)):
        p = live_explorer(out=out, **POINTS[int(i)]).panel
        p.ui.train.click()
        assert wait(p, 1800) and 'Finished' in p.ui.status.value, p.ui.status.value
        p.ui.keep.click(); p.worker.close()
        row = p.kept[-1]
        rows = [r for r in pd.read_csv(path).to_dict('records') if r['command'] != row['command']] if path.exists() else []
        write_rows([*rows, row], path)
        print(POINTS[int(i)], row['map50'], row['step_ms'], flush=True)


class Thread:
    "The same work in a thread of this process, to compare with a Worker."
    def __init__(self): self.inbox, self.number, self.on = [], 0, True
    def send(self, job):
        self.number += 1
        self.thread = threading.Thread(target=self.work, args=(job, self.number))
        self.thread.start()
        return self.number
    def work(self, job, number):
        for m in Trainer()(job):
            if not self.on: return
            if m: self.inbox.append(dict(m, number=number))


def answers(p, n=60):
    """Milliseconds from the moment a slider's release is due until everything is drawn again, median and longest of n.
    Waiting for the processor or for the interpreter's lock counts; messages are read in between as in a kernel."""
    ms, values = [], [0.3, 0.25]
    for i in range(n):
        pump(p)
        due = time.perf_counter() + 0.05
        time.sleep(0.05)
        p.ui.width.value = values[i % 2]
        ms.append((time.perf_counter() - due)*1e3)
    return dict(median_ms=round(statistics.median(ms), 2), longest_ms=round(max(ms), 2))


def restart_s(p):
    "Seconds from releasing a slider with live on until the old run has ended, and until the new one has made its first step."
    was = p.number
    p.ui.live.value = True
    t = time.perf_counter(); p.ui.width.value = 0.3 if p.ui.width.value == 0.25 else 0.25
    first = lambda p: p.number != was and p.curve
    assert wait(p, 60, first)
    p.ui.live.value = False
    return time.perf_counter() - t


def speed():
    out = Path(tempfile.mkdtemp())
    t = time.perf_counter(); p = live_explorer(out=out, epochs=100).panel; shown = time.perf_counter() - t
    assert wait(p, 120, lambda p: len(p.points) == 4); ready = time.perf_counter() - t
    found = dict(shown_s=round(shown, 2), measured_s=round(ready, 2), idle=answers(p))
    p.ui.train.click(); assert wait(p, 60, lambda p: len(p.curve) > 8)
    found['process'] = dict(answers(p), step_ms=round(p.step_ms, 1))
    found['restart_s'] = [round(restart_s(p), 2) for _ in range(5)]
    p.worker.close()
    q = live_explorer(out=out/'thread', epochs=100).panel
    q.worker.close(); thread = Thread(); thread.inbox = deque(); q.worker = thread
    q.training = False; q.ui.train.click(); assert wait(q, 120, lambda q: len(q.curve) > 8)
    found['thread'] = dict(answers(q), step_ms=round(q.step_ms, 1))
    thread.on = False; thread.thread.join()
    print(json.dumps(found, indent=1))
    write_atomic(results/'live_speed.json', json.dumps(dict(found, origin=provenance('python tests/bench/live.py speed', device_place(pick_device()), 0)), indent=1))


if __name__ == '__main__': points(sys.argv[2:]) if sys.argv[1] == 'points' else speed()
