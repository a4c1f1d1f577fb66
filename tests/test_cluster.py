"A study on a real Ray cluster of two nodes on this machine: the same table as local, whatever is killed in between; loopback only, no statistics."
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.recipe import Recipe
from layerscale_nb.study import cluster
from layerscale_nb.study.cluster import Cluster, RayEngine, joined
from layerscale_nb.study.runs import StudyFolder, open_setting, run_study
from layerscale_nb.table import locked, read_rows

TIMED = ('latency', 'throughput', 'train_s', 'date', 'command', 'note')
RAY = dict(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER='0',  # else Ray takes 127.0.0.1 for the machine's own address
           RAY_USAGE_STATS_ENABLED='0', RAY_worker_niceness='0')  # Ray's own is 15: beside other tests a worker would stand still
SLOW = 'rfc3987_syntax'  # jsonschema parses its grammar in 1.4 s, in each of Ray's dozen processes, and Ray needs none of it


@pytest.fixture(scope='module')
def ray(tmp_path_factory):
    "The package, imported as its processes will be."
    stub = tmp_path_factory.mktemp('stub')
    (stub/f'{SLOW}.py').write_text('raise ImportError')
    with pytest.MonkeyPatch.context() as m:
        for k, v in RAY.items(): m.setenv(k, v)
        m.setenv('PYTHONPATH', os.pathsep.join(filter(None, (str(stub), str(Path(__file__).parent.parent), os.environ.get('PYTHONPATH')))))
        m.setitem(sys.modules, SLOW, None)
        yield pytest.importorskip('ray', reason="Ray is not installed: studies are tested on this machine only (pip install 'layerscale-nb[ray]')")


def untimed(folder): return pd.DataFrame(read_rows(folder/'results.csv')).filter(regex=f'^(?!{"|".join(TIMED)})').sort_values('variant', ignore_index=True)


def epochs(folder): return [{k: v for k, v in r.items() if k != 'train_s'} for r in read_rows(folder/'epochs.csv')]


def processes(*words):
    "Processes below this one whose command line has one of these words."
    found = []
    for p in psutil.Process().children(recursive=True):
        try: line = ' '.join(p.cmdline())
        except psutil.Error: continue
        if any(w in line for w in words): found.append(p)
    return found


def trainers(): return processes('ray::NodeTrainer.train')


@pytest.fixture(scope='module')
def nodes(ray):
    "A head and a second node, with one core each."
    from ray.cluster_utils import Cluster as Nodes
    local = dict(num_cpus=1, node_ip_address='127.0.0.1', include_dashboard=False)
    found = Nodes(initialize_head=True, head_node_args=local)
    found.second = found.add_node(**local)
    with joined(found.address): yield found
    found.shutdown()


@pytest.fixture(scope='module')
def setting(tiny): return open_setting(replace(tiny, recipe=Recipe(epochs=4)))


@pytest.fixture(scope='module')
def whole(setting, tmp_path_factory):
    "The same study on this machine, undisturbed, with one thread."
    out, before = tmp_path_factory.mktemp('whole'), torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in run_study(setting, out, jobs=1): pass
    torch.set_num_threads(before)
    return out


def test_sockets_and_statistics(ray, nodes):
    "All that Ray has opened is on the loopback interface; it reports nothing, and serves no page."
    found = [c for p in processes('ray::', '/ray/') for c in p.net_connections('inet')]
    assert len(found) > 10 and all(c.laddr.ip.startswith(('127.', '::1', '::ffff:127.')) for c in found), {c.laddr for c in found}
    session = Path(nodes.head_node.get_session_dir_path())
    assert not list(session.glob('usage_stats*')) and not ray._private.worker._global_node.webui_url


def lies(net, st):
    "Of a worker: its process, and how and from where its images are mapped."
    images = st.train.images.permute(0, 2, 3, 1).numpy()
    here = images.__array_interface__['data'][0]
    for line in Path('/proc/self/maps').read_text().splitlines():
        begin, end = (int(v, 16) for v in line.split()[0].split('-'))
        if begin <= here < end: return os.getpid(), line.split()[1], ' '.join(line.split()[5:])


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='needs /proc to see what is mapped')
def test_images_lie_once_on_a_node(ray, nodes, setting, tmp_path):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    c = Cluster(ray, StudyFolder(setting, tmp_path), how=RayEngine(cpus=1))
    workers = [c.pool.take() for _ in range(2)]
    found = ray.get([w.call.remote(lies, None) for w in workers])
    c.pool.free += workers
    c.close()
    assert len({pid for pid, *_ in found}) == 2 and all(how.endswith('s') and 'shm' in file for _, how, file in found), found


def test_a_run_that_ends_all_its_workers_ends(ray, nodes, setting, tmp_path):
    from layerscale_nb.experiments.engines import EmptyStudy
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    class Deadly(EmptyStudy):
        def train(self, name):
            if name == 'run_1': os._exit(1)
            yield from super().train(name)
    c, said = Cluster(ray, Deadly(setting, tmp_path, 3)), []
    with c.open() as train: said = [(name, kind, str(value)) for name, (kind, value) in train(['run_0', 'run_1', 'run_2']) if kind != 'step']
    c.close()
    assert sorted((n, k) for n, k, _ in said) == [('run_0', 'ended'), ('run_1', 'failed'), ('run_1', 'lost'), ('run_1', 'lost'), ('run_2', 'ended')]
    assert '3 workers in a row were lost without a finished epoch' in next(v for _, k, v in said if k == 'failed')


def test_what_another_has_and_a_full_disk(ray, nodes, setting, tmp_path, monkeypatch):
    "A run that another command trains is left to it; a disk that refuses a file here costs that run only."
    from layerscale_nb.experiments.engines import EmptyStudy
    s = EmptyStudy(setting, tmp_path, 3)
    c, write = Cluster(ray, s), cluster.write_atomic
    def full(path, data):
        if path.parent.name == 'run_1': raise LayerscaleError(f'cannot write {path}: No space left on device.')
        return write(path, data)
    monkeypatch.setattr(cluster, 'write_atomic', full)
    with locked(tmp_path/'.locks'/'run_2'), c.open() as train:
        said = [(name, kind, value) for name, (kind, value) in train([*s.runs]) if kind != 'step' or value == 'elsewhere']
    c.close()
    assert [(n, k) for n, k, _ in said if n != 'run_2'] == [('run_0', 'ended'), ('run_1', 'failed')] or [k for _, k, _ in said].count('failed') == 1
    assert ('run_2', 'step', 'elsewhere') in said and 'No space left' in str(next(v for n, k, v in said if k == 'failed'))
    with locked(tmp_path/'.locks'/'run_1', 0) as free: assert free


def test_no_room_is_said(nodes, setting, tmp_path):
    with pytest.raises(LayerscaleError, match='has room for a run, which holds 64 CPU. Add a node'): next(run_study(setting, tmp_path, engine=RayEngine(cpus=64)))


def test_without_ray_there_is_one_sentence(monkeypatch, setting, tmp_path, capsys):
    from layerscale_nb.cli import main
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert main(['study', '--engine', 'ray', '--device', 'cpu', '--out', str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == "layerscale: a cluster needs Ray, which is not installed. Here and on every node: pip install 'layerscale-nb[ray]'.\n"


ARGS = ['study', '--base', '1', '0.125', '512', '--n-train', '32', '--n-val', '8', '--epochs', '6', '--variants', 'baseline', 'depth_033', '--device', 'cpu']


def command(out, *more, **env):
    return subprocess.Popen([sys.executable, '-c', 'import sys; from layerscale_nb.cli import main; sys.exit(main())', *ARGS, *more, '--out', str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=os.environ | dict(OMP_NUM_THREADS='1') | env, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_ctrl_c_saves_and_this_machine_goes_on(nodes, tmp_path):
    "Interrupted on the cluster in mid-run, then continued here: the same table as here alone."
    here = command(tmp_path/'here', '--jobs', '2')
    there = command(tmp_path/'there', '--engine', 'ray', RAY_ADDRESS=nodes.address)
    end = time.time() + 120
    while not (tmp_path/'there'/'baseline_seed0'/'state.pt').exists():
        assert there.poll() is None and time.time() < end, there.stdout.read()
        time.sleep(0.05)
    there.send_signal(signal.SIGINT)
    said = there.communicate(timeout=90)[0]
    assert there.returncode == 130 and 'Traceback' not in said and 'stopped. ' in said, said
    assert here.communicate(timeout=300) and here.returncode == 0
    step = torch.load(tmp_path/'there'/'baseline_seed0'/'state.pt', weights_only=True)['step']
    assert 0 < step < 24
    again = command(tmp_path/'there')
    assert again.communicate(timeout=300) and again.returncode == 0
    pd.testing.assert_frame_equal(untimed(tmp_path/'there'), untimed(tmp_path/'here'))


def test_a_worker_and_a_node_are_killed_and_the_table_is_the_same(nodes, setting, whole, tmp_path):
    kinds, killed = [], []
    for e in run_study(setting, tmp_path, engine='ray'):
        if e.kind != 'step': kinds.append(e.kind)
        elif e.progress.row and not killed:
            worker = trainers()[0]
            killed.append(worker.pid)
            worker.kill()
        elif e.progress.row and len(killed) == 1 and 'lost' in kinds:
            killed.append('node')
            nodes.remove_node(nodes.second, allow_graceful=False)
    assert len(killed) == 2 and 1 <= kinds.count('lost') <= 3 and kinds.count('done') == 2, kinds  # the node may have been idle
    pd.testing.assert_frame_equal(untimed(tmp_path), untimed(whole))
    for run in ('baseline_seed0', 'depth_033_seed0'): assert epochs(tmp_path/run) == epochs(whole/run)
    assert not [p for p in tmp_path.rglob('*') if p.name == 'state.pt' or p.name.endswith('.part')]
