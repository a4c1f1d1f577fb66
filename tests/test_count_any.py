"What real modules do: inference mode inside, products of every kind, tensors kept anywhere, inputs of every form."
import collections
import functools
import gc
import importlib
import json
import sys
import threading
import types
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from layerscale_nb.cli import main
from layerscale_nb.nets.count import count
from layerscale_nb.nets.conventions import convention_table, under
from layerscale_nb.core import LayerscaleError
from layerscale_nb.cost import Cost
from layerscale_nb.nets.find import cost_of, count_json, count_text


class Call(nn.Module):
    "A module from a function, with weights of the given shapes."
    def __init__(self, f, *shapes):
        super().__init__()
        self.f, self.w = f, nn.ParameterList([nn.Parameter(torch.zeros(s)) for s in shapes])

    def forward(self, *x): return self.f(*x, *self.w)


class Inference(nn.Module):
    "Another module, run in inference mode."
    def __init__(self, m):
        super().__init__()
        self.m = m

    @torch.inference_mode()
    def forward(self, *x): return self.m(*x)


class WithBuffer(nn.Module):
    "A function of the input and a buffer."
    def __init__(self, f, buffer):
        super().__init__()
        self.f = f
        self.register_buffer('b', buffer)

    def forward(self, x): return self.f(self.b, x)


# inference mode

INSIDE = {  # module, input, macs
    'conv': (lambda: nn.Conv2d(3, 8, 3), (1, 3, 16, 16), 42_336),
    'same conv': (lambda: nn.Conv2d(3, 8, 3, padding='same'), (1, 3, 16, 16), 16*16*8*27),
    'transposed conv': (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), 25*4*6*4),
    'linear': (lambda: nn.Linear(4, 6), (2, 3, 4), 144),
    'matmul': (lambda: Call(torch.matmul), ((2, 3, 4), (4, 5)), 120),
    'einsum': (lambda: Call(lambda a, b: torch.einsum('bhqd,bhkd->bhqk', a, b)), ((1, 2, 3, 4), (1, 2, 5, 4)), 120),
    'attention': (lambda: Call(F.scaled_dot_product_attention), ((1, 4, 5, 6), (1, 4, 7, 6), (1, 4, 7, 6)), 4*5*7*12),
    'multi-head': (lambda: nn.MultiheadAttention(8, 2, batch_first=True), ((1, 5, 8),)*3, 5*8*24 + 5*8*8 + 2*5*5*8),
    'lstm': (lambda: nn.LSTM(4, 6, 2, bidirectional=True), (3, 2, 4), 6*2*(24*4 + 24*6) + 6*2*(24*12 + 24*6)),
    'gru': (lambda: nn.GRU(4, 6), (3, 2, 4), 6*(18*4 + 18*6))}


@pytest.mark.parametrize('real', [False, True])
@pytest.mark.parametrize('name', INSIDE)
def test_inference_mode_hides_nothing(name, real):
    make, shape, macs = INSIDE[name]
    m = make()
    inside, outside = count(Inference(m), shape, real), count(m, shape, real)
    assert inside.macs == macs and replace(inside, name='', parts={}) == replace(outside, name='', parts={})
    assert outside.total == count(m, shape).total, 'fused forms on real numbers cost what their steps cost'


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0', 'swin_t', 'vit_b_16'])
def test_inference_mode_in_networks(name):
    m = torchvision.models.get_model(name, weights=None)
    inside, outside = count(Inference(m), (1, 3, 224, 224)), count(m, (1, 3, 224, 224))
    assert (inside.total, inside.tally, inside.uncounted) == (outside.total, outside.tally, outside.uncounted)


def test_the_yolo_object():
    "Its call is a prediction in inference mode; its cost is that of its network."
    from layerscale_nb.nets.yolo import quiet_ultralytics
    net = quiet_ultralytics().YOLO('yolov8n.yaml')
    for m in (net, Inference(net.model)):
        for real in (False, True): assert count(m, (1, 3, 640, 640), real=real).macs == 4_371_993_600
    assert cost_of(net).total == cost_of('yolov8n').total and net.predictor is None


def test_tensors_of_a_type_of_their_own():
    "A batch of sequences of two lengths, 5 rows together."
    def f(x, w): return F.linear(torch.nested.nested_tensor([x[0], x[1, :2]], layout=torch.jagged), w).values()
    assert count(Call(f, (5, 4)), (2, 3, 4), real=True).macs == 5*5*4


# products

ENDS = lambda: torch.tensor([4, 8], dtype=torch.int32)
EYE = torch.eye(4)
BYTES = torch.ones(32, 16, dtype=torch.int8)
PRODUCTS = {  # module, input, macs, params, acts
    'grouped': (Call(lambda x, w: torch._grouped_mm(x, w, offs=ENDS()), (2, 16, 8)), (8, 16), 8*16*8, 256, 64),
    'grouped sums': (Call(lambda x, y: torch._grouped_mm(x.t(), y, offs=ENDS())), ((8, 16), (8, 24)), 8*16*24, 0, 0),
    'deformable': (torchvision.ops.DeformConv2d(4, 8, 3, padding=1, groups=2), ((1, 4, 6, 6), (1, 18, 6, 6)),
                   36*8*18, 152, 288),
    'bilinear': (nn.Bilinear(4, 5, 6), ((3, 4), (3, 5)), 3*6*(4*5 + 5), 126, 18),
    'conv_tbc': (Call(lambda x, w, b: torch.conv_tbc(x, w, b), (3, 4, 6), (6,)), (7, 2, 4), 5*2*6*3*4, 78, 60),
    'addmm_': (Call(lambda o, a, w: o.addmm_(a, w), (4, 5)), ((3, 5), (3, 4)), 60, 20, 15),
    'addmv_': (Call(lambda o, a, b: o.addmv_(a, b)), ((3,), (3, 4), (4,)), 12, 0, 0),
    'baddbmm_': (Call(lambda o, a, b: o.baddbmm_(a, b)), ((2, 3, 5), (2, 3, 4), (2, 4, 5)), 120, 0, 0),
    'addbmm_': (Call(lambda o, a, b: o.addbmm_(a, b)), ((3, 5), (2, 3, 4), (2, 4, 5)), 120, 0, 0),
    'addr': (Call(torch.addr), ((3, 4), (3,), (4,)), 12, 0, 0),
    'whole numbers': (Call(torch._int_mm), (BYTES, BYTES.t()), 32*16*32, 0, 0),
    'coo': (WithBuffer(torch.mm, EYE.to_sparse()), (4, 5), 4*5, 0, 0),
    'coo, sparse.mm': (WithBuffer(torch.sparse.mm, EYE.to_sparse()), (4, 5), 4*5, 0, 0),
    'csr': (WithBuffer(torch.matmul, EYE.to_sparse_csr()), (4, 5), 4*5, 0, 0),
    'csr, right': (WithBuffer(lambda b, x: x @ b, EYE.to_sparse_csr()), (5, 4), 4*5, 0, 0),
    'bsr': (WithBuffer(torch.matmul, EYE.to_sparse_bsr((2, 2))), (4, 5), 8*5, 0, 0)}


@pytest.mark.parametrize('real', [False, True])
@pytest.mark.parametrize('name', PRODUCTS)
def test_products_by_hand(name, real):
    m, shape, macs, params, acts = PRODUCTS[name]
    c = count(m, shape, real=real)
    assert c.total == Cost(macs, params, acts) and not c.not_counted_products


class Mixture(nn.Module):
    "A language model of two layers: 4 heads that share 2 keys, and 4 experts, two of them for each token."
    def __init__(self, d=64, hidden=128, experts=4, layers=2, words=100):
        super().__init__()
        linear = functools.partial(nn.Linear, bias=False)
        self.words, self.head = nn.Embedding(words, d), linear(d, words)
        sides = dict(q=d, k=d//2, v=d//2, o=d, router=experts)
        self.layers = nn.ModuleList(nn.ModuleDict({k: linear(d, n) for k, n in sides.items()}) for _ in range(layers))
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(experts, d, 2*hidden)) for _ in range(layers))
        self.down = nn.ParameterList(nn.Parameter(torch.zeros(experts, hidden, d)) for _ in range(layers))

    def forward(self, tokens):
        x = self.words(tokens)
        for layer, up, down in zip(self.layers, self.up, self.down):
            q, k, v = (layer[i](x).unflatten(-1, (-1, 16)).transpose(0, 1) for i in 'qkv')
            a = F.scaled_dot_product_attention(q, k.repeat_interleave(2, 0), v.repeat_interleave(2, 0))
            x = x + layer['o'](a.transpose(0, 1).flatten(1))
            best = layer['router'](x).topk(2).indices.flatten()
            order = best.argsort()
            ends = (best[:, None] <= torch.arange(4, device=x.device)).sum(0).int()
            gate, value = torch._grouped_mm(x.repeat_interleave(2, 0)[order], up, offs=ends).chunk(2, -1)
            y = torch._grouped_mm((F.silu(gate)*value).contiguous(), down, offs=ends)
            x = x + y[order.argsort()].unflatten(0, (-1, 2)).sum(1)
        return self.head(x)


@pytest.mark.parametrize('real', [False, True])
def test_a_mixture_of_experts(real):
    c = count(Mixture(), (12,), real=real)
    assert c.macs == 1_594_368 and c.by_operator['_grouped_mm'].macs == 2*24*(64*256 + 128*64) == 1_179_648


@pytest.mark.filterwarnings('ignore')
def test_quantised_layers():
    quantization, quantized = pytest.importorskip('torch.ao.quantization'), pytest.importorskip('torch.ao.nn.quantized')
    m = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    m = quantization.quantize_dynamic(m, {nn.Linear}, dtype=torch.qint8)
    c = count(m, (3, 16), real=True)
    assert c.total == Cost(3*(16*8 + 8*4), 17*8 + 9*4, 3*12) and c.parts['2'].params == 36
    with pytest.raises(LayerscaleError, match='needs numbers.*real=True'): count(m, (3, 16))
    x = torch.quantize_per_tensor(torch.zeros(1, 3, 6, 6), 1., 0, torch.quint8)
    c = count(nn.Sequential(quantized.Conv2d(3, 8, 3), quantized.ConvTranspose2d(8, 4, 2, stride=2)), x, real=True)
    assert c.total == Cost(16*8*27 + 16*8*4*4, 224 + 132, 16*8 + 64*4)


@pytest.fixture(scope='module')
def ops():
    "Operators of somebody's own: one with a weight, one that is called as a known one, one for a single tensor."
    made = torch.library.Library('layerscale_test', 'FRAGMENT')
    for name in ('product', 'copy'):
        made.define(f'{name}(Tensor x, Tensor w) -> Tensor')
        made.impl(name, lambda x, w: x @ w, 'CompositeExplicitAutograd')
    made.define('double(Tensor x) -> Tensor')
    made.impl('double', lambda x: x*2, 'CompositeExplicitAutograd')
    yield torch.ops.layerscale_test
    made._destroy()


def test_an_unknown_product_is_said_beside_the_total(ops):
    m = nn.Sequential(nn.Conv2d(3, 8, 1), Call(lambda x, w: ops.product(x, w), (8, 5)))
    c, text = count(m, (1, 3, 8, 8)), 'not counted: a product (layerscale_test::product)'
    assert c.not_counted_products == {'layerscale_test::product': 8*8*5} and c.macs == 8*8*24
    assert text in repr(c) and text in c._repr_markdown_().split('Not counted')[0] and not c.uncounted
    p = cost_of(m, 8)
    total = [l for l in count_text(p).splitlines() if l.startswith('total')]
    assert len(total) == 1 and text in total[0] and text in p._repr_markdown_() and 'layerscale_test' in repr(p)
    j = json.loads(json.dumps(count_json(p)))
    assert j['not_counted_products'] == {'layerscale_test::product': 320} and j['note'] == text
    assert under(c, 'pycls')['note'] == text and (convention_table(c).note == text).all()
    assert 'note' not in count_json(cost_of(m[0], 8)) and 'note' not in under(count(m[0], (1, 3, 8, 8)), 'pycls')


def test_what_is_suspicious(ops):
    lost = lambda f, *shapes, x=(2, 3): count(Call(f, *shapes), x).not_counted_products.keys()
    assert lost(lambda x, w: ops.copy(x, w), (3, 4)) == {'layerscale_test::copy'}, 'not the copy that torch has'
    assert lost(lambda x, y: ops.product(x, y), x=((2, 3), (3, 4))) == {'layerscale_test::product'}
    assert lost(lambda x, w: ops.product(x, w), (3,), x=(3,)) == {'layerscale_test::product'}, 'a weight of any shape'
    assert lost(torch.cdist, x=((30, 4), (50, 4))) == {'_euclidean_dist'}
    sparse = WithBuffer(lambda b, x: (b @ b).to_dense() @ x, EYE.to_sparse_csr())
    assert count(sparse, (4, 5), real=True).not_counted_products.keys() == {'mm'}, 'two sparse matrices: values decide'
    for f in (torch.linalg.inv, torch.matrix_exp, torch.linalg.det, torch.linalg.qr, torch.linalg.svdvals):
        assert len(lost(lambda x, w: (f(w), x*2)[1], (4, 4))) == 1, 'one matrix, and products inside'
    assert not lost(lambda x, w: x/torch.linalg.vector_norm(w), (2, 3))
    assert not lost(lambda x: ops.double(x)) and not lost(lambda x, w: ops.double(w) + x, (2, 3))


ORDINARY = '''squeezenet1_1 densenet121 googlenet mnasnet0_5 shufflenet_v2_x0_5 convnext_tiny maxvit_t swin_v2_t
    inception_v3'''.split()
TIMM = '''test_vit test_convnext test_efficientnet_gn xcit_nano_12_p16_224 volo_d1_224 mobilevit_xxs halonet26t
    lambda_resnet26t botnet26t_256 crossvit_9_240 focalnet_tiny_srf resnest14d levit_128s poolformer_s12
    sequencer2d_s'''.split()


def test_ordinary_networks_raise_no_false_alarm():
    for name in ORDINARY:
        kw = dict(init_weights=False) if name in ('googlenet', 'inception_v3') else {}
        with torch.device('meta'): m = torchvision.models.get_model(name, weights=None, **kw)
        assert not count(m, (1, 3, 224, 224)).not_counted_products, name


@pytest.mark.parametrize('name', TIMM)
def test_networks_of_timm_raise_no_false_alarm(name):
    timm = pytest.importorskip('timm')
    with torch.device('meta'): m = timm.create_model(name, pretrained=False)
    assert not count(m, (1, *m.default_cfg['input_size'])).not_counted_products


# tensors kept outside of the module

TABLES, LISTED, TABLE, PLACE = {}, [], None, types.SimpleNamespace(table=None)
THREAD, WEAK = threading.local(), weakref.WeakKeyDictionary()


class Anywhere:
    "A device that is equal to every other, so that a cache answers for all."
    def __init__(self, device): self.device = device
    def __hash__(self): return 1
    def __eq__(self, other): return True


class Slotted:
    __slots__ = ('table',)
    def __init__(self): self.table = None


class Lazy:
    device = 'cpu'
    @functools.cached_property
    def table(self): return torch.arange(4., device=self.device)


def memo(f):
    store = {}
    def inner(key):
        if key not in store: store[key] = f(key)
        return store[key]
    return inner


def make(key): return torch.arange(4., device=key.device)


remembered, memoised = functools.lru_cache(make), memo(make)


def by_default(device, store={}):
    if not store: store['table'] = torch.arange(4., device=device)
    return store['table']


def by_attribute(device):
    if not hasattr(by_attribute, 'table'): by_attribute.table = torch.arange(4., device=device)
    return by_attribute.table


def held(where, device):
    "The table that the object `where` holds, made if it has none."
    if where.table is None: where.table = torch.arange(4., device=device)
    return where.table


class Net(nn.Module):
    table, tables = None, {}
    def __init__(self, get):
        super().__init__()
        self.lin, self.get, self.slotted, self.lazy = nn.Linear(4, 4), get, Slotted(), Lazy()
        self.helper = types.SimpleNamespace(table=None, calls=0, shapes=[], deep={'a': [Lazy()]})

    def forward(self, x): return self.lin(x) + self.get(self, x)


def in_global(m, x):
    global TABLE
    if TABLE is None: TABLE = torch.arange(4., device=x.device)
    return TABLE


def in_fresh_global(m, x):
    global FRESH
    try: return FRESH
    except NameError: FRESH = torch.arange(4., device=x.device)
    return FRESH


def in_helper(m, x):
    m.helper.calls += 1
    m.helper.shapes.append(x.shape)
    return held(m.helper, x.device)


def in_lazy(m, x, lazy=None):
    lazy = lazy or m.lazy
    lazy.device = x.device
    return lazy.table


def in_list(m, x):
    if not LISTED: LISTED.append((torch.arange(4., device=x.device),))
    return LISTED[0][0]


def in_table(table, key, device):
    if key not in table: table[key] = torch.arange(4., device=device)
    return table[key]


def in_thread(m, x):
    if not hasattr(THREAD, 'table'): THREAD.table = torch.arange(4., device=x.device)
    return THREAD.table


def of_input(m, x):
    if m.helper.table is None: m.helper.table = x.t()
    return m.helper.table.t()


def of_weight(m, x):
    if m.helper.table is None: m.helper.table = m.lin.weight.t()
    return m.helper.table[0]


CACHES = {
    'helper': in_helper,
    'helper, deep': lambda m, x: in_lazy(m, x, m.helper.deep['a'][0]),
    'slots': lambda m, x: held(m.slotted, x.device),
    'cached property': in_lazy,
    'class': lambda m, x: held(type(m), x.device),
    'dict of the class': lambda m, x: in_table(m.tables, 1, x.device),
    'dict of the file': lambda m, x: in_table(TABLES, 1, x.device),
    'weak dict': lambda m, x: in_table(WEAK, m, x.device),
    'list of the file': in_list,
    'object of the file': lambda m, x: held(PLACE, x.device),
    'variable of the file': in_global,
    'new variable': in_fresh_global, 'thread': in_thread, 'lru_cache': lambda m, x: remembered(Anywhere(x.device)),
    'closure': lambda m, x: memoised(Anywhere(x.device)), 'default argument': lambda m, x: by_default(x.device),
    'attribute of a function': lambda m, x: by_attribute(x.device), 'the input': of_input, 'a weight': of_weight}


@pytest.mark.parametrize('real', [False, True])
@pytest.mark.parametrize('name', CACHES)
def test_a_module_runs_as_before_whatever_it_caches(name, real):
    m, x = Net(CACHES[name]), torch.ones(2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert count(m, (2, 4), real=real).macs == 32
    assert (m.helper.calls, m.helper.shapes, m.helper.table) == (0, [], None)
    want = m.lin(x) + (x if name == 'the input' else m.lin.weight[:, 0] if name == 'a weight' else torch.arange(4.))
    assert torch.equal(m(x), want), 'the first real call'
    assert count(m, (2, 4), real=real).macs == 32 and torch.equal(m(x), want), 'a cache that is filled stays filled'
    stores = [c.cell_contents for c in memoised.__closure__ if isinstance(c.cell_contents, dict)]
    caches = TABLES, LISTED, Net.tables, vars(THREAD), vars(by_attribute), by_default.__defaults__[0], *stores
    for table in caches: table.clear()
    remembered.cache_clear()
    globals().update(TABLE=None)
    globals().pop('FRESH', None)
    Net.table = PLACE.table = None


def test_a_cache_in_another_file(tmp_path, monkeypatch):
    "The network calls a function of a file that keeps tables for it; a failing pass is put back too."
    (tmp_path/'tables_of_a_test.py').write_text('''import torch
TABLES = {}
def table(n, like):
    if n not in TABLES: TABLES[n] = torch.arange(float(n), device=like.device)
    return TABLES[n]
''')
    (tmp_path/'net_of_a_test.py').write_text('''import tables_of_a_test as t
from torch import nn
class Net(nn.Linear):
    def forward(self, x): return super().forward(x + t.table(4, x))
''')
    monkeypatch.syspath_prepend(tmp_path)
    net = importlib.import_module('net_of_a_test').Net(4, 2)
    assert count(net, (1, 4)).macs == 8 and sys.modules['tables_of_a_test'].TABLES == {}
    with pytest.raises(LayerscaleError): count(net, (1, 5))
    assert sys.modules['tables_of_a_test'].TABLES == {} and net(torch.zeros(1, 4)).shape == (1, 2)
    for k in ('net_of_a_test', 'tables_of_a_test'): sys.modules.pop(k)


def test_numbers_changed_outside_are_given_back():
    calls, seen = torch.zeros(2), collections.OrderedDict(a=1)
    def f(x):
        calls[1] += 1
        seen['b'] = x
        return x
    for real in (False, True):
        count(Call(f), (1, 4), real=real)
        assert calls.tolist() == [0, 0] and list(seen) == ['a']


def test_what_cannot_be_put_back_is_said():
    m = Call(lambda x: setattr(torch, 'kept_by_a_test', x) or x)
    with pytest.warns(UserWarning, match='over Call left tensors without numbers'): count(m, (1, 4))
    del torch.kept_by_a_test
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        count(m, (1, 4), real=True)
    del torch.kept_by_a_test


def test_mappings_that_answer_in_their_own_way_are_only_looked_at():
    class Strange(collections.OrderedDict):
        def __getitem__(self, k): raise AssertionError('asked')
    strange = Strange(a=int)
    count(Call(lambda x: strange and x), (1, 4))
    assert dict.__getitem__(strange, 'a') is int


def test_garbage_collection_goes_on_as_before():
    m = Call(lambda x: (gc.collect(), TABLES.setdefault('gc', x))[1])
    count(m, (1, 4))
    assert gc.isenabled() and not TABLES


# inputs

class Options(nn.Module):
    "Takes a tensor and options."
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 2)

    def forward(self, x, mask=None, double=False, scale=1.0, mode='plain'):
        assert mask is None and type(double) is bool and type(scale) in (int, float) and mode in ('plain', 'other')
        return self.lin(torch.cat([x, x]) if double else x)*scale


class Batch(nn.Module):
    "Takes one mapping."
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 2)

    def forward(self, batch): return self.lin(batch['image'])


class Own(collections.UserDict):
    "A mapping as a tokenizer returns it: entries are attributes too."
    def __getattr__(self, k):
        if k == 'data': raise AttributeError
        return self.data[k]


class Named(Batch):
    def forward(self, batch): return self.lin(batch.image)


PACKED = nn.utils.rnn.pack_padded_sequence(torch.zeros(5, 3, 4), [5, 3, 2])
LOOKUP = lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))


class Packs(nn.Module):
    "Packs its sequences by lengths it knows, or is given."
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 6)

    def forward(self, x, lengths=(5, 3, 2)):
        out, _ = self.rnn(nn.utils.rnn.pack_padded_sequence(x, lengths))
        return nn.utils.rnn.pad_packed_sequence(out)[0]


INPUTS = {  # module, input, macs
    'mapping by name': (Options, collections.UserDict(x=(1, 4), mask=None, double=True, scale=2, mode='other'), 16),
    'dict by name': (Options, dict(x=(1, 4), double=False, scale=2.5), 8),
    'proxy': (Options, types.MappingProxyType(dict(x=torch.zeros(1, 4))), 8),
    'plain values in a tuple': (Options, ((1, 4), None, True, 3, 'other'), 16),
    'tensor beside plain values': (Options, (torch.zeros(1, 4), None, False), 8),
    'one dict': (Batch, dict(image=(1, 4), kind='photo'), 8), 'one dict in a tuple': (Batch, (dict(image=(1, 4)),), 8),
    'one dict by name': (Batch, dict(batch=dict(image=torch.zeros(1, 4))), 8),
    'one mapping of its own': (Named, Own(image=(1, 4)), 8),
    'numpy integers': (lambda: nn.Linear(4, 2), (np.int64(3), np.int32(4)), 24),
    'torch.Size': (lambda: nn.Linear(4, 2), torch.Size([3, 4]), 24),
    'tokens': (LOOKUP, (1, 7), 56),
    'bags of tokens': (lambda: nn.Sequential(nn.EmbeddingBag(10, 4), nn.Linear(4, 2)), (3, 7), 24),
    'packed': (lambda: nn.LSTM(4, 6), PACKED, 10*(24*4 + 24*6)),
    'packed, in a tuple': (lambda: nn.GRU(4, 6), (PACKED,), 10*(18*4 + 18*6)),
    'packs inside': (Packs, (5, 3, 4), 2400)}


@pytest.mark.parametrize('real', [False, True])
@pytest.mark.parametrize('name', INPUTS)
def test_inputs(name, real):
    make, given, macs = INPUTS[name]
    assert count(make(), given, real=real).macs == macs


def test_inputs_that_need_a_sentence():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.table = nn.Linear(4, 4), nn.Embedding(10, 4)
        def forward(self, x, i): return self.lin(x) + self.table(i)
    text = r"'table' \(Embedding\).*tensor of whole numbers.*torch.zeros\(\(1,\), dtype=torch.long\)"
    with pytest.raises(LayerscaleError, match=text): count(Second(), ((1, 4), (1,)))
    assert count(Second(), ((1, 4), torch.zeros(1).long())).macs == 16
    lengths = torch.tensor([5, 3, 2])
    with pytest.raises(LayerscaleError, match='needs numbers.*real=True'): count(Packs(), ((5, 3, 4), lengths))
    assert count(Packs(), ((5, 3, 4), lengths), real=True).macs == 2400
    for bad in (((1, 4), object()), {1, 4}, dict(x=(1, -4)), (np.int64(0), 4)):
        with pytest.raises(LayerscaleError, match='positive whole numbers'): count(nn.Linear(4, 2), bad)


def test_flexible_attention():
    flex = pytest.importorskip('torch.nn.attention.flex_attention')
    flag = getattr(flex, '_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG', None)
    if flag is None: pytest.skip('this torch cannot run flexible attention without a compiler')
    m = Call(flex.flex_attention)
    with pytest.raises(LayerscaleError, match='needs numbers.*real=True'): count(m, ((1, 2, 128, 16),)*3)
    assert count(m, ((1, 2, 128, 16),)*3, real=True).macs == 2*128*128*32
    assert flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG == flag


def test_inference_mode_from_a_terminal(capsys, monkeypatch):
    class Inside(nn.Conv2d):
        def forward(self, x):
            with torch.inference_mode(): return super().forward(x)
    monkeypatch.setattr('layerscale_nb.nets.find.find', lambda name, scale: Inside(3, 8, 3))
    for real in ([], ['--real']):
        assert main(['count', 'timm:inside', '--imgsz', '16', '--json', *real]) == 0
        assert json.loads(capsys.readouterr().out)['macs'] == 42_336


def test_a_count_of_no_image_has_a_text():
    c = count(nn.Linear(4, 3), (2, 4))
    assert count_text(c).startswith('Linear (counted)') and count_json(c)['resolution'] is None


def test_real_numbers_from_a_terminal(capsys):
    name = 'torchvision:ssdlite320_mobilenet_v3_large'
    assert main(['count', name, '--imgsz', '320']) == 2 and '--real in a terminal' in capsys.readouterr().err
    assert main(['count', name, '--imgsz', '320', '--real', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['macs'] == 583_171_904
    assert main(['count', 'yolov8n', '--real', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['macs'] == 4_371_993_600
