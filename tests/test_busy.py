"A time measured while the machine computes something else: it is taken again, and a row that keeps it says so."
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import layerscale_nb.timing.measure as r
from layerscale_nb.table import read_rows
from layerscale_nb.timing.measure import Timing, busy_note, queued_seconds, steadiest, waiting

NOTE = 'the machine was busy: {} of the time was spent waiting for a core'


class Clock:
    "A made-up machine: every look at the clock moves it by a second, and the process waits for this share of it."
    def __init__(self, shares, linux=True):
        self.shares, self.linux = list(shares), linux
        self.now, self.queued, self.looks = 0., 0., 0
    def perf_counter(self): return self.now
    def process_time(self): return self.now - self.queued
    def queue(self): return {'1': 0., '2': self.queued} if self.linux else {}
    def pass_once(self, *_, **__):
        "Stands for `time_call`: takes a second."
        share = self.shares[min(self.looks, len(self.shares) - 1)]
        self.looks += 1; self.now += 1.; self.queued += share
        return Timing(10/(1 - share), 9/(1 - share), 11/(1 - share), 5)


@pytest.fixture
def machine(monkeypatch):
    def make(*shares, linux=True):
        c = Clock(shares, linux)
        monkeypatch.setattr(r, 'time', SimpleNamespace(perf_counter=c.perf_counter, process_time=c.process_time))
        monkeypatch.setattr(r, 'queued_seconds', c.queue); monkeypatch.setattr(r, 'time_call', c.pass_once)
        return c
    return make


def row(**kw):
    import torch
    return r.timing_row('conv', torch.nn.Conv2d(3, 4, 3), (16, 16), torch.device('cpu'), 1, **kw)


@pytest.mark.parametrize('linux', [True, False])
@pytest.mark.parametrize('shares, tries, ms, note', [
    ([0.0], 1, 10, ''), ([0.09], 1, 10.99, ''),                # an idle machine: one measurement, as ever
    ([0.8, 0.02], 2, 10.2, ''), ([0.5, 0.8, 0.0], 3, 10, ''),  # the neighbour went away
    ([0.5, 0.8, 0.6], 3, 20, NOTE.format('50%')),              # it stayed: the best try, and a note
    ([0.9], 3, 100, NOTE.format('90%'))])
def test_a_busy_machine_is_measured_again_and_noted(machine, linux, shares, tries, ms, note):
    c = machine(*shares, linux=linux)
    x = row()
    assert c.looks == tries and x['ms'] == pytest.approx(ms, rel=1e-3) and x['note'] == note


def test_a_gpu_is_not_judged_by_the_processor(machine):
    machine(0.9, linux=False)
    share = waiting(SimpleNamespace(type='cuda')); assert math.isnan(share()) and busy_note(share()) == ''


def test_a_slow_machine_is_not_measured_for_ever(machine):
    "No try begins half a minute after the first."
    c = machine(0.9)
    def minute(): c.now += 60; return Timing(1, 1, 1, 5, waited=0.9)
    assert steadiest(minute).waited == 0.9 and c.now == 60


def test_both_notes_of_a_row(machine, monkeypatch):
    c = machine(0.9)
    def small(*_, **__):
        if c.looks == 0: c.looks = 1; raise r.DoesNotFit('too large')
        return c.pass_once()
    monkeypatch.setattr(r, 'time_call', small)
    import torch
    x = r.timing_row('conv', torch.nn.Conv2d(3, 4, 3), (16, 16), torch.device('cpu'), 4)
    assert x['note'] == 'batch 4 did not fit into memory; 2 did; ' + NOTE.format('90%')


def test_spread_and_waiting_are_judged_together():
    quiet, wide = Timing(10, 9.5, 10.5, 5, waited=0.05), Timing(10, 8, 12, 5, waited=0.)
    busy = Timing(10, 10, 10, 5, waited=0.4)
    assert steadiest(iter([wide]).__next__) is wide, 'no limit was set for the spread'
    assert steadiest(iter([wide, busy, quiet]).__next__, spread=0.2) is quiet
    assert steadiest(iter([busy, wide, busy]).__next__, spread=0.2) is wide, 'twice the limit is better than 4 times'


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='a process cannot be bound to a core here')
def test_a_real_neighbour_on_the_same_core():
    "Bound to one core with two processes that compute: at least a third of the time is spent waiting."
    code = '''if True:
        import os, subprocess, sys, torch
        from layerscale_nb.timing.measure import busy_note, steadiest, time_module
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); torch.set_num_threads(1)
        others = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(2)]
        conv = torch.nn.Conv2d(16, 32, 3)
        def once(): return time_module(conv, (96, 96), torch.device('cpu'), channels=16, repeats=1000, budget_s=0.7)
        try: t = steadiest(once)
        finally:
            for p in others: p.kill()
        print(t.waited, busy_note(t.waited))'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    share, note = r.stdout.split(' ', 1)
    assert float(share) > 0.33 and note.startswith('the machine was busy: ')


def test_queue_of_linux_is_read(tmp_path, monkeypatch):
    "Threads that ended, kernels that do not count, and files of another form are left out."
    for name, text in (('1', '500 2000000000 3\n'), ('2', '0 0 0\n'), ('3', ''), ('4', '7 1500000000 2')):
        (tmp_path/name).mkdir(); (tmp_path/name/'schedstat').write_text(text)
    monkeypatch.setattr(r, 'Path', lambda p: tmp_path)
    assert queued_seconds() == {'1': 2.0, '4': 1.5}


def test_a_row_of_a_study_says_it(tiny, machine, monkeypatch):
    import torch

    from layerscale_nb.study import runs as study
    from layerscale_nb.nets.yolo import Yolo
    c = machine(0.0, 0.6, 0.7, 0.8)
    st = SimpleNamespace(size=(32, 32), device=torch.device('cpu'))
    t = study.timings(Yolo(d=.33, w=.125, nc=2), st)
    assert c.looks == 3 and t['latency_ms'] == 10 and t['note'] == NOTE.format('60%')


def test_a_note_reaches_the_screen_and_the_report(repo, tmp_path, monkeypatch):
    import io

    import matplotlib.pyplot as plt
    import pandas as pd

    from layerscale_nb.study import report

    from layerscale_nb.study.screen import Line, tell
    df = pd.read_csv(repo/'nbs'/'results'/'kitti_cyclist_width_depth.csv')
    screen, log, note = io.StringIO(), io.StringIO(), NOTE.format('43%')
    row = json.loads(df.iloc[0].to_json()) | dict(note=note)
    event = SimpleNamespace(index=1, total=2, run='baseline_seed0', kind='done', row=row, note='')
    tell(event, Line(screen), log)
    assert screen.getvalue().splitlines()[0].endswith(note) and note in log.getvalue()
    for f in (n for n in dir(report) if n.startswith('plot_')):  # pictures take long
        monkeypatch.setattr(report, f, lambda *a, **k: None)
    monkeypatch.setattr(report, 'figure_html', lambda ax: plt.close('all') or '')
    df.assign(note=[note, *['']*(len(df) - 1)]).to_csv(tmp_path/'results.csv', index=False)
    html = report.write_report(tmp_path).read_text()
    assert f'baseline, seed 0: {note}.' in html and '<th>note</th>' in html
    for old in (df, df.assign(note=''), df.assign(note=math.nan)): assert report.busy_runs(old) == []


def test_remembered_times_and_profiles_say_it(tmp_path, monkeypatch):
    from layerscale_nb.timing import calibrate
    from layerscale_nb.experiments import members
    from layerscale_nb.nets.ladder import named_yolo
    monkeypatch.setattr(members, 'waiting', lambda device: lambda: 0.5)
    members.remembered(tmp_path/'t.csv', lambda net: 7., 'made up')(named_yolo('yolov5n'))
    assert read_rows(tmp_path/'t.csv')[0]['note'] == NOTE.format('50%')
    monkeypatch.setattr(calibrate, 'measure_calls', lambda *a: [])
    monkeypatch.setattr(calibrate, 'fit_rates', lambda *a, **k: (1, 'sum', {}, dict(sum=0.1)))
    for share, note in ((0.5, NOTE.format('50%')), (0.01, '')):
        monkeypatch.setattr(calibrate, 'waiting', lambda device: lambda: share)
        assert calibrate.calibrate('cpu').origin['note'] == note
