"Counting any module: by hand, against torch's own counter, without a trace, and with sentences for mistakes."
import copy
import random
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from layerscale_nb.nets.count import count, plot_count
from layerscale_nb.nets.conventions import CONVENTIONS, convention_table, under
from layerscale_nb.core import LayerscaleError
from layerscale_nb.cost import Cost
from layerscale_nb.nets.yolo import build_yolo, yolov8
from layerscale_nb.nets.layer import cost


class Call(nn.Module):
    "A module from a function, with weights of the given shapes."
    def __init__(self, f, *shapes):
        super().__init__()
        self.f, self.w = f, nn.ParameterList([nn.Parameter(torch.zeros(s)) for s in shapes])
    def forward(self, *x): return self.f(*x, *self.w)


def installed(name):
    try: return version(name)
    except PackageNotFoundError: pytest.skip(f'{name} is not installed (pip install {name} to run this comparison)')


def torch_macs(m, *shapes):
    "Half of what torch's counter says about the module on real zeros."
    m.eval()
    with FlopCounterMode(display=False) as c, torch.no_grad(): m(*[torch.zeros(s) for s in shapes])
    return c.get_total_flops()//2


HAND = {  # module, input, macs, params, acts
    'conv1d': (nn.Conv1d(4, 6, 3), (2, 4, 10), 2*6*8*4*3, 78, 2*6*8),
    'conv2d': (nn.Conv2d(3, 8, 3, stride=2, padding=1), (1, 3, 8, 10), 8*4*5*27, 224, 160),
    'conv3d': (nn.Conv3d(2, 3, 2, bias=False), (1, 2, 4, 4, 4), 3*27*2*8, 48, 81),
    'grouped': (nn.Conv2d(8, 8, 3, groups=4, bias=False), (1, 8, 5, 5), 8*9*2*9, 144, 72),
    'depthwise': (nn.Conv2d(8, 8, 3, groups=8, bias=False), (1, 8, 5, 5), 8*9*9, 72, 72),
    'dilated, same': (nn.Conv2d(2, 2, 3, padding='same', dilation=2, bias=False), (1, 2, 6, 6), 2*36*18, 36, 72),
    'transposed': (nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), (1, 4, 5, 5), 25*4*6*4, 96, 600),
    'transposed, grouped': (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False), (1, 4, 5, 5), 25*4*3*4, 48, 600),
    'linear': (nn.Linear(5, 7), (3, 5), 105, 42, 21),
    'linear, 3d': (nn.Linear(5, 7), (2, 3, 5), 210, 42, 42),
    'linear, no bias': (nn.Linear(5, 7, bias=False), (2, 3, 5), 210, 35, 42),
    'linear, vector': (nn.Linear(5, 7), (5,), 35, 42, 7),
    'bilinear-free addmm': (Call(lambda x, w, b: torch.addmm(b, x, w), (5, 7), (7,)), (3, 5), 105, 42, 21),
    'functional conv': (Call(lambda x, w: F.conv2d(x, w), (4, 3, 1, 1)), (1, 3, 5, 5), 300, 12, 100),
    'matmul': (Call(torch.matmul), ((2, 3, 4), (4, 5)), 120, 0, 0),
    'bmm': (Call(torch.bmm), ((2, 3, 4), (2, 4, 5)), 120, 0, 0),
    'baddbmm': (Call(torch.baddbmm), ((2, 3, 5), (2, 3, 4), (2, 4, 5)), 120, 0, 0),
    'einsum': (Call(lambda a, b: torch.einsum('bhqd,bhkd->bhqk', a, b)), ((1, 2, 3, 4), (1, 2, 5, 4)), 120, 0, 0),
    'einsum with a weight': (Call(lambda a, w: torch.einsum('bld,de->ble', a, w), (4, 5)), (2, 3, 4), 120, 20, 30),
    'matrix times vector': (Call(torch.mv), ((3, 4), (4,)), 12, 0, 0),
    'attention': (Call(F.scaled_dot_product_attention), ((1, 4, 5, 6), (1, 4, 7, 6), (1, 4, 7, 6)), 4*5*7*12, 0, 0),
    'batch norm only': (nn.BatchNorm2d(3), (1, 3, 4, 4), 0, 6, 0)}


@pytest.mark.parametrize('name', HAND)
def test_by_hand(name):
    m, shape, macs, params, acts = HAND[name]
    assert count(m, shape).total == Cost(macs, params, acts)


@pytest.mark.parametrize('name', ['flash_attention_for_cpu', 'flash_attention', 'efficient_attention'])
def test_fused_attention_operators(name):
    "Each form of fused attention, handed straight to the recorder as torch's core would."
    from layerscale_nb.nets.count import Recorder, watch
    q, k = torch.empty(1, 4, 5, 8, device='meta'), torch.empty(1, 4, 7, 8, device='meta')
    op, rec = getattr(torch.ops.aten, f'_scaled_dot_product_{name}'), Recorder()
    with watch(rec.op): op(q, k, k, *((None, False) if name == 'efficient_attention' else ()))
    assert [fact[2] for _, fact in rec.calls] == [(('attention_macs', 4*5*7*16), ('attention_out', 4*5*8))]


def test_learned_position_bias_is_no_linear_layer():
    "A weight that is only added to an attention product makes it no linear layer."
    c = count(Call(lambda q, k, b: torch.baddbmm(b, q, k), (2, 3, 5)), ((2, 3, 4), (2, 4, 5)))
    assert (c.macs, c.params, c.acts) == (120, 30, 0)


def test_multihead_attention_in_eval_mode():
    "Its fused path would hide all products in one operator."
    m = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    c = count(m, ((1, 5, 8),)*3)
    assert c.macs == 5*8*24 + 5*8*8 + 2*5*5*8 and c.acts == 5*24 + 5*8
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert count(layer.eval(), (1, 5, 8)).macs == count(layer.train(), (1, 5, 8)).macs == c.macs + 2*5*8*16
    real = count(layer, torch.zeros(1, 5, 8), real=True)
    assert real.macs == c.macs + 2*5*8*16, 'the fast path is off on real numbers too'


def test_shared_weights_and_repeated_calls():
    shared = nn.Linear(4, 4, bias=False)
    c = count(nn.Sequential(shared, nn.ReLU(), shared), (1, 4))
    assert c.total == Cost(32, 16, 8) and c.parts['0'] == Cost(32, 16, 8)
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)); tied[1].weight = tied[0].weight
    assert count(tied, (1, 4)).params == 16
    for p in tied.parameters(): p.requires_grad_(False)
    assert count(tied, (1, 4)).params == 16, 'frozen ones count too'


def test_weights_made_from_weights():
    "Weight normalisation makes the weight afresh in each pass; its product is still a linear layer."
    m = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6, bias=False))
    c = count(m, (2, 3, 4))
    assert (c.macs, c.acts) == (2*3*4*6, 36)


def test_batch_multiplies_macs_and_acts():
    m = nn.Conv2d(3, 8, 3)
    a, b = count(m, (1, 3, 8, 8)), count(m, (5, 3, 8, 8))
    assert (b.macs, b.acts, b.params) == (5*a.macs, 5*a.acts, a.params)


def test_inputs_of_every_form():
    m = Call(lambda x, y: x @ y.T, )
    want = 3*4*5
    assert count(m, ((3, 4), (5, 4))).macs == count(m, (torch.zeros(3, 4), (5, 4))).macs == want
    class Named(nn.Module):
        def forward(self, x, scale=None): return x @ scale
    assert count(Named(), dict(x=(3, 4), scale=torch.zeros(4, 5))).macs == want
    assert count(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), torch.zeros(1, 7).long()).macs == 56
    assert count(nn.Linear(4, 2).half(), (1, 4)).macs == 8


def test_real_tensors_made_in_forward_and_kept_as_attributes():
    class Mixed(nn.Module):
        def __init__(self): super().__init__(); self.fc, self.shift, self.strides = nn.Linear(4, 4), torch.ones(4), [torch.tensor([8., 16.])]
        def forward(self, x):
            self.cache = x = self.fc(x + self.shift + torch.arange(4.))
            self.shift += 1; self.strides.append(x)
            return x*float(self.strides[0][1])
    m = Mixed(); c = count(m, (2, 4))
    assert c.macs == 32 and not hasattr(m, 'cache') and len(m.strides) == 1 and m.shift.tolist() == [1, 1, 1, 1]


def test_count_is_frozen_data():
    c = count(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU()), (1, 3, 2, 2))
    assert c.uncounted == {'native_batch_norm': 16, 'silu': 16} and c.flops == 2*c.macs
    assert set(c.by_operator) == {'convolution'} and 'native_batch_norm 16' in c._repr_markdown_()
    with pytest.raises(AttributeError): c.macs = 1


def test_modules_add_up():
    c = count(torchvision.models.resnet18(), (1, 3, 64, 64))
    top = [v for k, v in c.parts.items() if k and '.' not in k]
    assert sum(top) == c.total == c.parts['']


NETS = 'resnet50 vit_b_16 swin_t convnext_tiny efficientnet_b0 regnet_y_400mf mobilenet_v3_large maxvit_t inception_v3'.split()


@pytest.mark.parametrize('name', NETS)
def test_equals_torch_counter(name):
    kw = dict(init_weights=False, aux_logits=False) if name == 'inception_v3' else {}
    m = torchvision.models.get_model(name, weights=None, **kw).eval()
    c = count(m, (1, 3, 224, 224))
    m.to('meta')
    with FlopCounterMode(display=False) as f, torch.no_grad(): m(torch.empty(1, 3, 224, 224, device='meta'))
    assert 2*c.macs == f.get_total_flops() and c.params == sum(p.numel() for p in m.parameters())


def test_segmentation_network():
    m = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert count(m, (1, 3, 64, 64)).macs == torch_macs(m, (1, 3, 64, 64))


def test_detection_network_needs_real_numbers():
    m = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    x = [torch.zeros(3, 320, 320)]
    with pytest.raises(LayerscaleError, match='depends on the data.*real=True'): count(m, (x,))
    assert count(m, (x,), real=True).macs > 5e8


@pytest.mark.parametrize('scale', 'nl')
def test_yolo_equals_closed_form_and_torch(scale):
    net = yolov8(scale); m = build_yolo(net)
    assert count(m, (1, 3, 640, 640)).total == cost(net, 640).total
    if scale == 'n': assert count(m, (1, 3, 320, 320)).macs == torch_macs(m, (1, 3, 320, 320))


@pytest.mark.parametrize('yaml', 'yolov5n yolov9t yolov10n yolo11n rtdetr-l'.split())
def test_other_ultralytics_networks(yaml):
    from layerscale_nb.nets.yolo import quiet_ultralytics
    u = quiet_ultralytics()
    m = (u.RTDETR if yaml.startswith('rt') else u.YOLO)(f'{yaml}.yaml').model
    assert count(m, (1, 3, 160, 160)).macs == torch_macs(m, (1, 3, 160, 160))


@pytest.mark.parametrize('name', 'vit_tiny_patch16_224 resnetv2_50 eva02_tiny_patch14_224 coatnet_0_rw_224'.split())
def test_timm(name):
    installed('timm')
    import timm
    with torch.device('meta'): m = timm.create_model(name, pretrained=False).eval()
    with FlopCounterMode(display=False) as f, torch.no_grad(): m(torch.empty(1, 3, 224, 224, device='meta'))
    assert 2*count(m, (1, 3, 224, 224)).macs == f.get_total_flops()


# leave no trace

class Trouble(nn.Module):
    "Everything that a forward pass can leave behind."
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.drop, self.rnn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.GRU(4, 4)
        self.register_buffer('calls', torch.zeros(1)); self.log = {'shapes': []}
    def forward(self, x):
        self.calls += 1; self.log['shapes'].append(tuple(x.shape)); self.last = x; self.extra = nn.Linear(2, 2)
        random.random(); np.random.rand(); torch.rand(3)
        return self.rnn(self.drop(self.bn(self.conv(x))).flatten(2).permute(2, 0, 1))


def snapshot(m):
    return dict(attributes={n: sorted(x.__dict__) for n, x in m.named_modules()}, training=[x.training for x in m.modules()],
                hooks=[(dict(x._forward_hooks), dict(x._forward_pre_hooks)) for x in m.modules()],
                ids=[id(t) for t in (*m.parameters(), *m.buffers())], grads=[(p.requires_grad, p.grad, p.device, p.dtype, p._version) for p in m.parameters()],
                buffers=[b.tolist() for b in m.buffers()], log=copy.deepcopy(m.log), globals=(len(torch.nn.modules.module._global_forward_hooks), torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()),
                rng=(torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()))


@pytest.mark.parametrize('how', ['meta', 'real', 'fails'])
def test_leaves_no_trace(how):
    m = Trouble(); m.bn.eval(); m.conv.weight.requires_grad_(False)
    m.conv.register_forward_hook(lambda *a: None)
    before = snapshot(m)
    if how == 'fails':
        with pytest.raises(LayerscaleError): count(m, (1, 5, 4, 4))
    else: assert count(m, (1, 3, 4, 4), real=how == 'real').macs == 4*3*16 + 16*(2*12*4)
    assert snapshot(m) == before
    m(torch.zeros(1, 3, 4, 4)); assert m.calls.item() == 1


def test_real_inputs_stay():
    x = torch.ones(1, 4)
    for real in (False, True): count(nn.Sequential(nn.ReLU(inplace=True), Call(lambda x: x.mul_(0))), x, real=real)
    assert x.tolist() == [[1, 1, 1, 1]]


def test_a_giant_without_memory():
    "ViT-G/14, 1.8 billion weights (7.4 GB), in a process of its own: its memory grows by less than 200 MB."
    code = '''
import resource, torch, torchvision
from layerscale_nb.nets.count import count
count(torch.nn.Linear(2, 2), (1, 2))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
a = peak()
with torch.device('meta'): m = torchvision.models.VisionTransformer(224, 14, 48, 16, 1664, 8192)
c = count(m, (1, 3, 224, 224))
print(c.params, c.macs, peak() - a)'''
    params, macs, grown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 1.8e9 < int(params) < 1.9e9 and 4.6e11 < int(macs) < 4.9e11 and float(grown) < 200


# conventions

THOP = {'ultralytics-thop': 'ultralytics-thop 2.2.3', 'thop': 'thop 0.1.1'}  # two packages provide the module thop


def thop_name():
    from importlib.metadata import packages_distributions
    return next(d for d in packages_distributions()['thop'] if d in THOP)


def test_resnet50_under_every_convention():
    t = convention_table(torchvision.models.resnet50(), (1, 3, 224, 224))
    assert list(t.index) == list(CONVENTIONS) and t.source.all()
    assert [f'{t.flops_G[k]:.2f}' for k in ('layerscale', 'pycls', 'fvcore', 'torch FlopCounterMode')] == ['4.09', '4.09', '4.11', '8.18']
    assert [f'{t.acts_M[k]:.1f}' for k in ('layerscale', 'pycls')] == ['11.1', '11.3']


def test_published_yolov8_tables():
    "README: fused; yaml comments: unfused (GFLOPs as printed by Ultralytics)."
    for s, table, yaml in (('n', '8.7', '8.9'), ('s', '28.6', '28.8'), ('m', '78.9', '79.3'), ('l', '165.2', '165.7'), ('x', '257.8', '258.5')):
        c = count(build_yolo(yolov8(s)), (1, 3, 640, 640))
        assert (f"{under(c, 'Ultralytics table')['flops']/1e9:.1f}", f"{under(c, 'Ultralytics yaml')['flops']/1e9:.1f}") == (table, yaml)
    fused = build_yolo(yolov8('x')).fuse(verbose=False)
    assert under(c, 'Ultralytics table')['params'] == sum(p.numel() for p in fused.parameters())


@pytest.mark.parametrize('name,size', [('resnet50', 224), ('efficientnet_b0', 224), ('mobilenet_v3_large', 224), ('yolov8n', 320)])
def test_fvcore_and_thop_to_the_integer(name, size):
    "The weights are measured ones: each counter, run for real, must say what its convention says."
    installed('fvcore')
    from fvcore.nn import FlopCountAnalysis
    m, x = (build_yolo(yolov8('n')) if name == 'yolov8n' else torchvision.models.get_model(name)).eval(), torch.zeros(1, 3, size, size)
    c = count(m, tuple(x.shape))
    if name == 'yolov8n': m(x)
    f = FlopCountAnalysis(m, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert f.total() == under(c, 'fvcore')['flops']
    import thop
    assert thop.profile(m, inputs=(x,), verbose=False)[0] == under(c, THOP[thop_name()])['flops']


# mistakes

class Values(nn.Module):
    def forward(self, x): return x if x.sum() > 0 else -x


MISTAKES = {
    'wrong channels': (lambda: torchvision.models.resnet18(), (1, 4, 32, 32), r"'conv1' \(Conv2d\) fails on this input: expects 3 channels, was given 4"),
    'deep layer': (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(nn.Conv2d(9, 8, 1))), (1, 3, 8, 8), r"'1.0' \(Conv2d\) fails .* expects 9 channels, was given 8"),
    'wrong features': (lambda: nn.Linear(4, 2), (1, 5), r'the network \(Linear\) fails .* expects 4 features, was given 5'),
    'map too small': (lambda: nn.Sequential(nn.Conv2d(3, 8, 7)), (1, 3, 4, 4), r"'0' \(Conv2d\) fails on this input"),
    'own error': (lambda: nn.Sequential(Call(lambda x: 1/0)), (1, 3), r"'0' \(Call\) fails on this input: division by zero\."),
    'too many inputs': (lambda: nn.Linear(4, 2), ((1, 4), (1, 4)), 'takes 2 positional'),
    'branch on values': (lambda: nn.Sequential(Values()), (1, 4), r"'0' \(Values\): its path depends on the data .*real=True"),
    'item': (lambda: nn.Sequential(Call(lambda x: x*x.max().item())), (1, 4), 'its path depends on the data'),
    'numpy': (lambda: nn.Sequential(Call(lambda x: torch.from_numpy(x.numpy()))), (1, 4), "'0' .Call.: its path depends on the data"),
    'not a module': (lambda: 'resnet50', (1, 3), 'cannot count a str: give a torch.nn.Module'),
    'lazy': (lambda: nn.Sequential(nn.LazyConv2d(3, 1)), (1, 3, 4, 4), r"'0' \(LazyConv2d\) has no shape yet for 'weight'"),
    'lazy alone': (lambda: nn.LazyLinear(3), (1, 4), r'^the network \(LazyLinear\) has no shape yet'),
    'scripted': (lambda: torch.jit.script(nn.Linear(2, 2)), (1, 2), 'TorchScript'),
    **{f'shape {s!r}': (lambda: nn.Linear(4, 2), s, 'positive whole numbers') for s in ((1, 0), (1, -4), (1, 4.0), (True, 4), 'big', None, (), 7)}}


@pytest.mark.parametrize('name', MISTAKES)
def test_one_clear_sentence(name):
    make, shape, sentence = MISTAKES[name]
    with pytest.raises(LayerscaleError, match=sentence) as e: count(make(), shape)
    assert '\n' not in str(e.value) and len(str(e.value)) < 330


def test_unknown_convention():
    with pytest.raises(LayerscaleError, match="Did you mean 'fvcore'"): under(count(nn.Linear(2, 2), (1, 2)), 'fvcor')


def test_plot():
    c = count(torchvision.models.resnet18(), (1, 3, 64, 64)); ax = plot_count(c)
    assert ax.get_xlabel() == 'share of the network' and 'layer4' in [t.get_text() for t in ax.get_yticklabels()]
    assert len(ax.patches) == 3*len(ax.get_yticks())


def test_ten_times_faster_than_fvcore():
    installed('fvcore')
    from fvcore.nn import FlopCountAnalysis
    m, x = torchvision.models.vit_b_16().eval(), torch.zeros(1, 3, 224, 224)
    def seconds(f):
        out = []
        for _ in range(3): s = time.perf_counter(); f(); out.append(time.perf_counter() - s)
        return min(out)
    theirs = seconds(lambda: FlopCountAnalysis(m, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())
    assert theirs > 10*seconds(lambda: count(m, (1, 3, 224, 224)))


# the benchmark of counters

def test_bench_side_by_side(monkeypatch):
    from layerscale_nb.experiments import counters
    monkeypatch.setitem(counters.COUNTERS, 'missing', (lambda m, x: 1, ('no-such-package',)))
    monkeypatch.setitem(counters.COUNTERS, 'broken', (lambda m, x: 1/0, ('torch',)))
    seen = []
    r = counters.bench_count({'yolov8n': 160}, repeats=2, closed_form={'yolov8n': lambda: cost(yolov8('n'), 160)}, look=seen.append)
    rows = {v['counter']: v for v in r['rows']}
    assert set(rows) == {*counters.COUNTERS, 'closed form'} and len(seen) == 1
    assert rows['missing']['note'] == 'absent: install no-such-package' and rows['missing']['seconds'] is None
    assert rows['broken']['note'] == 'failed: division by zero' and rows['broken']['macs'] is None
    exact = {rows[k]['macs'] for k in ('layerscale count', 'closed form', 'torch FlopCounterMode', 'torch FlopCounterMode, meta')}
    assert exact == {cost(yolov8('n'), 160).macs} and len(rows['layerscale count']['runs']) == 2
    t = counters.bench_count_table(r)
    assert t.loc[('yolov8n', 'layerscale count'), 'times_ours'] == 1 and t.loc[('yolov8n', 'missing'), 'note'].startswith('absent')
    ax = counters.plot_bench_count(r)
    assert ax.get_xscale() == 'log' and len(ax.get_yticks()) == len(rows)


def test_bench_refuses_unknown_names():
    from layerscale_nb.experiments.counters import bench_count, bench_net
    with pytest.raises(LayerscaleError, match="no image size for 'yolov8q'. Did you mean 'yolov8l'"): bench_count(['yolov8q'])
    with pytest.raises(LayerscaleError, match="no network 'resnet51'"): bench_net('resnet51')


def test_count_after_a_real_pass():
    "An Ultralytics head keeps real maps of its last call; counting neither trips over them nor changes them."
    m = build_yolo(yolov8('n')).eval(); m(torch.zeros(1, 3, 160, 160))
    anchors = m.model[-1].anchors
    assert count(m, (1, 3, 160, 160)).macs == count(m, (1, 3, 96, 160)).macs*160//96 and m.model[-1].anchors is anchors


def test_memory_tells_2_from_2_0():
    "The same operator on the same shape with a whole and a broken number gives tensors of two types."
    from layerscale_nb.nets.count import Recorder, watch
    x = torch.ones(3, 4, device='meta').long()
    with watch(Recorder().op): assert ((x*2).dtype, (x*2.0).dtype) == (torch.int64, torch.float32)
