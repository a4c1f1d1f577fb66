"No network, and no port that another machine could reach: the package and all its child processes are watched while they work."
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sockets

HOOK = '''import sys
sys.path.insert(0, {tests!r})
import sockets
sys.path.remove({tests!r})
sockets.watch({log!r})
'''

SEEN = '''import threading, time, psutil
found = set()
def look():
    "Connections and ports of this process and its children, also those that torch's own code opens."
    while True:
        me = psutil.Process()
        for p in [me, *me.children(recursive=True)]:
            try: found.update((c.status, c.laddr.ip) for c in p.net_connections('inet') if not c.laddr.ip.startswith(('127.', '::1')))
            except psutil.Error: pass
        time.sleep(0.5)
'''

WORK = SEEN + '''
def main():
    threading.Thread(target=look, daemon=True).start()
    from layerscale_nb.cli import main as layerscale
    small = ['--base', '1', '0.125', '512', '--variants', 'depth_033', '--imgsz', '96x64', '--n-train', '8', '--n-val', '4', '--epochs', '1', '--device', 'cpu']
    assert layerscale(['count', 'yolov8n', 'EN-B0']) == 0
    assert layerscale(['study', '--plan', *small]) == 0
    assert layerscale(['study', *small, '--jobs', '1', '--out', 'runs']) == 0
    assert layerscale(['report', 'runs']) == 0
    assert layerscale(['repro', 'runs/depth_033_seed0']) == 0
    from layerscale_nb.live.panel import make_panel, wait
    from layerscale_nb.live.trial import Trial, check_trial, look_at
    from layerscale_nb.live.worker import Worker
    worker, t = Worker('layerscale_nb.live.trainer:Trainer', 'log.txt'), check_trial(Trial(d=0.1, w=0.1, epochs=1, n_train=8, n_val=4, imgsz=(64, 96), device='cpu'))
    p = make_panel(t, *look_at(t), 'live', worker)
    p.ui.train.click()
    assert wait(p, 120) and 'Finished' in p.ui.status.value, p.ui.status.value
    worker.close()
    from layerscale_nb.detect.datasets import load_data
    from layerscale_nb.detect.ddp import fit_on_ranks
    from layerscale_nb.detect.recipe import Recipe
    from layerscale_nb.detect.store import to_frames
    from layerscale_nb.nets.yolo import Yolo
    ds = load_data('roadscenes', 8, 4)
    frames = (to_frames(items, (64, 96), []) for items in (ds.train, ds.val))
    fit_on_ranks(Yolo(d=.33, w=.125, nc=len(ds.names)), *frames, 'ranks', Recipe(epochs=1, batch=4, small=0), world=2, device='cpu')
    assert not found, found

if __name__ == '__main__': main()
'''

BREACH = '''import multiprocessing, socket, sys
def child():
    try: socket.create_server(('0.0.0.0', 0))
    except OSError: sys.exit(5)

if __name__ == '__main__':
    try: socket.getaddrinfo('nowhere.invalid', 80)
    except OSError: pass
    p = multiprocessing.get_context('spawn').Process(target=child)
    p.start(); p.join()
    sys.exit(p.exitcode)
'''


@pytest.fixture
def watched(tmp_path):
    "A function that runs a program under watch, its children too; returns (how it ended, what was refused)."
    hook, log = tmp_path/'hook', tmp_path/'refused.txt'
    hook.mkdir()
    (hook/'sitecustomize.py').write_text(HOOK.format(tests=str(Path(__file__).parent), log=str(log)))  # every Python imports it first
    paths = os.pathsep.join(filter(None, (str(hook), str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH'))))
    def run(code):
        (tmp_path/'work.py').write_text(code)
        r = subprocess.run([sys.executable, 'work.py'], cwd=tmp_path, env=os.environ | dict(PYTHONPATH=paths, OMP_NUM_THREADS='1'), capture_output=True, text=True, timeout=900)
        return r, log.read_text() if log.exists() else ''
    return run


def test_nothing_leaves_this_machine(watched):
    "Import, count, plan, a study, report, repeat a run, the live panel, one network in two processes."
    done, refused = watched(WORK)
    assert done.returncode == 0 and not refused, f'{refused}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}'


def test_the_watch_sees(watched):
    "A name of another machine, and in a child a port on all interfaces: both are refused and noted, also if the error is caught."
    done, refused = watched(BREACH)
    assert done.returncode == 5, done.stderr
    assert [line.split()[:2] for line in refused.splitlines()] == [['socket.getaddrinfo', 'nowhere.invalid'], ['socket.bind', '0.0.0.0']]


def test_this_machine_is_told_from_others():
    assert all(map(sockets.is_here, (None, '127.0.0.1', 'localhost', '::1', socket.gethostname())))
    assert not any(map(sockets.is_here, ('', '0.0.0.0', '::', '192.0.2.1', 'example.invalid')))
    own, other = socket.socketpair()  # a pipe between two processes names no host
    with own, other: own.sendall(b'x'); assert other.recv(1) == b'x'
