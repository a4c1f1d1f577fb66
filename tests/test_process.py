"Child processes: what each is given, how each ends, and what its parent hears of it."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerscale_nb.core import LayerscaleError
from layerscale_nb.process import call, ended, open_line, said, side_by_side, start_process
from layerscale_nb.study.engine import in_turn


def gone(pid):
    "Whether this process has ended; one that nobody has asked for its status has."
    try: return Path(f'/proc/{pid}/stat').read_text().split(')')[-1].split()[0] == 'Z'
    except OSError: return True


def test_the_loss_of_a_process_costs_one_item():
    lost = list(side_by_side(os._exit, [3, 4], 2))
    assert sorted(i for i, _ in lost) == [3, 4] and all(k == 'failed' for _, (k, _) in lost)
    assert {str(e).split('(')[1].split(')')[0] for _, (_, e) in lost} == {'exit status 3', 'exit status 4'}
    assert [m for _, m in in_turn(range, [2])] == [('step', 0), ('step', 1), ('ended', None)]


def test_a_child_has_its_own_environment(tmp_path):
    before = dict(os.environ)
    assert call(os.getenv, 'OMP_NUM_THREADS', threads=3) == call(os.getenv, 'MKL_NUM_THREADS', threads=3) == '3'
    assert call(os.getenv, 'A_NEW_ONE', env=dict(A_NEW_ONE='x', HOME='y')) == 'x'
    assert dict(os.environ) == before
    assert call(print, 'a word', log=tmp_path/'new'/'log.txt') is None
    assert (tmp_path/'new'/'log.txt').read_text() == 'a word\n'


def mark_at_exit(path):
    import atexit
    atexit.register(Path(path).touch)


def test_a_child_tidies_up(tmp_path):
    "What is registered for the end of a process happens at the end of a child too, idle or left."
    assert [k for _, (k, _) in side_by_side(mark_each, [tmp_path/'left'], 1)] == ['step', 'ended'] and (tmp_path/'left').exists()
    line, child = open_line(mark_each, idle_s=0.1)
    line.send(tmp_path/'idle')
    assert [line.recv()[0] for _ in range(2)] == ['step', 'ended'] and ended(child) == 'exit status 0'
    assert (tmp_path/'idle').exists()


def mark_each(path):
    yield mark_at_exit(path) or 1


def test_how_it_ended_is_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(LayerscaleError, match='FileNotFoundError: .*nowhere'): call(os.listdir, 'nowhere', log=tmp_path/'log')
    assert 'Traceback' in (tmp_path/'log').read_text()
    with pytest.raises(LayerscaleError, match='the process ended .exit status 7.'): call(os._exit, 7)
    child = start_process(time.sleep, 100)
    os.kill(child.pid, signal.SIGKILL)
    assert ended(child) == 'it was killed, often because memory ran out'
    def broken(x): raise LayerscaleError(f'{x} is wrong.')
    assert [(k, str(v)) for k, v in said(broken, 1)] == [('step', 'None'), ('failed', '1 is wrong.')]


def test_an_item_gives_way_to_the_next():
    line, child = open_line(range)
    line.send(10**9)
    assert [line.recv() for _ in range(2)] == [('step', 0), ('step', 1)]
    for item in (7, None, 2): line.send(item)  # 7 is given up before it begins
    end = time.monotonic() + 60
    heard = []
    while ('ended', None) not in heard and time.monotonic() < end: heard.append(line.recv())
    assert [m for m in heard if m[0] != 'step'] == [('stopped', None)]*2 + [('ended', None)]
    line.close()
    assert ended(child) == 'exit status 0'


def test_leaving_ends_what_runs():
    begin, messages = time.monotonic(), side_by_side(range, [10**9, 10**9], 2)
    next(messages)
    messages.close()
    assert time.monotonic() - begin < 30  # each saw it between two steps; a minute was theirs


@pytest.mark.skipif(not Path('/proc').exists(), reason='needs /proc to see a process of somebody else')
def test_no_child_outlives_a_killed_parent():
    "One in the middle of a step, one between two steps, and a child that may have children."
    code = '''import time
from layerscale_nb.process import open_line, start_process
line, between = open_line(range)
line.send(10**9); line.recv()
print(between.pid, start_process(time.sleep, 100).pid, start_process(time.sleep, 100, daemon=False).pid, flush=True); time.sleep(100)'''
    parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    children = [int(v) for v in parent.stdout.readline().split()]
    time.sleep(1)
    assert not any(map(gone, children))
    parent.kill()
    end = time.monotonic() + 15
    while not all(map(gone, children)):
        assert time.monotonic() < end, 'a child outlived its parent'
        time.sleep(0.1)
